//! A worker whose event loop is blocked is replaced, and no other worker is affected; one that only seems to hang is
//! left alone.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{get, request};
use crate::harness::{self, Launch, Running, is_alive, tests_directory, venv, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Workers are hung after this time.
const TIMEOUT: &str = "3s";

fn start(server: &str, workers: &str) -> Option<Running> {
    let arguments = ["--workers", workers, "--worker-timeout", TIMEOUT];
    let mut running = Launch::app(&venv()?, server, &arguments).in_turn().start();
    running.wait_log("ready generation=");
    Some(running)
}

/// A worker, as it identifies itself.
fn a_worker(running: &Running) -> Pid {
    let body = get(running.port, "/pid").unwrap().body;
    Pid::from_raw(body.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

/// Makes a request that is never answered.
fn hang(running: &Running, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    request(&mut stream, path);
    stream
}

/// Only that worker is replaced; then the server answers as before.
fn is_replaced(mut running: Running) {
    running.wait_log("worker hung generation=1");
    running.wait_log("cause=hung");
    wait_until("a stretch of answers", || (0..20).all(|_| get(running.port, "/").is_ok_and(|it| it.status == 200)));
    wait_until("its successor", || all_are_ready(&running));
    assert_eq!(running.log().matches("worker hung").count(), 1, "{}", running.log());
    assert_eq!(running.log().matches("ready generation=").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn a_worker_with_a_blocked_event_loop_is_replaced_and_logs_its_traceback(server: &str) {
    let Some(mut running) = start(server, "2") else { return };
    let _client = hang(&running, "/block?s=1000");
    running.wait_log("cause=hung");
    assert!(running.log().contains("hello.py\", line"), "{}", running.log());
    is_replaced(running);
}

fn an_endless_loop_of_one_of_eight_workers_is_replaced(server: &str) {
    let Some(running) = start(server, "8") else { return };
    let _client = hang(&running, "/spin");
    is_replaced(running);
}

fn a_deadlock_is_replaced(server: &str) {
    let Some(running) = start(server, "2") else { return };
    let _client = hang(&running, "/deadlock");
    is_replaced(running);
}

fn a_stopped_worker_is_replaced(server: &str) {
    let Some(running) = start(server, "2") else { return };
    kill(a_worker(&running), Signal::SIGSTOP).unwrap();
    is_replaced(running);
}

/// Like a closed laptop or a paused virtual machine: everything stops and resumes.
fn a_pause_of_everything_is_no_hang(server: &str) {
    let Some(mut running) = start(server, "2") else { return };
    let all = [vec![running.pid()], running.descendants()].concat();
    for pid in &all {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    std::thread::sleep(Duration::from_secs(5));
    for pid in all.iter().rev() {
        kill(*pid, Signal::SIGCONT).unwrap();
    }
    let watched = Instant::now() + Duration::from_secs(5);
    while Instant::now() < watched {
        assert_eq!(get(running.port, "/").unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!running.log().contains("worker hung"), "{}", running.log());
    assert!(all.iter().all(|pid| is_alive(*pid)));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// As with a log collector that has stopped reading. Killing the worker would not help the next one.
fn a_worker_that_waits_for_its_output_to_be_read_is_reported_and_left_alone(server: &str) {
    let Some(venv) = venv() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let arguments = ["--workers", "2", "--worker-timeout", TIMEOUT];
    let mut running = Launch::app(&venv, server, &arguments).in_turn().start_with_stderr(writer);
    wait_until("all workers to be ready", || ask(&running, &["health"]).code == Some(0));
    let workers = harness::children(running.children()[0]);
    let _client = hang(&running, "/shout?mb=1");
    wait_until("a worker to be stuck", || workers.iter().any(|pid| harness::waits_to_write(*pid)));
    // Enough time for a verdict; our own log waits in the same pipe.
    std::thread::sleep(Duration::from_secs(6));
    assert!(workers.iter().all(|pid| is_alive(*pid)));
    running.read_log_from(reader);
    wait_until("a report", || {
        running.log().contains("worker is stuck writing to its standard output or standard error")
    });
    assert!(!running.log().contains("worker hung"));
    wait_until("a stretch of answers", || (0..20).all(|_| get(running.port, "/").is_ok_and(|it| it.status == 200)));
    assert!(workers.iter().all(|pid| is_alive(*pid)));
    assert_eq!(running.stop(), 0);
}

/// A replacement is watched like the first worker.
fn an_only_worker_is_replaced_again_and_again(server: &str) {
    let Some(mut running) = start(server, "1") else { return };
    for time in 1..=2 {
        kill(a_worker(&running), Signal::SIGSTOP).unwrap();
        running.wait_log_count("worker hung", time);
        wait_until("its successor", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
        wait_until("it to be ready", || all_are_ready(&running));
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The app is imported in the worker, which has no slot on the board yet: it has the startup timeout.
fn a_successor_that_hangs_at_its_import_is_replaced(server: &str) {
    let Some(venv) = venv() else { return };
    let arguments = ["--workers", "2", "--worker-timeout", TIMEOUT, "--startup-timeout", "8s"];
    let launch = Launch::app(&venv, server, &arguments).in_turn();
    let (app, hang) = (launch.directory.path().join("once.py"), launch.directory.path().join("hang"));
    let source = "import os, time\nif os.path.exists(os.environ['HANG']):\n    os.remove(os.environ['HANG'])\n    \
                  time.sleep(1000)\nfrom hello import app\n";
    std::fs::write(&app, source).unwrap();
    let path = format!("{}:{}", launch.directory.path().display(), tests_directory("apps").display());
    let launch = launch.env("HANG", &hang).env("PYTHONPATH", path).env("APP_MODULE", "once:app");
    let mut running = launch.without_argument("hello:app").start();
    running.wait_log("ready generation=1");
    std::fs::write(&hang, "").unwrap();
    kill(a_worker(&running), Signal::SIGKILL).unwrap();
    wait_until("its successor to hang", || !hang.exists());
    running.wait_log("worker does not become ready");
    wait_until("all workers", || all_are_ready(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

crate::for_both_servers!(
    an_only_worker_is_replaced_again_and_again,
    a_successor_that_hangs_at_its_import_is_replaced,
    a_worker_that_waits_for_its_output_to_be_read_is_reported_and_left_alone,
    a_worker_with_a_blocked_event_loop_is_replaced_and_logs_its_traceback,
    an_endless_loop_of_one_of_eight_workers_is_replaced,
    a_deadlock_is_replaced,
    a_stopped_worker_is_replaced,
    a_pause_of_everything_is_no_hang,
);

#[test]
fn without_a_timeout_nobody_is_replaced() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "2", "--worker-timeout", "0"]);
    let mut running = launch.in_turn().start();
    running.wait_log("ready generation=");
    let _client = hang(&running, "/block?s=6");
    let blocked = Instant::now() + Duration::from_secs(5);
    while Instant::now() < blocked {
        assert_eq!(get(running.port, "/").unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!running.log().contains("worker hung"), "{}", running.log());
    assert_eq!(running.stop(), 0);
}
