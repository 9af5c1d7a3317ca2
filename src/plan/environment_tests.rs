use std::ffi::OsStr;

use crate::host::Environment;
use crate::plan::tests::{installed_host, planned};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    planned(pairs, &installed_host()).env
}

fn get<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    env.get(OsStr::new(name)).map(|value| value.to_str().unwrap())
}

#[test]
fn what_was_resolved_is_put_back_as_others_read_it() {
    let env = environment(&[
        ("HTTP_SERVER", "Granian"),
        ("GRANIAN_WORKERS", "2n+1"),
        ("GUNICORN_WORKERS", "AUTO"),
        ("WEB_CONCURRENCY", "n"),
        ("GRANIAN_HTTP1_BUFFER_SIZE", "512K"),
        ("GUNICORN_WORKERS_MAX_RSS", "1G"),
        ("GUNICORN_WORKERS_LIFETIME", "2h"),
        ("GRANIAN_LOOP", "UVLOOP"),
        ("GRANIAN_RESPAWN_FAILED", "on"),
        ("GUNICORN_TIMEOUT", "10m"),
        ("SSL", "0"),
        ("HOST", "localhost"),
        ("MCP_LAUNCH_STOP_TIMEOUT", "30s"),
    ]);
    for (name, value) in [
        ("HTTP_SERVER", "granian"),
        ("GRANIAN_WORKERS", "5"),
        ("GUNICORN_WORKERS", "2"),
        ("WEB_CONCURRENCY", "5"),
        ("GRANIAN_HTTP1_BUFFER_SIZE", "524288"),
        ("GUNICORN_WORKERS_MAX_RSS", "1024"),
        ("GUNICORN_WORKERS_LIFETIME", "7200"),
        ("GRANIAN_LOOP", "uvloop"),
        ("GRANIAN_RESPAWN_FAILED", "true"),
        ("GUNICORN_TIMEOUT", "600"),
        ("SSL", "false"),
        ("HOST", "127.0.0.1"),
        ("PORT", "4444"),
        ("MCP_LAUNCH_STOP_TIMEOUT", "30s"),
    ] {
        assert_eq!(get(&env, name), Some(value), "{name}");
    }
}

#[test]
fn the_count_is_known_to_the_app_even_if_it_is_computed() {
    assert_eq!(get(&environment(&[]), "GUNICORN_WORKERS"), Some("2"));
    assert_eq!(get(&environment(&[]), "GRANIAN_WORKERS"), None);
    assert_eq!(get(&environment(&[("HTTP_SERVER", "granian")]), "GRANIAN_WORKERS"), Some("2"));
}

#[test]
fn what_gunicorn_crashes_on_does_not_reach_it() {
    for concurrency in ["", "auto"] {
        let env = environment(&[("WEB_CONCURRENCY", concurrency), ("GUNICORN_PID", "1"), ("GUNICORN_FD", "3")]);
        for name in ["WEB_CONCURRENCY", "GUNICORN_PID", "GUNICORN_FD"] {
            assert_eq!(get(&env, name), None, "{name}");
        }
    }
}

#[test]
fn what_a_supervisor_says_to_us_is_not_for_the_server() {
    let names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
    let pairs: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
    // Gunicorn gets its own sockets by these variables.
    let supervised = environment(&[&pairs[..], &[("HTTP_SERVER", "granian")]].concat());
    let exec = environment(&[&pairs[..], &[("MCP_LAUNCH_MODE", "exec")]].concat());
    for name in names {
        assert_eq!(get(&supervised, name), None, "{name}");
        assert_eq!(get(&exec, name), Some("1"), "{name}");
    }
}

#[test]
fn our_secrets_and_service_links_are_taken_out_and_the_apps_secrets_stay() {
    let env = environment(&[
        ("KEY_FILE_PASSWORD", "hunter2"),
        ("CERT_PASSPHRASE", "hunter3"),
        ("GRANIAN_PORT", "tcp://10.0.0.1:80"),
        ("JWT_SECRET_KEY", "the app's"),
    ]);
    for name in ["KEY_FILE_PASSWORD", "CERT_PASSPHRASE", "GRANIAN_PORT"] {
        assert_eq!(get(&env, name), None, "{name}");
    }
    assert_eq!(get(&env, "JWT_SECRET_KEY"), Some("the app's"));
}

#[test]
fn the_virtual_environment_is_active() {
    let env = environment(&[("PATH", "/usr/bin"), ("PYTHONHOME", "/opt")]);
    assert_eq!(get(&env, "VIRTUAL_ENV"), Some("/venv"));
    assert_eq!(get(&env, "PATH"), Some("/venv/bin:/usr/bin"));
    assert_eq!(get(&env, "PYTHONHOME"), None);
    assert_eq!(get(&environment(&[("PATH", "/venv/bin:/bin")]), "PATH"), Some("/venv/bin:/bin"));
    assert_eq!(get(&environment(&[]), "PATH"), Some("/venv/bin"));
}

#[test]
fn on_s390x_protocol_buffers_are_pure_python() {
    let mut host = installed_host();
    host.arch = "s390x";
    assert_eq!(get(&planned(&[], &host).env, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"), Some("python"));
    assert_eq!(get(&environment(&[]), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"), None);
}

#[test]
fn granian_does_not_listen_where_it_was_not_meant_to() {
    let env = environment(&[("HTTP_SERVER", "granian"), ("GRANIAN_UDS", "none")]);
    assert_eq!(get(&env, "GRANIAN_UDS"), None);
    let env = environment(&[("HTTP_SERVER", "granian"), ("GRANIAN_UDS", "/b"), ("MCP_LAUNCH_UDS", "/a")]);
    assert_eq!(get(&env, "GRANIAN_UDS"), Some("/a"));
}
