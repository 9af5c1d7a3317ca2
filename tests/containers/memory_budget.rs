//! Reloads if the memory has no room for two generations, in a container with a limit: step by step, without a lost
//! request, and a release that fails ends nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};

use super::host_files::Container;
use crate::harness::http::{Load, get};
use crate::harness::wait_until;
use nix::sys::signal::Signal;

/// In MiB. One worker with its main process takes about 95.
const ROOM_FOR_ONE: u32 = 140;

/// A launcher in a container with a memory limit.
struct Limited(Container);

impl Deref for Limited {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.0
    }
}

impl DerefMut for Limited {
    fn deref_mut(&mut self) -> &mut Container {
        &mut self.0
    }
}

impl Limited {
    /// Three workers, of 40 MiB each in addition to 30 MiB that are loaded once (Gunicorn) or by each worker (Granian),
    /// and this much spare memory.
    fn start(server: &str, room: u32) -> Option<Self> {
        Self::start_with(room, &["--server", server, "heavy:app"])
    }

    fn start_with(room: u32, arguments: &[&str]) -> Option<Self> {
        let mib = room + if arguments.contains(&"granian") { 255 } else { 205 };
        let environment = [
            // What the workers share is loaded before they are forked.
            ("GUNICORN_PRELOAD_APP", "true"),
            ("SHARED_MIB", "30"),
            ("WORKER_MIB", "40"),
            ("RELEASE_FILE", "release"),
        ];
        let limits = [format!("--memory={mib}m"), format!("--memory-swap={mib}m")];
        let arguments = [&["--workers", "3"], arguments].concat();
        let mut limited = Self(Container::start(&limits, &[("release", "one")], &environment, &arguments)?);
        limited.running.wait_log(" ready ");
        // Gunicorn is ready with the first worker, before the others have allocated their memory.
        limited.wait_workers(3);
        Some(limited)
    }

    fn reload(&self, release: &str) {
        std::fs::write(self.running.directory.path().join("release"), release).unwrap();
        self.running.signal(Signal::SIGHUP);
    }

    fn release(&self) -> String {
        get(self.running.port, "/release").unwrap().body
    }

    fn serves(&self, release: &str) -> bool {
        self.release().contains(&format!("\"{release}\""))
    }

    /// Makes requests until `workers` have answered, each on a new connection, and no other worker.
    fn wait_workers(&self, workers: usize) {
        let mut last = Vec::new();
        wait_until("the workers to answer", || {
            last.push(get(self.running.port, "/pid").unwrap().body);
            let recent: std::collections::BTreeSet<_> = last.iter().rev().take(40).collect();
            last.len() >= 40 && recent.len() == workers
        });
    }

    fn stop(mut self) {
        assert_eq!(self.running.stop(), 0, "{}", self.running.log());
    }
}

#[test]
fn gunicorn_is_replaced_worker_by_worker_and_loses_no_request() {
    let Some(mut limited) = Limited::start("gunicorn", ROOM_FOR_ONE) else { return };
    let load = Load::start(limited.running.port, "/", 8);
    for (count, release) in ["two", "three"].into_iter().enumerate() {
        limited.reload(release);
        limited.running.wait_log_count(" complete ", count + 1);
        assert!(limited.serves(release), "{}", limited.release());
    }
    let answered = load.answered();
    let failures = load.finish();
    let log = limited.running.log();
    eprintln!("{answered} answered\n{log}");
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}\n{log}", failures.len());
    assert_eq!(log.matches("not enough memory for two generations: ").count(), 2, "{log}");
    assert_eq!(log.matches("; replacing worker by worker\n").count(), 2, "{log}");
    assert!(!log.contains("SIGKILL"), "{log}");
    limited.wait_workers(3);
    limited.stop();
}

