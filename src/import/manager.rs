//! The settings around the command: what the other manager does with the process.

use super::command::variable;
use super::facts::Facts;
use super::flags::bind;
use super::{Kind, Service, compose};

/// Reads them.
pub(super) fn read(kind: Kind, service: &Service, facts: &mut Facts) {
    let each = match kind {
        Kind::Supervisor => supervisor,
        Kind::Systemd => systemd,
        Kind::Uwsgi => uwsgi,
        Kind::Compose => compose::around,
        Kind::Command => script,
        Kind::Procfile => return,
    };
    for (key, value) in service.settings.iter().filter(|(key, _)| key != "callable") {
        each(key, value.trim(), facts);
    }
    if kind == Kind::Uwsgi {
        if let Some((_, attribute)) = service.settings.iter().find(|(key, _)| key == "callable") {
            facts.add_attribute(attribute);
        }
        facts.take("http_server", "gunicorn", "[uwsgi]");
        if !facts.has("app_module") {
            facts.leave("the application", "none is named; add APP_MODULE or app_module");
        }
    }
}

const LOGS: &str = "logs go to standard output and error; collect them there";
const MANAGER: &str = "it is for the manager that starts mcp-launch; keep it there";

/// Another line of the script that starts the server.
fn script(_: &str, line: &str, facts: &mut Facts) {
    match line.split_once(' ') {
        Some(("set", _)) => {}
        Some(("export", rest)) => variables(rest, facts),
        Some(("cd", folder)) => facts.take("app_root", folder, "cd"),
        _ => facts.leave(
            &format!("the command {line}"),
            "run it as pre_start, or keep the script and let it execute mcp-launch in place of the server",
        ),
    }
}

/// With a space for each comma that stands outside quotes, as supervisord separates variables.
fn spaced(text: &str) -> String {
    let mut quote = None;
    let mut each = |letter: char| {
        match (letter, quote) {
            ('"' | '\'', None) => quote = Some(letter),
            (_, Some(open)) if open == letter => quote = None,
            (',', None) => return ' ',
            _ => {}
        }
        letter
    };
    text.chars().map(&mut each).collect()
}

/// Words, each `NAME=VALUE`, quoted where necessary.
fn variables(text: &str, facts: &mut Facts) {
    for word in shlex::split(text).unwrap_or_default() {
        match word.split_once('=') {
            Some((name, value)) => variable(name, value, facts),
            None => facts.leave("a part of the environment", "it is no NAME=VALUE"),
        }
    }
}

fn supervisor(key: &str, value: &str, facts: &mut Facts) {
    match key {
        "directory" => facts.take("app_root", value, key),
        "environment" => variables(&spaced(value), facts),
        "stopwaitsecs" => facts.take("stop_timeout", value, key),
        "startretries" => facts.take("restart_limit", value, key),
        "autorestart" => facts.take(
            "restart",
            match value {
                "true" => "always",
                "false" => "no",
                _ => "on-failure",
            },
            key,
        ),
        "stopsignal" if ["TERM", "INT", "QUIT", "SIGTERM", "SIGINT", "SIGQUIT"].contains(&value) => {}
        "startsecs" => facts.leave("startsecs", "the server is asked whether it is ready, which needs no time"),
        "numprocs" if value == "1" => {}
        "stopasgroup" | "killasgroup" => {
            facts.leave(key, "nothing survives mcp-launch, so no group has to be signalled");
        }
        _ if key.contains("log") || key == "redirect_stderr" => facts.leave(key, LOGS),
        _ => facts.leave(&format!("{key}={value}"), MANAGER),
    }
}

fn systemd(key: &str, value: &str, facts: &mut Facts) {
    match key {
        "WorkingDirectory" => facts.take("app_root", value.trim_start_matches('-'), key),
        "Environment" => variables(value, facts),
        "EnvironmentFile" => facts.take("env_file", value.trim_start_matches('-'), key),
        "ExecStartPre" if !facts.has("pre_start") => {
            facts.take("pre_start", value.trim_start_matches(['-', '+', '!']), key);
        }
        "Restart" => facts.take("restart", if ["always", "no"].contains(&value) { value } else { "on-failure" }, key),
        "RestartSec" => facts.take("backoff_initial", value, key),
        "TimeoutStopSec" => facts.take("stop_timeout", value, key),
        "TimeoutStartSec" => facts.take("startup_timeout", value, key),
        "ExecReload" => facts.leave(key, "use mcp-launch reload, which waits until the new release serves"),
        "PIDFile" => facts.leave(key, "mcp-launch needs none"),
        "Type" if value == "forking" => {
            facts.leave("Type=forking", "mcp-launch stays in the foreground: Type=notify");
        }
        "Type" => {}
        "KillMode" | "KillSignal" => facts.leave(key, "nothing survives mcp-launch: KillMode=mixed is right for it"),
        _ => facts.leave(&format!("{key}={value}"), "it is systemd's; keep it in the unit of mcp-launch"),
    }
}

fn uwsgi(key: &str, value: &str, facts: &mut Facts) {
    let is_on = ["true", "1", "yes", "on"].contains(&value);
    match key.replace('_', "-").as_str() {
        "module" | "wsgi" => facts.take("app_module", value, key),
        "wsgi-file" => facts.take("app_module", &module_of(value), key),
        "http" | "http-socket" => bind(value, key, facts),
        "socket" | "uwsgi-socket" => {
            facts.leave(
                &format!("{key}={value}"),
                "it speaks uwsgi's own protocol; set HOST and PORT or MCP_LAUNCH_UDS, and let the proxy speak HTTP",
            );
        }
        "processes" | "workers" => facts.take("gunicorn_workers", value, key),
        "threads" => facts.take("gunicorn_threads", value, key),
        "chdir" => facts.take("app_root", value, key),
        "home" | "virtualenv" | "venv" | "pyhome" => facts.take("virtual_env", value, key),
        "max-requests" => facts.take("gunicorn_max_requests", value, key),
        "max-worker-lifetime" => facts.take("gunicorn_workers_lifetime", value, key),
        "reload-on-rss" => facts.take("gunicorn_workers_max_rss", value, key),
        "listen" => facts.take("gunicorn_backlog", value, key),
        "harakiri" => facts.take("request_timeout", value, key),
        "worker-reload-mercy" => facts.take("gunicorn_graceful_timeout", value, key),
        "chmod-socket" => facts.take("uds_permissions", value, key),
        "py-autoreload" if is_on => facts.take("gunicorn_dev_mode", "true", key),
        "lazy-apps" => facts.take("gunicorn_preload_app", if is_on { "false" } else { "true" }, key),
        "env" => match value.split_once('=') {
            Some((name, value)) => variable(name, value, facts),
            None => facts.leave(key, "it is no NAME=VALUE"),
        },
        "master" | "vacuum" | "die-on-term" | "enable-threads" | "single-interpreter" | "need-app" => {}
        "pidfile" | "daemonize" => facts.leave(key, "mcp-launch stays in the foreground and needs no file"),
        "uid" | "gid" => facts.leave(key, "mcp-launch stays the user that it is started as; start it as that one"),
        _ => facts.leave(&format!("{key}={value}"), "it is uWSGI's, and Gunicorn has no such setting"),
    }
}

/// `project/wsgi.py` is the module `project.wsgi`.
fn module_of(path: &str) -> String {
    path.trim_end_matches(".py").trim_start_matches("./").replace('/', ".")
}
