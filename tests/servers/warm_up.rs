//! `MCP_LAUNCH_WARM_UP`: no worker takes clients before its app has answered these paths.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Answer, Connection, get};
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, take_turn, tests_directory, venv, wait_until};

crate::for_every_kind!(
    no_worker_takes_a_client_before_a_dependency_is_there,
    neither_does_a_respawned_worker,
    an_app_without_lifespan_is_warmed_up_too,
    a_worker_that_is_told_to_stop_meanwhile_stops_at_once,
);

const WORKERS: usize = 2;

/// A launch of `tests/apps/warm_up.py`, and the file that its requests depend on.
fn launch(kind: &str, paths: &str) -> Option<(Launch, PathBuf)> {
    let venv = venv()?;
    let (server, class) = server_and_class(kind);
    let workers = WORKERS.to_string();
    let arguments = ["--server", server, "--workers", &workers, "--worker-class", class, "--warm-up", paths];
    let mut launch = Launch::new(&arguments);
    let dependency = launch.directory.path().join("dependency");
    launch.command.arg("warm_up:app").env("VIRTUAL_ENV", venv).env("PYTHONPATH", tests_directory("apps"));
    Some((launch.env("DEPENDENCY", &dependency).env("MCP_LAUNCH_CPUS", "2"), dependency))
}

fn workers(running: &Running) -> Vec<Value> {
    ask(running, &["status", "--json"]).json()["generations"][0]["workers"].as_array().unwrap().clone()
}

fn states(running: &Running) -> Vec<String> {
    workers(running).iter().map(|worker| worker["load"]["state"].as_str().unwrap_or("none").to_owned()).collect()
}

/// What a worker reports about itself, in the response to any path.
fn pid_and_seen(answer: &Answer) -> (i64, Vec<Value>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    (body["pid"].as_i64().unwrap(), body["seen"].as_array().unwrap().clone())
}

fn paths(seen: &[Value]) -> Vec<&str> {
    seen.iter().map(|request| request["path"].as_str().unwrap()).collect()
}

/// The answer of each worker.
fn all_workers(running: &Running) -> Vec<(i64, Vec<Value>)> {
    let mut found: Vec<(i64, Vec<Value>)> = Vec::new();
    wait_until("an answer of each worker", || {
        let answer = pid_and_seen(&get(running.port, "/seen").unwrap());
        if found.iter().all(|(pid, _)| *pid != answer.0) {
            found.push(answer);
        }
        found.len() == WORKERS
    });
    found
}