#[test]
fn workers_that_wait_for_clients_in_a_way_that_cannot_be_seen_are_given_time() {
    let arguments = ["--server", "gunicorn", "-k", "sync", "heavy:wsgi"];
    let Some(mut limited) = Limited::start_with(ROOM_FOR_ONE, &arguments) else { return };
    let load = Load::start(limited.running.port, "/", 4);
    limited.reload("two");
    limited.running.wait_log(" complete ");
    let failures = load.finish();
    assert!(failures.is_empty(), "{failures:?}\n{}", limited.running.log());
    assert!(limited.serves("two"), "{}", limited.release());
    limited.stop();
}

#[test]
fn open_streams_hold_up_no_step() {
    let arguments = ["--server", "gunicorn", "--stop-timeout", "4s", "heavy:app"];
    let Some(mut limited) = Limited::start_with(ROOM_FOR_ONE, &arguments) else { return };
    let streams: Vec<TcpStream> = (0..12).map(|_| open_stream(limited.running.port)).collect();
    limited.reload("two");
    limited.running.wait_log(" complete ");
    assert!(!limited.running.log().contains("SIGKILL"), "{}", limited.running.log());
    assert!(limited.serves("two"), "{}", limited.release());
    limited.wait_workers(3);
    drop(streams);
    limited.stop();
}

/// An event stream that has begun.
fn open_stream(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream
}

/// The engine's seccomp profile does not let us take a copy of a worker's socket, to steer new clients away from a
/// worker that leaves: the worker is asked for it.
#[test]
fn granian_is_replaced_by_one_worker_first_and_loses_no_request() {
    let Some(mut limited) = Limited::start("granian", ROOM_FOR_ONE) else { return };
    let load = Load::start(limited.running.port, "/", 8);
    limited.reload("two");
    limited.running.wait_log("one worker takes over first");
    limited.running.wait_log_count(" ready ", 3);
    limited.running.wait_log_count(" gone ", 2);
    let answered = load.answered();
    let failures = load.finish();
    let log = limited.running.log();
    eprintln!("{answered} answered\n{log}");
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}\n{log}", failures.len());
    assert!(limited.serves("two"), "{}", limited.release());
    limited.wait_workers(3);
    limited.stop();
}

fn broken_releases_are_discarded(server: &str) {
    let Some(mut limited) = Limited::start(server, ROOM_FOR_ONE) else { return };
    let load = Load::start(limited.running.port, "/", 4);
    for (count, release) in ["raises", "huge"].into_iter().enumerate() {
        limited.reload(release);
        limited.running.wait_log_count("the old generation was kept", count + 1);
    }
    let failures = load.finish();
    let log = limited.running.log();
    assert!(failures.is_empty(), "{failures:?}\n{log}");
    assert!(log.contains("killed by SIGKILL") || server == "granian", "{log}");
    assert!(limited.serves("one"), "{}", limited.release());
    limited.wait_workers(3);
    limited.stop();
}

#[test]
fn a_release_that_raises_or_takes_too_much_memory_leaves_gunicorn_as_it_was() {
    broken_releases_are_discarded("gunicorn");
}

#[test]
fn a_release_that_raises_or_takes_too_much_memory_leaves_granian_as_it_was() {
    broken_releases_are_discarded("granian");
}

#[test]
fn a_release_that_breaks_half_way_is_taken_back() {
    let Some(mut limited) = Limited::start("gunicorn", ROOM_FOR_ONE) else { return };
    limited.reload("second-fails");
    limited.running.wait_log("the old generation was kept");
    limited.running.wait_log("given_back=1");
    limited.running.wait_log(" complete generation=1");
    assert!(limited.serves("one"), "{}", limited.release());
    limited.wait_workers(3);
    limited.reload("two");
    limited.running.wait_log_count(" complete ", 2);
    assert!(limited.serves("two"), "{}", limited.release());
    limited.stop();
}

#[test]
fn without_room_for_one_worker_the_reload_is_refused() {
    for server in ["gunicorn", "granian"] {
        let Some(mut limited) = Limited::start(server, 50) else { return };
        limited.reload("two");
        limited.running.wait_log("not even with one worker");
        limited.running.wait_log("the old generation was kept");
        assert!(limited.serves("one"), "{}", limited.release());
        limited.wait_workers(3);
        limited.stop();
    }
}
