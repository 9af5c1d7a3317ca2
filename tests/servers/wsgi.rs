//! Django and Flask have what ASGI apps have: a limit that is exact, readiness and status of each worker, replacement
//! and handover without a lost request.

mod modes;
mod projects;
mod streams;
mod warm_up;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Connection, Load, get, open_stream};
use crate::harness::stopwatch::Stopwatch;
use crate::harness::{Launch, Running, is_alive, tests_directory, venv, wait_until};
use crate::overload::Volley;

const FLASK: &str = "wsgi_flask";
const DJANGO: &str = "wsgi_django:application";

/// A launch of an app on a server: `gthread`, `gevent` and `sync` are Gunicorn with this worker class.
fn launch(server: &str, app: &str, arguments: &[&str]) -> Option<Launch> {
    let venv = venv()?;
    let mut launch = Launch::new(&[]);
    match server {
        "granian" => launch.command.args(["--server", "granian"]),
        class => launch.command.args(["--server", "gunicorn", "--worker-class", class]),
    };
    launch
        .command
        .args(arguments)
        .arg(app)
        .env("VIRTUAL_ENV", venv)
        .env("PYTHONPATH", tests_directory("apps"))
        .env("TEST_DATABASE", launch.directory.path().join("db.sqlite3"))
        .env("MCP_LAUNCH_CPUS", "2");
    Some(launch)
}

fn start(server: &str, app: &str, arguments: &[&str]) -> Option<Running> {
    let mut running = launch(server, app, arguments)?.start();
    running.wait_log("ready generation=");
    Some(running)
}

fn workers(running: &Running) -> Vec<Value> {
    ask(running, &["status", "--json"]).json()["generations"][0]["workers"].as_array().unwrap().clone()
}

