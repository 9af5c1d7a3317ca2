//! Metrics and health.

use std::net::TcpStream;

use nix::sys::signal::kill;

use super::*;
use crate::harness::free_port;

#[test]
fn metrics_are_served_over_http() {
    let Some(venv) = venv() else { return };
    let port = free_port();
    let launch = Launch::app(&venv, "gunicorn", &[]).env("MCP_LAUNCH_METRICS", format!("127.0.0.1:{port}"));
    let mut running = launch.start();
    running.wait_log(" ready ");
    let answer = get(port, "/metrics").unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let mut samples = 0;
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("mcp_launch_") && value.parse::<f64>().is_ok(), "{line}");
        samples += 1;
    }
    assert!(samples > 10, "{}", answer.body);
    assert_eq!(get(port, "/metrics/").unwrap().status, 404);
    let mut idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    idle[99].write_all(&vec![b'x'; 1 << 20]).ok();
    assert_eq!(get(port, "/metrics").unwrap().status, 200);
    assert_eq!(serving(&running)["id"], 1);
    assert_eq!(running.stop(), 0);
}

#[test]
fn health_distinguishes_ready_and_live() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "granian", &["--workers", "1"]);
    let gate = launch.directory.path().join("gate");
    let mut running = launch.env("IMPORT_GATE", &gate).env("MCP_LAUNCH_STOP_DELAY", "20s").start();
    wait_until("the control socket", || socket(&running).exists());
    let starting = ask(&running, &["health"]);
    assert_eq!((starting.code, &*starting.out), (Some(1), "not ready: starting\n"));
    let live = ask(&running, &["health", "--live"]);
    assert_eq!((live.code, &*live.out), (Some(0), "live: starting\n"), "this is no reason to kill it");
    std::fs::write(&gate, "").unwrap();
    running.wait_log(" ready ");
    let ready = ask(&running, &["health", "--ready"]);
    assert_eq!((ready.code, &*ready.out), (Some(0), "ready: serving\n"));
    let live = ask(&running, &["health", "--live"]);
    assert!(live.code == Some(0) && live.out.contains("a worker's event loop ran "), "{live:?}");
    running.signal(Signal::SIGTERM);
    running.wait_log("stopping after the delay");
    let draining = ask(&running, &["health"]);
    assert_eq!((draining.code, &*draining.out), (Some(1), "not ready: stopping\n"));
    assert_eq!(ask(&running, &["health", "--live"]).code, Some(0), "it still serves");
    assert_eq!(running.stop(), 0);
    let gone = ask(&running, &["health"]);
    assert!(gone.code == Some(3) && gone.out.is_empty() && gone.problem.contains("no launcher"), "{gone:?}");
}

#[test]
fn an_app_with_hung_workers_is_not_live() {
    let Some(running) = start("granian") else { return };
    let workers = harness::children(running.children()[0]);
    kill(workers[0], Signal::SIGSTOP).unwrap();
    let answer = || ask(&running, &["health", "--live", "--timeout", "2s"]);
    assert_eq!(answer().code, Some(0), "one of two answers");
    kill(workers[1], Signal::SIGSTOP).unwrap();
    wait_until("nobody to answer", || answer().code == Some(1));
    assert!(answer().out.contains("no response in time"), "{:?}", answer());
    assert_eq!(ask(&running, &["health"]).code, Some(0), "the launcher itself sees nothing wrong");
}

#[test]
fn health_asks_a_url() {
    let Some(running) = start("gunicorn") else { return };
    let url = |path: &str| format!("http://localhost:{}{path}", running.port);
    assert_eq!(ask(&running, &["health", &url("/health")]).code, Some(0));
    let refused = ask(&running, &["health", &format!("http://127.0.0.1:{}/", free_port())]);
    assert!(refused.code == Some(1) && refused.out.contains("connection refused"), "{refused:?}");
    let other = ask(&running, &["health", "ftp://localhost/"]);
    assert!(other.code == Some(2) && other.problem.contains("ftp is not supported"), "{other:?}");
}
