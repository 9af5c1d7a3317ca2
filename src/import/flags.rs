//! What the flags of each server are among the options. The same meaning, or else it is said why not.

use super::facts::Facts;

/// What becomes of a flag.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// The value of this option.
    Is(&'static str),
    /// The option gets this value; the flag has none of its own.
    Sets(&'static str, &'static str),
    /// An address to listen on.
    Bind,
    /// Where the access log goes: on, unless it goes to a file.
    AccessLog,
    /// Left out, with its value, for this reason.
    Drop(&'static str),
    /// A switch that the server gets as it is.
    Pass,
    /// Left out, and it has no value.
    DropSwitch(&'static str),
}
use Use::{AccessLog, Bind, Drop, DropSwitch, Is, Pass, Sets};

/// Names of a flag, and its use.
type Row = (&'static [&'static str], Use);

const LOGS: &str = "logs go to standard output and error; collect them there";
const PROCESS: &str = "mcp-launch keeps track of processes by itself";
const USER: &str = "mcp-launch stays the user that it is started as; start it as that one";

pub(super) const GUNICORN: &[Row] = &[
    (&["-b", "--bind"], Bind),
    (&["-w", "--workers"], Is("gunicorn_workers")),
    (&["-k", "--worker-class"], Is("gunicorn_worker_class")),
    (&["--threads"], Is("gunicorn_threads")),
    (&["-t", "--timeout"], Is("gunicorn_timeout")),
    (&["--graceful-timeout"], Is("gunicorn_graceful_timeout")),
    (&["--keep-alive"], Is("gunicorn_keep_alive")),
    (&["--backlog"], Is("gunicorn_backlog")),
    (&["--max-requests"], Is("gunicorn_max_requests")),
    (&["--max-requests-jitter"], Is("gunicorn_max_requests_jitter")),
    (&["--preload"], Sets("gunicorn_preload_app", "true")),
    (&["--reload"], Sets("gunicorn_dev_mode", "true")),
    (&["--log-level"], Is("gunicorn_log_level")),
    (&["-c", "--config"], Is("gunicorn_config")),
    (&["--chdir"], Is("app_root")),
    (&["--certfile"], Is("cert_file")),
    (&["--keyfile"], Is("key_file")),
    (&["--ca-certs"], Is("ssl_ca_file")),
    (&["--cert-reqs"], Is("ssl_client_verify")),
    (&["--ciphers"], Is("ssl_ciphers")),
    (&["--forwarded-allow-ips"], Is("forwarded_allow_ips")),
    (&["--access-logfile"], AccessLog),
    (&["--error-logfile", "--log-file"], Drop(LOGS)),
    (&["-p", "--pid"], Drop(PROCESS)),
    (&["-D", "--daemon"], DropSwitch(PROCESS)),
    (&["--reuse-port"], DropSwitch("mcp-launch opens the socket, and shares it among the workers")),
    (&["-u", "--user", "-g", "--group"], Drop(USER)),
    (&["--worker-tmp-dir"], Drop("hung workers are found through shared memory, which needs no directory")),
];

/// Switches of any of the servers, which have no value that could be taken for the application, or the reverse.
pub(super) const SWITCHES: &[&str] = &[
    "--capture-output",
    "--no-sendfile",
    "--proxy-protocol",
    "--enable-stdio-inheritance",
    "--log-syslog",
    "--disable-redirect-access-to-syslog",
    "--strip-header-spaces",
    "-R",
    "--spew",
    "--no-ws",
    "--ws",
    "--factory",
    "--static-path-precompressed",
];

pub(super) const UVICORN: &[Row] = &[
    (&["--host"], Is("host")),
    (&["--port"], Is("port")),
    (&["--uds"], Is("uds")),
    (&["--workers"], Is("gunicorn_workers")),
    (&["--backlog"], Is("gunicorn_backlog")),
    (&["--limit-concurrency"], Is("gunicorn_backpressure")),
    (&["--limit-max-requests"], Is("gunicorn_max_requests")),
    (&["--timeout-keep-alive"], Is("gunicorn_keep_alive")),
    (&["--timeout-graceful-shutdown"], Is("gunicorn_graceful_timeout")),
    (&["--reload"], Sets("gunicorn_dev_mode", "true")),
    (&["--reload-dir", "--reload-include", "--reload-exclude"], Drop("Gunicorn watches the modules that are loaded")),
    (&["--log-level"], Is("gunicorn_log_level")),
    (&["--access-log"], Sets("disable_access_log", "false")),
    (&["--no-access-log"], Sets("disable_access_log", "true")),
    (&["--ssl-certfile"], Is("cert_file")),
    (&["--ssl-keyfile"], Is("key_file")),
    (&["--ssl-ca-certs"], Is("ssl_ca_file")),
    (&["--ssl-cert-reqs"], Is("ssl_client_verify")),
    (&["--ssl-ciphers"], Is("ssl_ciphers")),
    (&["--forwarded-allow-ips"], Is("forwarded_allow_ips")),
    (&["--proxy-headers"], DropSwitch("forwarding headers of trusted proxies are always read")),
    (&["--env-file"], Is("env_file")),
    (&["--app-dir"], Is("app_root")),
    (&["--loop", "--http", "--ws", "--lifespan", "--interface"], Drop("Gunicorn's worker class determines it")),
    (&["--log-config"], Drop(LOGS)),
    (&["--ssl-keyfile-password"], Drop("a passphrase is given in KEY_FILE_PASSWORD_FILE")),
    (&["--root-path"], Drop("the worker class takes it from the proxy or the app")),
    (
        &[
            "--factory",
            "--no-server-header",
            "--no-date-header",
            "--use-colors",
            "--no-use-colors",
            "--no-proxy-headers",
        ],
        DropSwitch("Gunicorn's worker class has no such setting"),
    ),
];

pub(super) const GRANIAN: &[Row] = &[
    (&["--host"], Is("host")),
    (&["--port"], Is("port")),
    (&["--uds"], Is("uds")),
    (&["--uds-permissions"], Is("uds_permissions")),
    (&["--workers"], Is("granian_workers")),
    (&["--http"], Is("granian_http")),
    (&["--loop"], Is("granian_loop")),
    (&["--task-impl"], Is("granian_task_impl")),
    (&["--runtime-mode"], Is("granian_runtime_mode")),
    (&["--runtime-threads"], Is("granian_runtime_threads")),
    (&["--blocking-threads"], Is("granian_blocking_threads")),
    (&["--backlog"], Is("granian_backlog")),
    (&["--backpressure"], Is("granian_backpressure")),
    (&["--http1-buffer-size"], Is("granian_http1_buffer_size")),
    (&["--http1-pipeline-flush"], Sets("granian_http1_pipeline_flush", "true")),
    (&["--respawn-failed-workers"], Sets("granian_respawn_failed", "true")),
    (&["--no-respawn-failed-workers"], Sets("granian_respawn_failed", "false")),
    (&["--workers-lifetime"], Is("granian_workers_lifetime")),
    (&["--workers-max-rss"], Is("granian_workers_max_rss")),
    (&["--reload"], Sets("granian_dev_mode", "true")),
    (&["--log-level"], Is("granian_log_level")),
    (&["--access-log"], Sets("disable_access_log", "false")),
    (&["--no-access-log"], Sets("disable_access_log", "true")),
    (&["--ssl-certificate"], Is("cert_file")),
    (&["--ssl-keyfile"], Is("key_file")),
    (&["--ssl-ca"], Is("ssl_ca_file")),
    (&["--working-dir"], Is("app_root")),
    (&["--env-files"], Is("env_file")),
    (&["--pid-file"], Drop(PROCESS)),
    (&["--process-name"], Drop(PROCESS)),
];

/// Takes or leaves the value of a flag.
pub(super) fn apply(what: Use, name: &str, value: Option<&str>, facts: &mut Facts) {
    let text = value.unwrap_or_default();
    match what {
        Is(id) => facts.take(id, text, name),
        Sets(id, fixed) => facts.take(id, fixed, name),
        Bind => bind(text, name, facts),
        AccessLog if text == "-" || text.starts_with("/dev/std") => facts.take("disable_access_log", "false", name),
        AccessLog => facts.leave(&format!("{name} {text}"), LOGS),
        // Standard output and error, as here.
        Drop(LOGS) if text == "-" => {}
        Drop(why) => facts.leave(&format!("{name} {text}"), why),
        DropSwitch(why) => facts.leave(name, why),
        Pass => facts.server_args.push(name.to_owned()),
    }
}

/// Whether a flag is followed by a value.
pub(super) const fn has_value(what: Use) -> bool {
    !matches!(what, Sets(..) | DropSwitch(_) | Pass)
}

/// `HOST:PORT`, `:PORT`, `HOST`, `unix:PATH`, as Gunicorn reads it.
pub(super) fn bind(text: &str, name: &str, facts: &mut Facts) {
    if text.starts_with("fd://") {
        return facts.leave(
            &format!("{name} {text}"),
            "systemd passes the socket, which needs no setting; see what check says of it",
        );
    }
    if facts.has("host") || facts.has("uds") {
        return facts
            .leave(&format!("{name} {text}"), "one address stands in the file; give the others as further --bind");
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return facts.take("uds", path.strip_prefix("//").unwrap_or(path), name);
    }
    let text = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    // A variable may have a colon of its own.
    let split = if text.contains('$') { text.split_once(':') } else { text.rsplit_once(':') };
    let (host, port) = match split {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        // Gunicorn's port.
        _ => (text, "8000"),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    facts.take("host", if host.is_empty() || host == "*" { "0.0.0.0" } else { host }, name);
    facts.take("port", port, name);
}
