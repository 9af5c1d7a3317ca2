//! Gunicorn's command line, as its parser understands it: `--flag value`, `--flag=value`, `-w4`, `-w 4`, `-Dw4` and
//! unique beginnings of long flags (`argparse`, `allow_abbrev`).

/// One of Gunicorn's flags.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Flag {
    /// The setting that it sets.
    pub setting: &'static str,
    names: &'static [&'static str],
    takes: Takes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    PerhapsValue,
}

const fn switch(setting: &'static str, names: &'static [&'static str]) -> Flag {
    Flag { setting, names, takes: Takes::Nothing }
}

const fn valued(setting: &'static str, names: &'static [&'static str]) -> Flag {
    Flag { setting, names, takes: Takes::Value }
}

const fn optional(setting: &'static str, names: &'static [&'static str]) -> Flag {
    Flag { setting, names, takes: Takes::PerhapsValue }
}

/// Those of releases 21 to 27, taken together.
static FLAGS: &[Flag] = &[
    valued("access_log_format", &["--access-logformat"]),
    valued("accesslog", &["--access-logfile"]),
    valued("asgi_disconnect_grace_period", &["--asgi-disconnect-grace-period"]),
    valued("asgi_lifespan", &["--asgi-lifespan"]),
    valued("asgi_loop", &["--asgi-loop"]),
    valued("backlog", &["--backlog"]),
    valued("bind", &["-b", "--bind"]),
    valued("ca_certs", &["--ca-certs"]),
    switch("capture_output", &["--capture-output"]),
    switch("casefold_http_method", &["--casefold-http-method"]),
    valued("cert_reqs", &["--cert-reqs"]),
    valued("certfile", &["--certfile"]),
    valued("chdir", &["--chdir"]),
    switch("check_config", &["--check-config"]),
    valued("ciphers", &["--ciphers"]),
    valued("config", &["-c", "--config"]),
    valued("control_socket", &["--control-socket"]),
    switch("control_socket_disable", &["--no-control-socket"]),
    valued("control_socket_mode", &["--control-socket-mode"]),
    switch("daemon", &["-D", "--daemon"]),
    valued("dirty_apps", &["--dirty-app"]),
    valued("dirty_graceful_timeout", &["--dirty-graceful-timeout"]),
    valued("dirty_threads", &["--dirty-threads"]),
    valued("dirty_timeout", &["--dirty-timeout"]),
    valued("dirty_workers", &["--dirty-workers"]),
    switch("disable_redirect_access_to_syslog", &["--disable-redirect-access-to-syslog"]),
    switch("do_handshake_on_connect", &["--do-handshake-on-connect"]),
    valued("dogstatsd_tags", &["--dogstatsd-tags"]),
    switch("enable_backlog_metric", &["--enable-backlog-metric"]),
    switch("enable_stdio_inheritance", &["-R", "--enable-stdio-inheritance"]),
    valued("errorlog", &["--error-logfile", "--log-file"]),
    valued("forwarded_allow_ips", &["--forwarded-allow-ips"]),
    valued("forwarder_headers", &["--forwarder-headers"]),
    valued("graceful_timeout", &["--graceful-timeout"]),
    valued("group", &["-g", "--group"]),
    valued("header_map", &["--header-map"]),
    switch("help", &["-h", "--help"]),
    valued("http2_cleartext", &["--http2-cleartext"]),
    valued("http2_initial_window_size", &["--http2-initial-window-size"]),
    valued("http2_max_concurrent_streams", &["--http2-max-concurrent-streams"]),
    valued("http2_max_frame_size", &["--http2-max-frame-size"]),
    valued("http2_max_header_list_size", &["--http2-max-header-list-size"]),
    valued("http_parser", &["--http-parser"]),
    valued("http_protocols", &["--http-protocols"]),
    switch("initgroups", &["--initgroups"]),
    valued("keepalive", &["--keep-alive"]),
    valued("keyfile", &["--keyfile"]),
    valued("limit_request_field_size", &["--limit-request-field_size"]),
    valued("limit_request_fields", &["--limit-request-fields"]),
    valued("limit_request_line", &["--limit-request-line"]),
    valued("logconfig", &["--log-config"]),
    valued("logconfig_json", &["--log-config-json"]),
    valued("logger_class", &["--logger-class"]),
    valued("loglevel", &["--log-level"]),
    valued("max_requests", &["--max-requests"]),
    valued("max_requests_jitter", &["--max-requests-jitter"]),
    valued("paste", &["--paste", "--paster"]),
    switch("permit_obsolete_folding", &["--permit-obsolete-folding"]),
    switch("permit_unconventional_http_method", &["--permit-unconventional-http-method"]),
    switch("permit_unconventional_http_version", &["--permit-unconventional-http-version"]),
    valued("pidfile", &["-p", "--pid"]),
    switch("preload_app", &["--preload"]),
    switch("print_config", &["--print-config"]),
    valued("proc_name", &["-n", "--name"]),
    valued("protocol", &["--protocol"]),
    valued("proxy_allow_ips", &["--proxy-allow-from"]),
    optional("proxy_protocol", &["--proxy-protocol"]),
    valued("pythonpath", &["--pythonpath"]),
    valued("raw_env", &["-e", "--env"]),
    valued("raw_paste_global_conf", &["--paste-global"]),
    switch("reload", &["--reload"]),
    valued("reload_engine", &["--reload-engine"]),
    valued("reload_extra_files", &["--reload-extra-file"]),
    switch("reuse_port", &["--reuse-port"]),
    valued("root_path", &["--root-path"]),
    switch("sendfile", &["--no-sendfile"]),
    switch("spew", &["--spew"]),
    valued("ssl_version", &["--ssl-version"]),
    valued("statsd_host", &["--statsd-host"]),
    valued("statsd_prefix", &["--statsd-prefix"]),
    switch("strip_header_spaces", &["--strip-header-spaces"]),
    switch("suppress_ragged_eofs", &["--suppress-ragged-eofs"]),
    switch("syslog", &["--log-syslog"]),
    valued("syslog_addr", &["--log-syslog-to"]),
    valued("syslog_facility", &["--log-syslog-facility"]),
    valued("syslog_prefix", &["--log-syslog-prefix"]),
    valued("threads", &["--threads"]),
    valued("timeout", &["-t", "--timeout"]),
    switch("tolerate_dangerous_framing", &["--tolerate-dangerous-framing"]),
    valued("umask", &["-m", "--umask"]),
    valued("user", &["-u", "--user"]),
    valued("uwsgi_allow_ips", &["--uwsgi-allow-from"]),
    switch("version", &["-v", "--version"]),
    valued("websocket_max_message_size", &["--websocket-max-message-size"]),
    valued("worker_class", &["-k", "--worker-class"]),
    valued("worker_connections", &["--worker-connections"]),
    valued("worker_tmp_dir", &["--worker-tmp-dir"]),
    valued("workers", &["-w", "--workers"]),
];

/// One argument and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Argument {
    /// The flag; none for a positional argument or a flag that is not known.
    pub flag: Option<&'static Flag>,
    /// Its value.
    pub value: Option<String>,
    /// The flag as it was written, without the value.
    pub written: String,
    /// The words that it consists of.
    pub words: Vec<String>,
}

impl Argument {
    /// The setting that it sets.
    pub fn setting(&self) -> Option<&'static str> {
        self.flag.map(|flag| flag.setting)
    }

    /// Whether it needs a value and has none, which Gunicorn refuses.
    pub fn lacks_value(&self) -> bool {
        self.value.is_none() && self.flag.is_some_and(|flag| flag.takes == Takes::Value)
    }

    /// Whether a word behind it would be its value.
    pub fn takes_next(&self) -> bool {
        self.value.is_none() && self.flag.is_some_and(|flag| flag.takes != Takes::Nothing)
    }
}

/// Parses words into arguments. What Gunicorn would refuse is left as it is, so that Gunicorn refuses it.
pub(in super::super) fn parse(words: &[String]) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            arguments.extend([word].into_iter().chain(rest).map(|word| positional(word)));
            break;
        }
        let found = if word.starts_with("--") { long(word) } else { short(word) };
        if found.is_empty() {
            arguments.push(positional(word));
        }
        for (flag, written, inline) in found {
            let mut argument = Argument { flag: Some(flag), value: inline, written, words: Vec::new() };
            argument.words.push(match &argument.value {
                // One that stands behind a letter and begins with `=` needs another one in front of it.
                Some(value) if argument.written.starts_with("--") || value.starts_with('=') => {
                    format!("{}={value}", argument.written)
                }
                Some(value) => format!("{}{value}", argument.written),
                None => argument.written.clone(),
            });
            let next = rest.as_slice().first().filter(|next| is_value(next));
            if let (Some(next), None, Takes::Value | Takes::PerhapsValue) = (next, &argument.value, flag.takes) {
                argument.value = Some(next.clone());
                argument.words.push(next.clone());
                rest.next();
            }
            arguments.push(argument);
        }
    }
    arguments
}

