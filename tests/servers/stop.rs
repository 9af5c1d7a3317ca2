//! The end: what was requested is done, within the budget, with the right status, and nothing is left.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::http::{UPGRADE, get, open_stream};
use crate::harness::{self, Launch, Running, is_alive, venv, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How much a stop may exceed its budget before a test fails: processes that are killed have to be reaped.
const SLACK: Duration = Duration::from_secs(1);

/// A real server that is ready, with this stop budget. One worker: another one that is still booting could miss a TERM,
/// and Gunicorn would wait for it.
fn real(server: &str, budget: &str) -> Option<Running> {
    let launch = Launch::app(&venv()?, server, &["--workers", "1"]).env("MCP_LAUNCH_STOP_TIMEOUT", budget);
    let mut running = launch.start();
    running.wait_log("ready generation=");
    running.descendants();
    Some(running)
}

/// The fake server, ready.
fn fake(server: &str, fates: &str, budget: &str) -> Running {
    let mut running = Launch::fake(server, fates, &["--stop-timeout", budget]).start();
    running.wait_log("ready generation=");
    running.descendants();
    running
}

/// Sends TERM; returns how long it took to end, and the status.
#[track_caller]
fn timed_stop(running: &mut Running) -> (Duration, i32) {
    let start = Instant::now();
    let status = running.stop();
    (start.elapsed(), status)
}

/// A worker of a server: a child of its main process that answers requests.
fn worker(running: &Running) -> Pid {
    let answer = get(running.port, "/pid").unwrap().body;
    Pid::from_raw(answer.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

/// Stops a process and waits until it is stopped.
fn freeze(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("the process to be stopped", || harness::is_stopped(pid));
}

fn term_int_and_quit_end_it_with_0_and_nothing_is_left(server: &str) {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let Some(mut running) = real(server, "10s") else { return };
        running.signal(signal);
        assert_eq!(running.wait(), 0, "{signal}: {}", running.log());
        running.assert_nothing_left();
    }
}

fn an_open_event_stream_does_not_hold_it(server: &str) {
    let Some(mut running) = real(server, "10s") else { return };
    let _stream = open_stream(running.port, "/sse", "");
    let (took, status) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}: {}", running.log());
    assert_eq!(status, 0, "{}", running.log());
    running.assert_nothing_left();
}

fn an_open_websocket_does_not_hold_it(server: &str) {
    let Some(mut running) = real(server, "10s") else { return };
    let _stream = open_stream(running.port, "/ws", UPGRADE);
    let (took, status) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}: {}", running.log());
    assert_eq!(status, 0, "{}", running.log());
    running.assert_nothing_left();
}

/// Without the guard, nothing else ends it.
fn without_the_guard_a_stream_does_not_hold_it_beyond_the_budget(server: &str) {
    let Some(venv) = venv() else { return };
    let arguments = ["--workers", "1", "--guard=off", "--stop-timeout", "3s"];
    let mut running = Launch::app(&venv, server, &arguments).start();
    running.wait_log("ready generation=");
    let _stream = open_stream(running.port, "/sse", "");
    let (took, status) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}: {}", running.log());
    assert!([0, 143].contains(&status), "{status}: {}", running.log());
    running.assert_nothing_left();
}

fn a_request_in_flight_is_answered(server: &str) {
    let Some(mut running) = real(server, "10s") else { return };
    let client = begin_request(running.port, "/slow?s=1");
    assert_eq!(running.stop(), 0);
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer:?}");
}

fn new_clients_are_refused_while_the_last_request_is_answered(server: &str) {
    let Some((launch, gate)) = crate::overload::launch(server, "overload:app", &["--workers", "1"]) else { return };
    let mut running = launch.start();
    running.wait_log("ready generation=");
    let client = begin_request(running.port, "/wait");
    running.signal(Signal::SIGTERM);
    wait_until("new clients to be refused", || TcpStream::connect(("127.0.0.1", running.port)).is_err());
    std::fs::write(&gate, "").unwrap();
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer:?}");
    assert_eq!(running.wait(), 0);
}

fn a_stopped_worker_does_not_hold_it_beyond_the_budget(server: &str) {
    let Some(mut running) = real(server, "4s") else { return };
    freeze(worker(&running));
    let (took, _) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(4) + SLACK, "{took:?}: {}", running.log());
    running.assert_nothing_left();
}

fn a_stopped_main_process_does_not_hold_it_beyond_the_budget(server: &str) {
    let Some(mut running) = real(server, "4s") else { return };
    freeze(running.children()[0]);
    let (took, _) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(4) + SLACK, "{took:?}: {}", running.log());
    running.assert_nothing_left();
}

fn a_blocked_event_loop_is_killed_within_the_budget(server: &str) {
    let Some(mut running) = real(server, "2s") else { return };
    let _blocked = begin_request(running.port, "/block?s=60");
    let (took, _) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(2) + SLACK, "{took:?}: {}", running.log());
    running.assert_nothing_left();
}

/// Sends a request and waits until a worker has read it, not until it is answered.
fn begin_request(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    wait_until("the request to be read", || harness::unread(port) == 0);
    stream
}

fn a_second_signal_skips_the_waiting(server: &str) {
    let Some(mut running) = real(server, "30s") else { return };
    let _stream = open_stream(running.port, "/sse", "");
    running.signal(Signal::SIGTERM);
    running.wait_log("stopping");
    let start = Instant::now();
    // Two of the same within a tenth of a second are one request, sent twice.
    while !running.log().contains("second stop signal") {
        assert!(start.elapsed() < harness::LONG, "{}", running.log());
        running.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(20), "{}", running.log());
    running.assert_nothing_left();
}