fn stop(mut running: Running) {
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn no_worker_takes_a_client_before_a_dependency_is_there(kind: &str) {
    let _turn = take_turn();
    let Some((launch, dependency)) = launch(kind, "/ready,/with%20space?x=1,/raise,/stream") else { return };
    let mut running = launch.start();
    running.wait_log_count("not ready: warm-up: GET /ready answered 503", WORKERS);
    wait_until("the status to say so", || states(&running) == ["warming-up"; WORKERS]);
    assert!(workers(&running).iter().all(|worker| worker["load"]["clients"] == "starting"));
    assert!(ask(&running, &["status"]).out.contains("warming-up"));
    assert_eq!(ask(&running, &["health", "--ready"]).code, Some(1));
    let mut early = Connection::open(running.port).unwrap();
    early.send("/seen").unwrap();
    std::fs::write(&dependency, "").unwrap();
    running.wait_log(" ready generation=");
    wait_until("both workers", || all_are_ready(&running));
    let (_, seen) = pid_and_seen(&early.receive().unwrap());
    assert!(paths(&seen).ends_with(&["/ready", "/with space", "/raise", "/stream"]), "{seen:?}");
    for (_, seen) in all_workers(&running) {
        let attempts = paths(&seen).iter().filter(|path| **path == "/ready").count();
        assert!(attempts > 1, "{seen:?}");
        let request = seen.iter().find(|request| request["path"] == "/with space").unwrap();
        let host = format!("127.0.0.1:{}", running.port);
        let expected = json!({
            "path": "/with space",
            "raw_path": "/with%20space",
            "query_string": "x=1",
            "scheme": "http",
            "client": null,
            "http_version": "1.1",
            "state": {"made": "at startup"},
            "headers": [["host", host], ["user-agent", "mcp-launch"], ["accept", "*/*"]],
        });
        assert_eq!(*request, expected);
    }
    assert_eq!(running.log().matches("GET /ready answered 503").count(), WORKERS, "said once: {}", running.log());
    let explained = ask(&running, &["explain", "--running"]).out;
    assert!(explained.contains("warm-up"), "{explained}");
    stop(running);
}

fn neither_does_a_respawned_worker(kind: &str) {
    let _turn = take_turn();
    let Some((launch, dependency)) = launch(kind, "/ready") else { return };
    std::fs::write(&dependency, "").unwrap();
    let mut running = launch.start();
    running.wait_log(" ready generation=");
    wait_until("both workers", || all_are_ready(&running));
    let before: BTreeSet<i64> = all_workers(&running).into_iter().map(|(pid, _)| pid).collect();
    std::fs::remove_file(&dependency).unwrap();
    let victim = *before.first().unwrap();
    kill(Pid::from_raw(victim.try_into().unwrap()), Signal::SIGKILL).unwrap();
    running.wait_log("not ready: warm-up: GET /ready answered 503");
    for _ in 0..40 {
        let (pid, _) = pid_and_seen(&get(running.port, "/seen").unwrap());
        assert_eq!(pid, *before.last().unwrap());
    }
    assert_eq!(ask(&running, &["health", "--ready"]).code, Some(0), "the other worker serves");
    std::fs::write(&dependency, "").unwrap();
    wait_until("the new worker", || all_are_ready(&running));
    let after: BTreeSet<i64> = all_workers(&running).into_iter().map(|(pid, _)| pid).collect();
    assert!(after.contains(before.last().unwrap()) && !after.contains(&victim), "{before:?} {after:?}");
    stop(running);
}

fn an_app_without_lifespan_is_warmed_up_too(kind: &str) {
    let _turn = take_turn();
    let Some((launch, dependency)) = launch(kind, "/ready") else { return };
    let mut running = launch.env("NO_LIFESPAN", "1").start();
    running.wait_log_count("not ready: warm-up: GET /ready answered 503", WORKERS);
    std::fs::write(&dependency, "").unwrap();
    running.wait_log(" ready generation=");
    for (_, seen) in all_workers(&running) {
        assert!(paths(&seen).starts_with(&["/ready", "/ready"]), "{seen:?}");
    }
    stop(running);
}

fn a_worker_that_is_told_to_stop_meanwhile_stops_at_once(kind: &str) {
    let _turn = take_turn();
    let Some((launch, _)) = launch(kind, "/ready") else { return };
    let mut running = launch.env("MCP_LAUNCH_STOP_TIMEOUT", "300s").start();
    running.wait_log_count("not ready: warm-up: GET /ready answered 503", WORKERS);
    stop(running);
}

#[test]
fn requests_that_do_not_count_are_no_clients() {
    let _turn = take_turn();
    for kind in ["gunicorn", "granian"] {
        let Some((launch, dependency)) = launch(kind, "/ready,/other") else { return };
        std::fs::write(&dependency, "").unwrap();
        // One request at a time, and one at most altogether.
        let limit = if kind == "granian" { "GRANIAN_BACKPRESSURE" } else { "GUNICORN_BACKPRESSURE" };
        let mut running = launch.env(limit, "1").start();
        running.wait_log(" ready generation=");
        wait_until("both workers", || all_are_ready(&running));
        for worker in workers(&running) {
            for number in ["served", "rejected", "high_water"] {
                assert_eq!(worker["load"][number], 0, "{kind} {number}");
            }
        }
        stop(running);
    }
}

#[test]
fn a_dependency_that_never_comes_is_a_failed_start_with_a_reason() {
    let _turn = take_turn();
    for kind in ["gunicorn", "granian"] {
        let Some((launch, _)) = launch(kind, "/raise") else { return };
        let launch = launch.env("MCP_LAUNCH_STARTUP_TIMEOUT", "4s");
        let port = launch.port;
        let finished = launch.finish();
        assert_eq!(finished.code, 69, "{}", finished.log);
        let why = "warm-up: GET /raise raised RuntimeError: no dependency";
        assert!(finished.log.contains(why), "{}", finished.log);
        let refused = Connection::open(port).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