fn pid_in(body: &str) -> Pid {
    Pid::from_raw(body.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

fn exactly_the_excess_is_refused_at_once(server: &str) {
    for app in [FLASK, DJANGO] {
        let Some(launch) = launch(server, app, &["--workers", "1", "--backpressure", "4"]) else { return };
        let gate = launch.directory.path().join("gate");
        let mut running = launch.env("GATE", &gate).start();
        running.wait_log("ready generation=");
        assert!(running.log().contains("limit=4"), "{}", running.log());
        let processes = running.descendants();
        let volley = Volley::fire(running.port, "/held", 7);
        wait_until("the excess to be refused", || volley.count(503) == 3);
        assert_eq!(get(running.port, "/health").unwrap().status, 200, "the health path is always admitted");
        let mut kept = Connection::open(running.port).unwrap();
        for _ in 0..20 {
            let watch = Stopwatch::start(&processes);
            assert_eq!(kept.get("/", "").unwrap().status, 503);
            let took = watch.elapsed();
            assert!(took < Duration::from_millis(50), "{took:?}");
        }
        let load = &workers(&running)[0]["load"];
        assert_eq!((&load["in_flight"], &load["state"]), (&4.into(), &"ready".into()), "{load}");
        std::fs::write(&gate, "").unwrap();
        assert_eq!(volley.finish().iter().filter(|answer| answer.0 == 200).count(), 4);
        wait_until("the room to come back", || get(running.port, "/").is_ok_and(|it| it.status == 200));
        assert_eq!(running.stop(), 0, "{}", running.log());
        running.assert_nothing_left();
    }
}

/// A response is sent in parts, and on a kept connection the last one must not wait for the client's acknowledgement of
/// the others, which takes 40 ms.
fn answers_on_a_kept_connection_are_sent_at_once(server: &str) {
    let Some(mut running) = start(server, FLASK, &["--workers", "1"]) else { return };
    let mut kept = Connection::open(running.port).unwrap();
    let begun = Instant::now();
    for _ in 0..500 {
        assert_eq!(kept.get("/health", "").unwrap().status, 200);
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "500 requests took {took:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_database_answers_in_every_thread(server: &str) {
    let Some(mut running) = start(server, DJANGO, &["--workers", "2", "--backpressure", "8"]) else { return };
    assert_eq!(get(running.port, "/add/one").unwrap().body, "1 groups");
    let volley = Volley::fire(running.port, "/groups", 8);
    assert!(volley.finish().iter().all(|answer| answer.0 == 200));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_handover_loses_no_request(server: &str) {
    let Some(mut running) = start(server, FLASK, &["--workers", "2", "--backpressure", "16"]) else { return };
    let load = Load::start(running.port, "/", 4);
    for generation in 2..4 {
        running.signal(Signal::SIGHUP);
        running.wait_log(&format!("ready generation={generation}"));
        running.wait_log_count(" gone ", generation - 1);
    }
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn a_worker_that_has_had_its_requests_is_replaced_and_no_request_is_lost(server: &str) {
    let arguments = ["--workers", "2", "--backpressure", "16", "--max-requests", "300", "--worker-timeout", "4s"];
    let Some(mut running) = start(server, FLASK, &arguments) else { return };
    let load = Load::start(running.port, "/", 4);
    running.wait_log("cause=requests");
    running.wait_log("worker exit");
    wait_until("all to be ready", || all_are_ready(&running));
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_worker_that_grows_too_big_is_replaced(server: &str) {
    let arguments = ["--workers", "2", "--workers-max-rss", "300M", "--worker-timeout", "4s"];
    let Some(mut running) = start(server, FLASK, &arguments) else { return };
    let load = Load::start(running.port, "/", 4);
    let big = pid_in(&get(running.port, "/grow?mib=400").unwrap().body);
    running.wait_log("cause=rss");
    wait_until("it to be gone", || !is_alive(big));
    wait_until("its successor", || all_are_ready(&running));
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The worker timeout is for an interpreter that stands still.
fn long_requests_replace_nobody_and_a_worker_that_stands_still_is_replaced(server: &str) {
    let arguments = ["--workers", "2", "--worker-timeout", "2s", "--backpressure", "2"];
    let Some(mut running) = launch(server, FLASK, &arguments).map(Launch::in_turn).map(Launch::start) else { return };
    running.wait_log("ready generation=");
    let volley = Volley::fire(running.port, "/slow?s=6", 2);
    assert!(volley.finish().iter().all(|answer| answer.0 == 200));
    assert!(!running.log().contains("worker hung"), "{}", running.log());
    kill(pid_in(&get(running.port, "/").unwrap().body), Signal::SIGSTOP).unwrap();
    running.wait_log("worker hung generation=1");
    running.wait_log("cause=hung");
    wait_until("its successor", || all_are_ready(&running));
    assert_eq!(running.log().matches("worker hung").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_file_arrives_whole(server: &str) {
    let Some(mut running) = start(server, FLASK, &["--workers", "1", "--backpressure", "2"]) else { return };
    let file = std::fs::read_to_string(tests_directory("apps").join("wsgi_flask.py")).unwrap();
    assert_eq!(get(running.port, "/file").unwrap().body, file);
    wait_until("it not to count any more", || workers(&running)[0]["load"]["in_flight"] == 0);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_each_wsgi_kind!(
    exactly_the_excess_is_refused_at_once,
    answers_on_a_kept_connection_are_sent_at_once,
    a_database_answers_in_every_thread,
    a_handover_loses_no_request,
    a_worker_that_has_had_its_requests_is_replaced_and_no_request_is_lost,
    a_worker_that_grows_too_big_is_replaced,
    long_requests_replace_nobody_and_a_worker_that_stands_still_is_replaced,
    a_file_arrives_whole,
);

#[test]
fn an_event_stream_counts_on_a_thread_and_not_on_a_greenlet() {
    for (server, in_flight, streams) in [("gthread", 1, 0), ("gevent", 0, 1), ("granian", 1, 0)] {
        let Some(mut running) = start(server, FLASK, &["--workers", "1", "--backpressure", "4"]) else { return };
        let stream = open_stream(running.port, "/events", "");
        let counts = || {
            let load = &workers(&running)[0]["load"];
            (load["in_flight"].as_u64().unwrap(), load["streams"].as_u64().unwrap())
        };
        wait_until("it to be seen", || counts() == (in_flight, streams));
        drop(stream);
        wait_until("its end", || counts() == (0, 0));
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn a_sync_worker_handles_one_request_and_the_next_ones_wait() {
    let Some(mut running) = start("sync", FLASK, &["--workers", "2"]) else { return };
    let volley = Volley::fire(running.port, "/slow?s=0.5", 4);
    let answers = volley.finish();
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.1 > Duration::from_millis(900)), "{answers:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// One worker's connections were all taken by idle clients, and requests were refused although its threads were free.
#[test]
fn idle_connections_keep_nobody_out_of_a_granian_worker() {
    let Some(mut running) = start("granian", FLASK, &["--workers", "1", "--backpressure", "16"]) else { return };
    let mut idle: Vec<_> = (0..26).map(|_| Connection::open(running.port).unwrap()).collect();
    for connection in &mut idle {
        assert_eq!(connection.get("/", "").unwrap().status, 200);
    }
    let processes = running.descendants();
    let mut next = Instant::now();
    for _ in 0..15 {
        let watch = Stopwatch::start(&processes);
        assert_eq!(get(running.port, "/").unwrap().status, 200);
        let took = watch.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");
        // Idle connections are closed after some seconds.
        next += Duration::from_millis(333);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    drop(idle);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn ends_at_once_with(server: &str, app: &str, text: &str, wanted: &str) {
    let Some(mut launch) = launch(server, app, &["--workers", "1"]) else { return };
    std::fs::write(launch.directory.path().join("own.py"), text).unwrap();
    launch.command.env("PYTHONPATH", launch.directory.path());
    let finished = launch.finish();
    assert_eq!(finished.code, if server == "granian" { 1 } else { 3 }, "{}", finished.log);
    assert!(finished.log.contains(wanted), "{}", finished.log);
}

/// Without us Gunicorn's clients wait for ever, and Granian's workers end one after the other without a reason.
#[test]
fn an_app_that_patches_late_is_told_so() {
    let app = "from gevent import monkey\nmonkey.patch_all()\nfrom flask import Flask\napp = Flask('own')\n";
    ends_at_once_with("gthread", "own:app", app, "use --worker-class gevent");
    ends_at_once_with("granian", "own:app", app, "use --server gunicorn --worker-class gevent");
}

#[test]
fn an_asgi_app_under_a_wsgi_interface_is_told_so() {
    let app = "async def hidden(scope, receive, send):\n    pass\n\napp = (lambda it: it)(hidden)\n";
    ends_at_once_with("gthread", "own:app", app, "own:app is an ASGI app");
    let Some(mut launch) = launch("granian", "own:app", &["--workers", "1"]) else { return };
    std::fs::write(launch.directory.path().join("own.py"), app).unwrap();
    launch.command.env("PYTHONPATH", launch.directory.path()).env("GRANIAN_INTERFACE", "wsgi");
    let finished = launch.finish();
    assert!(finished.log.contains("use GRANIAN_INTERFACE=asgi"), "{}", finished.log);
}