fn a_stop_while_the_app_is_imported_is_granted_at_once(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1"]).env("IMPORT_SLEEP", "60");
    let mut running = launch.env("MCP_LAUNCH_STOP_TIMEOUT", "4s").start();
    wait_until("the server to boot", || !running.children().is_empty());
    let (took, status) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(4) + SLACK, "{took:?}: {}", running.log());
    assert!([0, 143].contains(&status), "{status}: {}", running.log());
    running.assert_nothing_left();
}

/// An open stream does not hold it: another launcher needs the port.
fn when_the_launcher_is_killed_the_server_ends(server: &str) {
    let Some(mut running) = real(server, "30s") else { return };
    let _stream = open_stream(running.port, "/sse", "");
    running.signal(Signal::SIGKILL);
    let start = Instant::now();
    assert_eq!(running.wait(), 137);
    wait_until("the server to end", || running.leftovers().is_empty());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    running.assert_nothing_left();
}

crate::for_both_servers!(
    term_int_and_quit_end_it_with_0_and_nothing_is_left,
    an_open_event_stream_does_not_hold_it,
    an_open_websocket_does_not_hold_it,
    without_the_guard_a_stream_does_not_hold_it_beyond_the_budget,
    a_request_in_flight_is_answered,
    new_clients_are_refused_while_the_last_request_is_answered,
    a_stopped_worker_does_not_hold_it_beyond_the_budget,
    a_stopped_main_process_does_not_hold_it_beyond_the_budget,
    a_blocked_event_loop_is_killed_within_the_budget,
    a_second_signal_skips_the_waiting,
    a_stop_while_the_app_is_imported_is_granted_at_once,
    when_the_launcher_is_killed_the_server_ends,
);

#[test]
fn it_serves_on_for_the_stop_delay_and_then_ends() {
    let mut running = Launch::fake("gunicorn", "serve", &["--stop-delay", "2s", "--stop-timeout", "20s"]).start();
    running.wait_log("ready generation=");
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    running.wait_log("stopping after the delay");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert!(running.notes("terms").is_empty(), "the server got it too early");
    assert_eq!(running.wait(), 0);
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    running.assert_nothing_left();
}

#[test]
fn the_delay_is_a_part_of_the_budget() {
    let arguments = ["--stop-delay", "1s", "--stop-timeout", "2s"];
    let mut running = Launch::fake("gunicorn", "deaf-main deaf-worker", &arguments).start();
    running.wait_log("ready generation=");
    let (took, status) = timed_stop(&mut running);
    assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
    assert_eq!(status, 143);
    running.assert_nothing_left();
}

#[test]
fn quit_does_not_wait_for_the_delay() {
    let arguments = ["--stop-delay", "30s", "--stop-timeout", "60s"];
    let mut running = Launch::fake("gunicorn", "serve", &arguments).start();
    running.wait_log("ready generation=");
    let start = Instant::now();
    running.signal(Signal::SIGQUIT);
    running.wait();
    assert!(start.elapsed() < Duration::from_secs(20), "{}", running.log());
}

#[test]
fn the_servers_own_status_is_passed_on() {
    let mut running = fake("gunicorn", "on-term=7", "10s");
    assert_eq!(running.stop(), 7, "{}", running.log());
}

#[test]
fn a_worker_that_ignores_term_is_killed_and_the_status_is_143() {
    let mut running = fake("gunicorn", "deaf-worker", "1s");
    let (took, status) = timed_stop(&mut running);
    assert_eq!(status, 143, "{}", running.log());
    assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
    running.assert_nothing_left();
}

#[test]
fn a_main_process_that_ignores_term_is_killed_and_its_worker_with_it() {
    let mut running = fake("granian", "deaf-main", "1s");
    assert_eq!(running.stop(), 143, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_process_that_left_the_session_and_ignores_term_does_not_survive() {
    let mut running = fake("gunicorn", "stray", "1s");
    let stray = wait_for("the stray", || running.notes("stray").first().copied());
    assert!(is_alive(stray));
    assert_eq!(running.stop(), 143, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_stopped_process_that_ignores_term_does_not_survive() {
    let mut running = fake("gunicorn", "deaf-worker", "1s");
    freeze(worker(&running));
    assert_eq!(running.stop(), 143, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_stop_between_two_starts_is_clean() {
    let mut running =
        Launch::fake("gunicorn", "serve;exit=9", &["--backoff-initial", "1h", "--backoff-max", "1h"]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/9");
    running.wait_log("next=");
    running.wait_log_count("respawn", 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_server_that_ends_during_the_delay_is_not_started_again() {
    let mut running = Launch::fake("gunicorn", "serve", &["--stop-delay", "20s"]).start();
    running.wait_log("ready generation=");
    running.signal(Signal::SIGTERM);
    running.wait_log("stopping after the delay");
    let _ = get(running.port, "/exit/5");
    assert_eq!(running.wait(), 5, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 1);
}

#[test]
fn a_term_at_any_moment_of_the_start_is_not_lost() {
    for wait in (0..40).map(|step| Duration::from_millis(step / 2)) {
        let mut running = Launch::fake("gunicorn", "serve", &["--stop-timeout", "10s"]).start();
        let start = Instant::now();
        while start.elapsed() < wait {
            std::hint::spin_loop();
        }
        running.signal(Signal::SIGTERM);
        let status = running.wait();
        // Before its own first instruction a program cannot prevent a signal from ending it.
        assert!([0, 143].contains(&status), "{status} after {wait:?}: {}", running.log());
        running.assert_nothing_left();
    }
}