/// A word with a dash is the next flag, unless it is a number or, if there is no such flag, has a space. A dash alone is a
/// value.
fn is_value(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else { return true };
    let (whole, fraction) = rest.split_once('.').unwrap_or(("", rest));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = !fraction.is_empty() && are_digits(whole) && are_digits(fraction);
    let has_flag = || !(if word.starts_with("--") { long(word) } else { short(word) }).is_empty();
    rest.is_empty() || is_number || word.contains(' ') && !has_flag()
}

fn positional(word: &str) -> Argument {
    Argument { flag: None, value: None, written: word.into(), words: vec![word.into()] }
}

type Found = Vec<(&'static Flag, String, Option<String>)>;

fn long(word: &str) -> Found {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
    let exact = FLAGS.iter().find(|flag| flag.names.contains(&name));
    let flag = exact.or_else(|| {
        let mut beginning = FLAGS.iter().filter(|flag| flag.names.iter().any(|known| known.starts_with(name)));
        beginning.next().filter(|_| beginning.next().is_none())
    });
    flag.map(|flag| (flag, name.to_owned(), value)).into_iter().collect()
}

/// `-w4`, `-w=4`, `-w`, and several letters together of which only the last may take a value. None if one of them is
/// unknown.
fn short(word: &str) -> Found {
    let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else { return Vec::new() };
    let mut found = Vec::new();
    for (at, letter) in letters.char_indices() {
        let name = format!("-{letter}");
        let Some(flag) = FLAGS.iter().find(|flag| flag.names.contains(&name.as_str())) else { return Vec::new() };
        if flag.takes == Takes::Nothing {
            found.push((flag, name, None));
            continue;
        }
        let value = &letters[at + letter.len_utf8()..];
        let value = value.strip_prefix('=').unwrap_or(value);
        found.push((flag, name, (!value.is_empty()).then(|| value.to_owned())));
        break;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(Option<&'static str>, Option<String>)> {
        let words = shlex::split(text).unwrap();
        parse(&words).into_iter().map(|argument| (argument.setting(), argument.value)).collect()
    }

    #[test]
    fn values_are_found_however_they_are_written() {
        for text in ["--workers 4", "--workers=4", "-w4", "-w 4", "-w=4", "--workers '4'"] {
            assert_eq!(of(text), [(Some("workers"), Some("4".into()))], "{text}");
        }
        assert_eq!(of("-Dw4"), [(Some("daemon"), None), (Some("workers"), Some("4".into()))]);
        for value in ["-", "-1", "-.5", "-1.5", "-x y"] {
            let text = format!("--access-logfile '{value}'");
            assert_eq!(of(&text), [(Some("accesslog"), Some(value.into()))], "{text}");
        }
        assert_eq!(of("--proxy-protocol --reload"), [(Some("proxy_protocol"), None), (Some("reload"), None)]);
    }

    #[test]
    fn long_flags_may_be_shortened_while_they_are_unique() {
        assert_eq!(of("--max-requests 5"), [(Some("max_requests"), Some("5".into()))]);
        assert_eq!(of("--daem"), [(Some("daemon"), None)]);
        assert_eq!(of("--worker-c sync"), [(None, None), (None, None)], "class or connections");
        assert_eq!(of("--bin 0:1"), [(Some("bind"), Some("0:1".into()))]);
        assert_eq!(of("--pai x"), [(None, None), (None, None)]);
    }

    #[test]
    fn what_is_unknown_or_behind_two_dashes_is_left_alone() {
        assert_eq!(of("--flavour x -Z -- --workers 3").len(), 6);
        assert!(of("--flavour x -Z -- --workers 3").iter().all(|(setting, _)| setting.is_none()));
    }

    #[test]
    fn the_words_come_out_as_they_meant_the_same() {
        for text in ["--workers=4 -k gthread --reload", "-Dw4", "a --b c", "-n==x -e=A=b"] {
            let words: Vec<String> =
                parse(&shlex::split(text).unwrap()).into_iter().flat_map(|argument| argument.words).collect();
            assert_eq!(of(text), of(&words.join(" ")), "{text}");
        }
    }
}
