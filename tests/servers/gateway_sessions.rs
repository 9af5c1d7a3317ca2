//! Sessions of the real MCP client with the real gateway, with the gateway's own defaults: every request is answered,
//! whichever worker it reaches, before and after a reload.

use std::process::Command;

use super::gateway;
use crate::harness::ask::ask;
use crate::harness::{Running, tests_directory, venv};

/// One session; the client has its own time limits.
#[track_caller]
fn assert_answered(running: &Running, transport: &str, path: &str, token: &str, requests: usize) {
    let url = format!("http://127.0.0.1:{}{path}", running.port);
    let output = Command::new(venv().unwrap().join("bin/python"))
        .arg(tests_directory("apps").join("mcp_session.py"))
        .args([transport, &url, token, &requests.to_string()])
        .output()
        .unwrap();
    let (answers, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(answers.trim(), (2 * requests).to_string(), "{transport}: {said}\n{}", running.log());
}

fn sessions_are_answered(server: &str, workers: &str) {
    let Some(mut running) = gateway::start(server, workers) else { return };
    let token = gateway::token();
    let both = |running: &Running, requests| {
        assert_answered(running, "sse", "/sse", &token, requests);
        assert_answered(running, "http", "/mcp/", &token, requests);
    };
    both(&running, 3);
    let reloaded = ask(&running, &["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}\n{}", running.log());
    both(&running, 1);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn sessions_with_one_worker_of_gunicorn_are_answered() {
    sessions_are_answered("gunicorn", "1");
}

#[test]
fn sessions_with_two_workers_of_gunicorn_are_answered() {
    sessions_are_answered("gunicorn", "2");
}

#[test]
fn sessions_with_one_worker_of_granian_are_answered() {
    sessions_are_answered("granian", "1");
}

#[test]
fn sessions_with_two_workers_of_granian_are_answered() {
    sessions_are_answered("granian", "2");
}
