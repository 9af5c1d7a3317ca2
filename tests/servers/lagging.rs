//! Clients that ask while the event loop of their worker stands still: what they have sent is in the kernel only, and the
//! loop finds it together with timers that have run out, and with the wish that it stop.

use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::http::{Answer, Connection, get};
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, venv};

/// With one worker, which keeps idle connections for 2 s.
fn start(kind: &str) -> Option<Running> {
    let (server, class) = server_and_class(kind);
    let launch = Launch::app(&venv()?, server, &["--workers", "1", "--worker-class", class]);
    let mut running = launch.env("GUNICORN_KEEP_ALIVE", "2").start();
    running.wait_log("ready generation=");
    Some(running)
}

/// A request for which the event loop stands still, from now on.
fn block(port: u16, seconds: f64) -> JoinHandle<std::io::Result<Answer>> {
    let client = std::thread::spawn(move || get(port, &format!("/block?s={seconds}")));
    std::thread::sleep(Duration::from_millis(300));
    client
}

fn are_answered<const N: usize>(running: &Running, clients: [(Connection, &str); N]) {
    for (mut client, what) in clients {
        let answer = client.receive().unwrap_or_else(|error| panic!("{what}: {error}: {}", running.log()));
        assert_eq!(answer.status, 200, "{what}");
    }
}

fn a_connection_whose_time_is_up_is_not_closed_if_its_client_has_asked(kind: &str) {
    let Some(mut running) = start(kind) else { return };
    let mut connection = Connection::open(running.port).unwrap();
    assert_eq!(connection.get("/", "").unwrap().status, 200);
    let blocking = block(running.port, 3.0);
    assert_eq!(connection.get("/", "").unwrap().status, 200, "{}", running.log());
    assert_eq!(blocking.join().unwrap().unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_worker_that_leaves_answers_whoever_has_asked_meanwhile(kind: &str) {
    let Some(mut running) = start(kind) else { return };
    let open = || Connection::open(running.port).unwrap();
    let (mut kept, mut new, mut half) = (open(), open(), open());
    assert_eq!(kept.get("/", "").unwrap().status, 200);
    half.send_bytes(b"GET / HTTP/1.1\r\nHo").unwrap();
    let blocking = block(running.port, 5.0);
    running.signal(Signal::SIGHUP);
    running.wait_log("draining generation=1");
    kept.send("/").unwrap();
    new.send("/").unwrap();
    half.send_bytes(b"st: test\r\n\r\n").unwrap();
    are_answered(&running, [(kept, "kept"), (new, "new"), (half, "half")]);
    assert_eq!(blocking.join().unwrap().unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_worker_that_leaves_gives_clients_who_are_connected_a_moment_to_ask(kind: &str) {
    let Some(mut running) = start(kind) else { return };
    let open = || Connection::open(running.port).unwrap();
    let (mut new, mut half) = (open(), open());
    half.send_bytes(b"GET / HTTP/1.1\r\nHo").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    running.signal(Signal::SIGHUP);
    running.wait_log("draining generation=1");
    std::thread::sleep(Duration::from_millis(500));
    new.send("/").unwrap();
    half.send_bytes(b"st: test\r\n\r\n").unwrap();
    are_answered(&running, [(new, "new"), (half, "half")]);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_every_kind!(
    a_worker_that_leaves_gives_clients_who_are_connected_a_moment_to_ask,
    a_connection_whose_time_is_up_is_not_closed_if_its_client_has_asked,
    a_worker_that_leaves_answers_whoever_has_asked_meanwhile,
);
