//! The arguments after `--`, which are passed to the server unchanged, last. Those that conflict with ours are problems
//! that name the flag to use instead: without knowing the count, port or grace period, we cannot supervise the server.

use super::Findings;
use super::gunicorn::parse;
use crate::problem::{Exit, Problem};
use crate::settings::value::Server;

/// Gunicorn's settings that we control, and what to use instead.
const GUNICORN: &[(&str, &str)] = &[
    ("bind", "use --bind"),
    ("workers", "use --workers"),
    ("worker_class", "use --worker-class"),
    ("threads", "use --threads"),
    ("timeout", "use --timeout"),
    ("graceful_timeout", "use --graceful-timeout"),
    ("keepalive", "use --keep-alive"),
    ("backlog", "use --backlog"),
    ("max_requests", "use --max-requests"),
    ("max_requests_jitter", "use --max-requests-jitter"),
    ("preload_app", "use --preload-app"),
    ("reload", "use --dev-mode"),
    ("loglevel", "use --gunicorn-log-level"),
    ("config", "use --gunicorn-config"),
    ("forwarded_allow_ips", "use --forwarded-allow-ips"),
    ("chdir", "use --app-root"),
    ("certfile", "use --ssl --cert-file"),
    ("keyfile", "use --ssl --key-file"),
    ("ca_certs", "use --ssl-ca-file"),
    ("cert_reqs", "use --ssl-client-verify"),
    ("ciphers", "use --ssl-ciphers"),
    ("ssl_version", "use --ssl-min-version"),
    ("daemon", "remove it: a daemonized server cannot be supervised"),
    ("pidfile", "remove it: the launcher knows the process; its own file is --lock"),
    ("reuse_port", "remove it: the workers share one socket"),
];

/// Granian's flags that we control, and what to use instead.
const GRANIAN: &[(&str, &str)] = &[
    ("--host", "use --host"),
    ("--port", "use --port"),
    ("--uds", "use --uds"),
    ("--http", "use --http"),
    ("--workers", "use --workers"),
    ("--blocking-threads", "use --blocking-threads"),
    ("--runtime-threads", "use --runtime-threads"),
    ("--threads", "use --runtime-threads"),
    ("--runtime-mode", "use --runtime-mode"),
    ("--threading-mode", "use --runtime-mode"),
    ("--loop", "use --loop"),
    ("--task-impl", "use --task-impl"),
    ("--opt", "use --task-impl"),
    ("--backlog", "use --backlog"),
    ("--backpressure", "use --backpressure"),
    ("--http1-buffer-size", "use --http1-buffer-size"),
    ("--log-level", "use --granian-log-level"),
    ("--workers-lifetime", "use --workers-lifetime"),
    ("--workers-max-rss", "use --workers-max-rss"),
    ("--pid-file", "remove it: the launcher's lock has its process id; see --lock"),
    ("--working-dir", "use --app-root"),
    ("--ssl-certificate", "use --ssl --cert-file"),
    ("--ssl-keyfile", "use --ssl --key-file"),
    ("--ssl-keyfile-password", "set KEY_FILE_PASSWORD: every user can see arguments"),
    ("--ssl-protocol-min", "use --ssl-min-version"),
    ("--ssl-ca", "use --ssl-ca-file"),
    ("--ssl-client-verify", "use --ssl-client-verify"),
];

/// Granian's switches that we set, our switch for each, and whether that means the opposite.
const GRANIAN_SWITCHES: &[(&str, &str, bool)] = &[
    ("--http1-pipeline-flush", "--http1-pipeline-flush", false),
    ("--access-log", "--disable-access-log", true),
    ("--respawn-failed-workers", "--respawn-failed", false),
    ("--reload", "--dev-mode", false),
];

