//! Environments that worked with the old scripts, or with the server alone, work here.

use crate::harness::http::get;
use crate::harness::{Launch, venv};

/// The variables of upstream's compose file that its entrypoint prepared.
const COMPOSE: &[(&str, &str)] = &[
    ("RUST_MCP_MODE", "off"),
    ("RUST_MCP_LOG", "warn"),
    ("RUST_MCP_SESSION_AUTH_REUSE", ""),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_MANAGED", ""),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_URL", ""),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_UDS", ""),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_TIMEOUT_SECONDS", "30"),
    ("EXPERIMENTAL_RUST_MCP_SESSION_CORE_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_EVENT_STORE_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_RESUME_CORE_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_LIVE_STREAM_CORE_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_AFFINITY_CORE_ENABLED", ""),
    ("EXPERIMENTAL_RUST_MCP_SESSION_AUTH_REUSE_ENABLED", ""),
    ("MCP_RUST_LISTEN_HTTP", ""),
    ("MCP_RUST_LOG", ""),
    ("GUNICORN_TIMEOUT", "120"),
    ("GUNICORN_GRACEFUL_TIMEOUT", "60"),
    ("GUNICORN_KEEP_ALIVE", "30"),
    ("GUNICORN_MAX_REQUESTS", "1000000"),
    ("GUNICORN_MAX_REQUESTS_JITTER", "100000"),
    ("GUNICORN_BACKLOG", "4096"),
    ("GRANIAN_BACKLOG", "4096"),
    ("GRANIAN_BACKPRESSURE", "128"),
    ("GRANIAN_HTTP1_BUFFER_SIZE", "524288"),
    ("GRANIAN_RESPAWN_FAILED", "true"),
    ("GRANIAN_TASK_IMPL", "auto"),
    ("PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS", "abc"),
    ("WEB_CONCURRENCY", "auto"),
    ("SSL", "false"),
    ("TRANSPORT_TYPE", "streamablehttp"),
];

fn the_environment_of_upstreams_compose_file_starts_the_gateway(server: &str) {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::new(&["--server", server, "--workers", "1"]);
    let directory = launch.directory.path().to_owned();
    launch.command.envs(COMPOSE.iter().copied());
    launch
        .command
        .env("VIRTUAL_ENV", venv)
        .env("DATABASE_URL", format!("sqlite:///{}/mcp.db", directory.display()))
        .env("TMPDIR", &directory)
        .env("JWT_SECRET_KEY", "p8Zk3vQ0xW-7yTn5bR2mJc9sLhF4uGdE")
        .env("AUTH_ENCRYPTION_SECRET", "p8Zk3vQ0xW-7yTn5bR2mJc9sLhF4uGdE");
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert_eq!(get(running.port, "/health").unwrap().status, 200);
    let log = running.log();
    if server == "gunicorn" {
        assert!(log.contains("graceful_timeout = 60s exceeds the available 23s"), "{log}");
    } else {
        assert!(log.contains("task_impl = auto"), "{log}");
    }
    assert!(
        log.contains("is not valid (from environment PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS); 2s is used"),
        "{log}"
    );
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn service_links_of_kubernetes_and_a_concurrency_of_auto_do_not_reach_the_server(server: &str) {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, server, &["--workers", "1"]);
    for name in ["GRANIAN", "GUNICORN", "MCP_LAUNCH"] {
        launch
            .command
            .env(format!("{name}_PORT"), "tcp://10.0.0.1:80")
            .env(format!("{name}_PORT_80_TCP"), "tcp://10.0.0.1:80")
            .env(format!("{name}_SERVICE_HOST"), "10.0.0.1")
            .env(format!("{name}_SERVICE_PORT"), "80");
    }
    let mut running = launch.env("WEB_CONCURRENCY", "Auto").start();
    running.wait_log(" ready ");
    for name in ["GRANIAN_PORT", "GUNICORN_SERVICE_HOST", "MCP_LAUNCH_PORT_80_TCP", "WEB_CONCURRENCY"] {
        let answer = get(running.port, &format!("/env?name={name}")).unwrap();
        assert!(!answer.body.contains("10.0.0.1") && !answer.body.to_lowercase().contains("auto"), "{}", answer.body);
    }
    assert!(!running.log().contains("nothing reads it"), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_pid_file_for_granian_does_not_keep_it_from_reloading() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "granian", &["--workers", "1"]);
    let path = launch.directory.path().join("granian.pid");
    let mut running = launch.env("GRANIAN_PID_FILE", &path).start();
    running.wait_log("ready generation=1");
    assert!(running.log().contains("GRANIAN_PID_FILE is ignored"), "{}", running.log());
    running.signal(nix::sys::signal::Signal::SIGHUP);
    running.wait_log("ready generation=2");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn every_log_level_of_granians_is_taken() {
    let Some(venv) = venv() else { return };
    for level in ["critical", "notset"] {
        let mut running = Launch::app(&venv, "granian", &["--workers", "1"]).env("GRANIAN_LOG_LEVEL", level).start();
        running.wait_log(" ready ");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

crate::for_both_servers!(
    the_environment_of_upstreams_compose_file_starts_the_gateway,
    service_links_of_kubernetes_and_a_concurrency_of_auto_do_not_reach_the_server,
);
