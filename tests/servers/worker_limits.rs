//! Workers that have become too large or too old are replaced one at a time, on both servers, without an effect on
//! clients.

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Connection, Load, get, open_stream, request};
use crate::harness::{Launch, Running, children, is_alive, unread, venv, wait_for, wait_until};
use crate::overload::board;
use nix::unistd::Pid;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Workers are checked four times in this time.
const TIMEOUT: &str = "4s";

fn start(server: &str, arguments: &[&str], env: &[(&str, &str)]) -> Option<Running> {
    let arguments = [&["--worker-timeout", TIMEOUT], arguments].concat();
    let mut launch = Launch::app(&venv()?, server, &arguments);
    launch.command.envs(env.iter().copied());
    let mut running = launch.start();
    running.wait_log("ready generation=");
    Some(running)
}

fn status(running: &Running) -> String {
    ask(running, &["status"]).out
}

fn grow(running: &Running, mebibytes: u32) -> Pid {
    let body = get(running.port, &format!("/grow?mib={mebibytes}")).unwrap().body;
    Pid::from_raw(body.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

/// A request whose response is not awaited.
fn begin(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    request(&mut stream, path);
    stream
}

/// It closes its streams before it leaves.
fn a_worker_with_streams_is_replaced_in_time(server: &str) {
    let Some(mut running) = start(server, &["--workers", "2", "--workers-max-rss", "300M"], &[]) else { return };
    let streams: Vec<_> = (0..16).map(|_| open_stream(running.port, "/sse", "")).collect();
    let big = grow(&running, 400);
    running.wait_log("replacing a worker");
    let begun = Instant::now();
    wait_until("it to be gone", || !is_alive(big));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}: {}", begun.elapsed(), running.log());
    drop(streams);
    wait_until("the successor", || all_are_ready(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Makes the worker grow that was started last.
fn grow_the_newest(running: &Running, mebibytes: u32) -> Pid {
    let newest = *children(running.children()[0]).iter().max().unwrap();
    wait_for("the newest worker", || {
        let mut connection = Connection::open(running.port).unwrap();
        let answer = connection.get("/pid", "").unwrap().body;
        answer.contains(&format!(" {newest}}}")).then(|| {
            connection.get(&format!("/grow?mib={mebibytes}"), "").unwrap();
            newest
        })
    })
}

fn a_worker_that_grows_too_big_is_replaced_and_only_it(server: &str) {
    let Some(mut running) = start(server, &["--workers", "2", "--workers-max-rss", "300M"], &[]) else { return };
    let first = running.descendants();
    let load = Load::start(running.port, "/", 4);
    let big = grow_the_newest(&running, 400);
    if server == "gunicorn" {
        // Its main process can be told which worker has a successor.
        wait_until("its successor to be ready", || ready_workers(&running) == 3 && is_alive(big));
    }
    running.wait_log("worker exit generation=1");
    running.wait_log("cause=rss");
    assert!(running.log().contains(&format!("replacing a worker generation=1 pid={big} cause=rss limit=\"300M\"")));
    wait_until("the successor", || all_are_ready(&running));
    assert!(!is_alive(big));
    load.assert_nothing_lost();
    assert!(status(&running).contains("too large, replaced"), "{}", status(&running));
    assert_eq!(running.log().matches("worker exit").count(), 1, "{}", running.log());
    assert_eq!(first.iter().filter(|pid| is_alive(**pid)).count(), first.len() - 1, "{}", running.log());
    assert_eq!(ready_workers(&running), 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn ready_workers(running: &Running) -> usize {
    let status = ask(running, &["status", "--json"]).json();
    let workers = status["generations"][0]["workers"].as_array().unwrap();
    workers.iter().filter(|worker| worker["load"]["state"] == "ready").count()
}

fn workers_that_are_too_old_are_replaced_one_after_the_other(server: &str) {
    // Only age matters here.
    let env = [("GUNICORN_MAX_REQUESTS", "0")];
    let Some(mut running) = start(server, &["--workers", "2", "--workers-lifetime", "10"], &env) else { return };
    let first = running.descendants();
    let load = Load::start(running.port, "/", 4);
    running.wait_log_count("cause=age", 4);
    load.assert_nothing_lost();
    let log = running.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("cause=age")).take(4).collect();
    let order: Vec<bool> = lines.iter().map(|line| line.contains("worker exit")).collect();
    assert_eq!(order, [false, true, false, true], "the second leaves when the first has ended: {lines:#?}");
    assert_eq!(first.iter().filter(|pid| is_alive(**pid)).count(), 1, "the main process stays: {log}");
    assert_eq!(log.matches("ready generation=").count(), 1, "{log}");
    wait_until("the successor", || all_are_ready(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_worker_that_has_had_its_requests_is_replaced_and_no_request_is_lost(server: &str) {
    let env = [("GUNICORN_MAX_REQUESTS", "2000"), ("GRANIAN_MAX_REQUESTS", "2000")];
    let jitter = [("GUNICORN_MAX_REQUESTS_JITTER", "1000"), ("GRANIAN_MAX_REQUESTS_JITTER", "1000")];
    let env = [env, jitter].concat();
    let Some(mut running) = start(server, &["--workers", "3", "--worker-timeout", "20s"], &env) else { return };
    let load = Load::start(running.port, "/", 4);
    running.wait_log_count("cause=requests", 6);
    load.assert_nothing_lost();
    let log = running.log();
    let lines: Vec<bool> =
        log.lines().filter(|line| line.contains("cause=requests")).map(|line| line.contains("worker exit")).collect();
    assert_eq!(lines[..6], [false, true, false, true, false, true], "one at a time: {log}");
    assert!(!log.contains("SIGKILL"), "{log}");
    let done = |log: &str| log.matches("replacing a worker").count() == log.matches("cause=requests age=").count();
    wait_until("the last of them", || done(&running.log()) && all_are_ready(&running));
    if server == "gunicorn" {
        let log = running.log();
        let (started, replaced) = (log.matches("Booting worker").count(), log.matches("replacing a worker").count());
        assert_eq!(started, 3 + replaced, "one for each that was replaced, and no other: {log}");
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Its boot takes longer than Granian itself would wait.
fn the_only_worker_is_replaced_by_one_that_serves_before_it_leaves(server: &str) {
    let env = [("IMPORT_SLEEP", "5"), ("GUNICORN_PRELOAD_APP", "false")];
    let Some(mut running) = start(server, &["--workers", "1", "--workers-max-rss", "300M"], &env) else { return };
    wait_until("Granian to be past its crash loop", || get(running.port, "/").is_ok());
    let load = Load::start(running.port, "/", 4);
    grow(&running, 400);
    running.wait_log("replacing the single worker");
    running.wait_log("gone generation=1");
    load.assert_nothing_lost();
    assert!(status(&running).contains("generation 2"), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// A request that takes too long would delay either server.
fn a_worker_that_does_not_finish_in_time_is_killed(server: &str) {
    let arguments = ["--workers", "2", "--workers-max-rss", "300M", "--stop-timeout", "5s"];
    let Some(mut running) = start(server, &arguments, &[]) else { return };
    let mut requests = Vec::new();
    wait_until("both workers to have requests", || {
        requests.push(begin(running.port, "/slow?s=60"));
        unread(running.port) == 0 && board(&running).iter().filter(|slot| slot.in_flight > 0).count() == 2
    });
    let big = grow(&running, 400);
    running.wait_log("has not finished in time: SIGKILL");
    wait_until("it to be gone", || !is_alive(big));
    drop(requests);
    wait_until("the successor", || all_are_ready(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_both_servers!(
    a_worker_that_grows_too_big_is_replaced_and_only_it,
    workers_that_are_too_old_are_replaced_one_after_the_other,
    a_worker_that_has_had_its_requests_is_replaced_and_no_request_is_lost,
    the_only_worker_is_replaced_by_one_that_serves_before_it_leaves,
    a_worker_with_streams_is_replaced_in_time,
    a_worker_that_does_not_finish_in_time_is_killed,
);

/// The limits work without the guard, and with an app that the guard cannot wrap.
#[test]
fn without_the_guard_as_well() {
    for server in ["gunicorn", "granian"] {
        let arguments = ["--workers", "2", "--guard=off", "--workers-max-rss", "300M"];
        let Some(mut running) = start(server, &arguments, &[]) else { return };
        let big = grow(&running, 400);
        running.wait_log("cause=rss");
        wait_until("the successor", || !is_alive(big) && all_are_ready(&running));
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}