/// What to use instead of an argument of Granian's, if we control it.
fn instead_for_granian(name: &str) -> Option<String> {
    let negated = name.strip_prefix("--no-").map(|rest| format!("--{rest}"));
    let positive = negated.as_deref().unwrap_or(name);
    if let Some((_, ours, opposite)) = GRANIAN_SWITCHES.iter().find(|(flag, ..)| *flag == positive) {
        let on = negated.is_some() == *opposite;
        return Some(format!("use {ours}{}", if on { "" } else { "=false" }));
    }
    let (_, instead) = GRANIAN.iter().find(|(flag, _)| *flag == positive)?;
    Some((*instead).to_owned())
}

/// Finds every argument that conflicts with ours.
pub(super) fn check(server: Server, args: &[std::ffi::OsString], findings: &mut Findings) {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut contradiction = |written: &str, instead: &str| {
        let message = format!("{written} after -- contradicts what mcp-launch passes to {server}");
        let place = if instead.starts_with("use") { " before the --" } else { "" };
        findings.problem(Problem::new(Exit::Usage, message).hint(format!("{instead}{place}")));
    };
    match server {
        Server::Gunicorn => {
            for argument in parse(&words) {
                let found = GUNICORN.iter().find(|(setting, _)| argument.setting() == Some(setting));
                if let Some((_, instead)) = found {
                    contradiction(&argument.written, instead);
                }
            }
        }
        // Its parser does not accept abbreviated flags.
        Server::Granian => {
            for word in words.iter().take_while(|word| *word != "--") {
                let name = word.split('=').next().unwrap_or_default();
                if let Some(instead) = instead_for_granian(name) {
                    contradiction(name, &instead);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OPTIONS;

    fn problems(server: Server, args: &[&str]) -> Vec<String> {
        let mut findings = Findings::default();
        check(server, &args.iter().map(Into::into).collect::<Vec<_>>(), &mut findings);
        findings.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_contradiction_is_named_with_the_flag_to_use_instead() {
        let hint = "--workers after -- contradicts what mcp-launch passes to granian; use --workers before the --";
        assert_eq!(problems(Server::Granian, &["--workers", "4"]), [hint]);
        assert!(problems(Server::Gunicorn, &["-w4"])[0].starts_with("-w after --"));
        assert!(problems(Server::Gunicorn, &["--daem"])[0].contains("remove it"));
        assert_eq!(problems(Server::Granian, &["--no-access-log", "--ssl-ca=x"]).len(), 2);
    }

    #[test]
    fn what_to_use_instead_of_a_switch_says_the_same() {
        for (written, instead) in [
            ("--access-log", "use --disable-access-log=false before"),
            ("--no-access-log", "use --disable-access-log before"),
            ("--reload", "use --dev-mode before"),
            ("--no-reload", "use --dev-mode=false before"),
            ("--no-respawn-failed-workers", "use --respawn-failed=false before"),
            ("--no-http1-pipeline-flush", "use --http1-pipeline-flush=false before"),
        ] {
            let found = problems(Server::Granian, &[written]);
            assert!(found[0].contains(instead), "{found:?}");
        }
        assert!(problems(Server::Granian, &["--pid-file=/run/x"])[0].contains("remove it"));
    }

    #[test]
    fn what_is_not_ours_goes_through() {
        assert!(
            problems(Server::Granian, &["--static-path-mount", "/srv", "--no-ws", "--interface=rsgi"]).is_empty()
        );
        assert!(problems(Server::Gunicorn, &["--limit-request-line", "0"]).is_empty());
    }

    #[test]
    fn the_flags_to_use_instead_exist() {
        let known: Vec<String> = OPTIONS
            .iter()
            .flat_map(|opt| [opt.flag.map(str::to_owned), opt.specific_flag()])
            .flatten()
            .chain(["bind".to_owned()])
            .collect();
        let switches = GRANIAN_SWITCHES.iter().map(|(_, ours, _)| ((), *ours));
        let others = GUNICORN.iter().chain(GRANIAN).map(|(_, instead)| ((), *instead));
        for ((), instead) in others.chain(switches) {
            for flag in instead.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                assert!(known.iter().any(|known| known == flag), "{flag}");
            }
        }
    }
}
