//! Granian: each worker accepts on its own socket from the launcher, which gets clients or not.

use std::time::Duration;

use super::crowd::{Crowd, refusals_are_quick};
use super::{Spread, a_worker, ask_fresh, four_workers};
use crate::harness::ask::ask;
use crate::harness::http::{Connection, Load};
use crate::harness::{Launch, PROGRAM, is_stopped, take_turn, venv, wait_until};
use crate::tls::certificates::pair;
use nix::sys::signal::{Signal, kill};

/// After this time, a worker whose event loop does not run gets no more clients.
const NOTICED: Duration = Duration::from_millis(1500);
/// Longer than any response takes on a busy machine, and much shorter than a silent worker keeps a client waiting.
const SOON: Duration = Duration::from_secs(3);

/// With every event loop, with TLS and with HTTP/2.
#[test]
fn kept_connections_are_spread_over_all_workers() {
    let _turn = take_turn();
    let tls = ["--ssl", "--cert-file", "server.crt", "--key-file", "server.key"];
    let cases: [(&[&str], &[&str]); 3] =
        [(&[], &["plain"]), (&["--loop", "asyncio"], &["plain"]), (&tls, &["tls", "h2"])];
    for (arguments, kinds) in cases {
        let Some(venv) = venv() else { return };
        let launch = Launch::app(&venv, "granian", &[&["--workers", "4"], arguments].concat());
        pair(launch.directory.path(), "server");
        let mut running = launch.start();
        running.wait_log("ready generation=");
        for kind in kinds {
            let address = format!("127.0.0.1:{}", running.port);
            Spread::measure(&address, kind).assert_even(&format!("{kind} {arguments:?}"));
        }
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn hardly_a_request_is_refused_before_all_workers_together_have_as_many_as_they_may() {
    let Some(venv) = venv() else { return };
    let mut crowd = Crowd::new(Launch::app(&venv, "granian", &["--workers", "4"]).in_turn());
    let capacity = Crowd::LIMIT * 4;
    crowd.come(capacity, Duration::from_millis(4));
    let all = |crowd: &Crowd| crowd.in_flight() + crowd.rejected() >= capacity as u64;
    wait_until("everybody to be inside or refused", || all(&crowd));
    assert!(crowd.rejected() <= 1, "{} refused", crowd.rejected());
    // One slot may be left.
    crowd.come(1, Duration::ZERO);
    wait_until("it to be full", || crowd.in_flight() == capacity as u64);
    refusals_are_quick(&crowd, "granian");
    assert!(crowd.leave() >= capacity - 1);
    assert_eq!(crowd.running.stop(), 0);
}

#[test]
fn a_stopped_worker_gets_no_new_clients_until_it_continues() {
    let Some(mut running) = four_workers("granian", &[]) else { return };
    let worker = a_worker(running.port);
    kill(worker, Signal::SIGSTOP).unwrap();
    std::thread::sleep(NOTICED);
    let (counts, slowest) = ask_fresh(running.port, 200);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(slowest < SOON, "{slowest:?}");
    kill(worker, Signal::SIGCONT).unwrap();
    wait_until("the worker to get clients again", || ask_fresh(running.port, 20).0.len() == 4);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_worker_whose_event_loop_is_blocked_gets_no_new_clients() {
    let Some(mut running) = four_workers("granian", &["--stop-timeout", "4s"]) else { return };
    let mut blocked = Connection::open(running.port).unwrap();
    blocked.send("/block?s=20").unwrap();
    std::thread::sleep(NOTICED);
    let (counts, slowest) = ask_fresh(running.port, 200);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(slowest < SOON, "{slowest:?}");
    let status = ask(&running, &["status", "--json"]).json();
    let workers = status["generations"][0]["workers"].as_array().unwrap();
    let mut clients: Vec<&str> = workers.iter().filter_map(|worker| worker["load"]["clients"].as_str()).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["dealt", "dealt", "dealt", "silent"]);
    running.stop();
}

#[test]
fn clients_that_wait_at_a_worker_that_dies_are_served_by_its_successor() {
    let Some(mut running) = four_workers("granian", &[]) else { return };
    // Granian gives up when one worker slot fails twice within 5.5 s of a start.
    std::thread::sleep(Duration::from_secs(6));
    let worker = a_worker(running.port);
    kill(worker, Signal::SIGSTOP).unwrap();
    wait_until("the worker to be stopped", || is_stopped(worker));
    let mut waiting: Vec<Connection> = (0..40).map(|_| Connection::open(running.port).unwrap()).collect();
    for connection in &mut waiting {
        connection.send("/pid").unwrap();
    }
    kill(worker, Signal::SIGKILL).unwrap();
    for connection in &mut waiting {
        let answer = connection.receive().unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains(&worker.to_string()), "{}", answer.body);
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_reload_to_fewer_workers_or_to_more_loses_no_request() {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, "granian", &[]).in_turn();
    let file = launch.directory.path().join("mcp-launch.toml");
    let workers = |count: u32| std::fs::write(&file, format!("[granian]\nworkers = {count}\n")).unwrap();
    workers(3);
    launch.command.arg("--config").arg(&file);
    let mut running = launch.start();
    running.wait_log("ready generation=1");
    let load = Load::start(running.port, "/", 8);
    for (generation, count) in (2..).zip([1, 4, 2, 1, 3]) {
        workers(count);
        running.signal(Signal::SIGHUP);
        running.wait_log(&format!("gone generation={}", generation - 1));
    }
    let answered = load.answered();
    let failures = load.finish();
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}\n{}", failures.len(), running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn dealing_can_be_switched_off() {
    let Some(venv) = venv() else { return };
    let explain = |balance: &str| {
        let mut launch = Launch::app(&venv, "granian", &[]);
        launch.command = std::process::Command::new(PROGRAM);
        let output = launch
            .command
            .args(["explain", "--json", "--server", "granian", "hello:app"])
            .env("VIRTUAL_ENV", &venv)
            .env("PYTHONPATH", crate::harness::tests_directory("apps"))
            .env("MCP_LAUNCH_BALANCE", balance)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(explain("on").contains("worker-listener"));
    assert!(!explain("off").contains("worker-listener"));
}
