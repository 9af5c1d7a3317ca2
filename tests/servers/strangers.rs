//! Processes and sockets that do not belong to the launcher's workers are not taken for theirs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::ask::all_are_ready;
use crate::harness::http::get;
use crate::harness::{LONG, Launch, Running, is_alive, venv, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, sockopt};
use nix::unistd::Pid;

fn number(body: &str, key: &str) -> Pid {
    let rest = body.split(&format!("\"{key}\":")).nth(1).unwrap_or_else(|| panic!("{key} in {body}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    Pid::from_raw(digits.parse().unwrap())
}

/// Every one of this many fresh requests is answered.
fn answers(running: &Running, count: usize) -> bool {
    (0..count).all(|_| get(running.port, "/").is_ok_and(|answer| answer.status == 200))
}

/// What the children of a worker have inherited from it does not keep its place in the distribution of clients.
fn pool_children_of_a_killed_worker_get_no_clients(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "2"]).in_turn().start();
    running.wait_log("ready generation=");
    let body = get(running.port, "/pool").unwrap().body;
    let (worker, child) = (number(&body, "pid"), number(&body, "child"));
    kill(worker, Signal::SIGKILL).unwrap();
    running.wait_log("worker exit generation=1");
    wait_until("the successor", || all_are_ready(&running));
    assert!(answers(&running, 40), "{}", running.log());
    // It misses the end of its worker, and ignores TERM.
    running.stop();
    assert!(!is_alive(child));
    running.assert_nothing_left();
}

/// A client that connects, waits, and then sends its request, repeatedly. Returns the failures.
fn ask_slowly(port: u16, done: &AtomicBool) -> Vec<String> {
    let mut lost = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        let mut answer = Vec::new();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        match asked.and_then(|()| stream.read_to_end(&mut answer)) {
            Ok(_) if answer.starts_with(b"HTTP/1.1 200") => {}
            other => lost.push(format!("{other:?} {}", String::from_utf8_lossy(&answer))),
        }
    }
    lost
}

/// A listener that allows others of its user to have the same address, too.
fn shared_listener(host: &str, port: u16) -> OwnedFd {
    let kind = (AddressFamily::Inet, SockType::Stream);
    let listener = socket::socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::setsockopt(&listener, sockopt::ReusePort, &true).unwrap();
    let address: SockaddrIn = format!("{host}:{port}").parse().unwrap();
    socket::bind(listener.as_raw_fd(), &address).unwrap();
    socket::listen(&listener, Backlog::new(8).unwrap()).unwrap();
    listener
}

/// The same port number at another address belongs to another program.
fn a_listener_at_another_address_is_not_counted(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "2"]).in_turn().start();
    running.wait_log("ready generation=1");
    // One alone, and two that share a port as the workers do.
    let _stranger = TcpListener::bind(("127.0.0.2", running.port)).unwrap();
    let _sharing = [0, 1].map(|_| shared_listener("127.0.0.3", running.port));
    let done = AtomicBool::new(false);
    let lost: Vec<String> = std::thread::scope(|scope| {
        let (port, done) = (running.port, &done);
        let clients: Vec<_> = (0..24).map(|_| scope.spawn(move || ask_slowly(port, done))).collect();
        for generation in 2..=4 {
            running.signal(Signal::SIGHUP);
            running.wait_log(&format!("ready generation={generation}"));
            running.wait_log(&format!("gone generation={}", generation - 1));
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(lost.is_empty(), "{lost:?}\n{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn gunicorn_pool_children_of_a_killed_worker_get_no_clients() {
    pool_children_of_a_killed_worker_get_no_clients("gunicorn");
}

#[test]
fn granian_pool_children_of_a_killed_worker_get_no_clients() {
    pool_children_of_a_killed_worker_get_no_clients("granian");
}

#[test]
fn gunicorn_a_listener_at_another_address_is_not_counted() {
    a_listener_at_another_address_is_not_counted("gunicorn");
}

#[test]
fn granian_a_listener_at_another_address_is_not_counted() {
    a_listener_at_another_address_is_not_counted("granian");
}
