//! Event streams of WSGI apps whose worker leaves: they end between two events, and the app's generator is closed.

use std::io::BufReader;
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{FLASK, launch};
use crate::harness::http::{get, open_stream, skip_head, take_chunked};
use crate::harness::{Launch, Running, wait_until};

crate::for_each_wsgi_kind!(streams_of_a_worker_that_leaves_end_between_two_events);

/// Starts the Flask app, and returns how to count the streams whose generators were closed.
fn start(server: &str) -> Option<(Running, impl Fn() -> usize)> {
    let launch = launch(server, FLASK, &["--workers", "1", "--backpressure", "8"])?;
    let closed = launch.directory.path().join("closed");
    let mut running = Launch::env(launch, "CLOSED", &closed).in_turn().start();
    running.wait_log("ready generation=");
    Some((running, move || std::fs::read(&closed).unwrap_or_default().len()))
}

/// Reads a stream to its end: the text, and when it ended.
fn read_to_end(mut stream: BufReader<TcpStream>) -> JoinHandle<(String, Instant)> {
    std::thread::spawn(move || {
        skip_head(&mut stream).unwrap();
        (take_chunked(&mut stream).unwrap(), Instant::now())
    })
}

fn are_whole(events: &str) -> bool {
    events.ends_with("\n\n") && events.trim_end().split("\n\n").all(|event| event == "data: a\ndata: b")
}

fn streams_of_a_worker_that_leaves_end_between_two_events(server: &str) {
    let Some((mut running, closed)) = start(server) else { return };
    let open = || read_to_end(open_stream(running.port, "/halves", ""));
    let streams: Vec<_> = (0..3).map(|_| open()).collect();
    running.signal(Signal::SIGHUP);
    running.wait_log("draining generation=1");
    let begun = Instant::now();
    for stream in streams {
        let (events, ended) = stream.join().unwrap();
        assert!(are_whole(&events), "{events:?}");
        assert!(ended.saturating_duration_since(begun) < Duration::from_secs(4));
    }
    wait_until("the app to hear of it", || closed() == 3);
    running.wait_log(" gone generation=1");

    let stream = read_to_end(open_stream(running.port, "/halves", ""));
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    let begun = Instant::now();
    assert_eq!(running.stop(), 0, "{}", running.log());
    let (events, ended) = stream.join().unwrap();
    assert!(are_whole(&events), "{events:?}");
    assert!(ended.saturating_duration_since(begun) < Duration::from_millis(1500));
    assert_eq!(closed(), 4);
}

#[test]
fn a_greenlet_that_waits_for_the_next_event_is_interrupted() {
    let Some((mut running, closed)) = start("gevent") else { return };
    let stream = read_to_end(open_stream(running.port, "/idle", ""));
    let begun = Instant::now();
    running.signal(Signal::SIGHUP);
    running.wait_log(" gone generation=1");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(are_whole(&stream.join().unwrap().0));
    assert_eq!(closed(), 1);
    assert_eq!(running.stop(), 0, "{}", running.log());
}
