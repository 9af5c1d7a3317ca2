//! `MCP_LAUNCH_WARM_UP` for WSGI apps.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::{launch, pid_in, workers};
use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Connection, get};
use crate::harness::{Launch, Running, wait_until};

crate::for_each_wsgi_kind!(
    no_worker_takes_a_client_before_a_dependency_is_there,
    a_worker_that_is_told_to_stop_while_the_app_does_not_answer_stops_at_once,
);

fn start(server: &str, paths: &str) -> Option<(Running, PathBuf)> {
    let launch = launch(server, "wsgi_warm_up:app", &["--workers", "2", "--warm-up", paths])?;
    let dependency = launch.directory.path().join("dependency");
    let launch = Launch::env(launch, "DEPENDENCY", &dependency).env("MCP_LAUNCH_STOP_TIMEOUT", "60s");
    Some((launch.start(), dependency))
}

fn state_of_each(running: &Running) -> Vec<Value> {
    workers(running).into_iter().map(|worker| worker["load"]["state"].clone()).collect()
}

fn no_worker_takes_a_client_before_a_dependency_is_there(server: &str) {
    let Some((mut running, dependency)) = start(server, "/ready,/with%20space?x=1,/stream") else { return };
    running.wait_log_count("not ready: warm-up: GET /ready answered 503", 2);
    wait_until("the status to say so", || state_of_each(&running) == ["warming-up"; 2]);
    assert_eq!(ask(&running, &["health", "--ready"]).code, Some(1));
    let mut early = Connection::open(running.port).unwrap();
    early.send("/seen").unwrap();
    std::fs::write(&dependency, "").unwrap();
    running.wait_log(" ready generation=");
    let answer: Value = serde_json::from_str(&early.receive().unwrap().body).unwrap();
    let (first, last) = (&answer["seen"][0], answer["seen"].as_array().unwrap().last().unwrap());
    let expected = json!({
        "PATH_INFO": "/ready", "QUERY_STRING": "", "HTTP_HOST": format!("127.0.0.1:{}", running.port),
        "HTTP_USER_AGENT": "mcp-launch", "SERVER_PORT": running.port.to_string(), "wsgi.url_scheme": "http",
    });
    assert_eq!((first, &last["PATH_INFO"]), (&expected, &"/stream".into()));
    let paths: Vec<_> =
        answer["seen"].as_array().unwrap().iter().map(|it| it["PATH_INFO"].as_str().unwrap()).collect();
    assert!(paths.ends_with(&["/ready", "/with space", "/stream"]) && paths.len() > 3, "{paths:?}");
    for worker in workers(&running) {
        assert_eq!((&worker["load"]["rejected"], &worker["load"]["streams"]), (&0.into(), &0.into()), "{worker}");
    }

    // A worker that is respawned is warmed up, too.
    std::fs::remove_file(&dependency).unwrap();
    wait_until("both workers", || all_are_ready(&running));
    let victim = workers(&running)[0]["pid"].to_string();
    kill(pid_in(&victim), Signal::SIGKILL).unwrap();
    running.wait_log_count("not ready: warm-up: GET /ready answered 503", 3);
    for _ in 0..10 {
        assert_eq!(get(running.port, "/seen").unwrap().status, 200);
    }
    std::fs::write(&dependency, "").unwrap();
    wait_until("the new worker", || all_are_ready(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn a_worker_that_is_told_to_stop_while_the_app_does_not_answer_stops_at_once(server: &str) {
    let Some((mut running, _)) = start(server, "/hang") else { return };
    wait_until("the launcher", || ask(&running, &["status"]).code == Some(0));
    wait_until("the status to say so", || state_of_each(&running) == ["warming-up"; 2]);
    let begun = std::time::Instant::now();
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(begun.elapsed().as_secs() < 10, "{:?}: {}", begun.elapsed(), running.log());
}
