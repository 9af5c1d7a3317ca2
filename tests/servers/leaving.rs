//! What clients keep open when their worker leaves: streams end between two events, web sockets with 1012, and what one
//! worker does for another is completed. On both servers.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::http::{Connection, UPGRADE, get, open_stream, skip_head, take_chunked};
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, tests_directory, unread, venv, wait_until};
use nix::sys::signal::Signal;

fn start(server: &str, app: &str, arguments: &[&str]) -> Option<Running> {
    let mut launch = Launch::new(&["--server", server, app]).in_turn();
    launch.command.args(arguments);
    launch.command.env("VIRTUAL_ENV", venv()?).env("PYTHONPATH", tests_directory("apps"));
    let folder = launch.directory.path().to_owned();
    let mut running = launch.env("MCP_LAUNCH_CPUS", "2").env("WORK_FOLDER", folder).start();
    running.wait_log("ready generation=");
    Some(running)
}

/// The rest of an event stream, to its end.
fn events(stream: BufReader<TcpStream>) -> Result<String, String> {
    let mut stream = stream;
    take_chunked(&mut stream).map_err(|error| error.to_string())
}

/// Whether these are whole events, each of two equal lines.
fn are_whole(events: &str) -> bool {
    let is_whole = |event: &str| event.split_once('\n').is_some_and(|(a, b)| a == b && a.starts_with("data: "));
    events.is_empty() || events.strip_suffix("\n\n").is_some_and(|events| events.split("\n\n").all(is_whole))
}

/// Reads frames of a web socket until it is closed, answers that, and returns the code.
fn close_code(server: &str, mut socket: BufReader<TcpStream>) -> Result<u16, String> {
    let say = |error: std::io::Error| error.to_string();
    skip_head(&mut socket).map_err(say)?;
    let mut frame = [0; 2];
    socket.read_exact(&mut frame).map_err(|error| format!("no close: {error}"))?;
    let mut payload = vec![0; usize::from(frame[1] & 0x7f)];
    socket.read_exact(&mut payload).map_err(say)?;
    if frame[0] != 0x88 || payload.len() < 2 {
        return Err(format!("{frame:?} {payload:?} is no close"));
    }
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    // Both sides have finished. Granian closes the connection without waiting for this answer, which then may not
    // arrive; Gunicorn's workers read it.
    let answer = [0x88, 0x82, 0, 0, 0, 0, payload[0], payload[1]];
    let told = socket.get_mut().write_all(&answer).and_then(|()| socket.read(&mut [0]));
    match told {
        Ok(0) => Ok(code),
        Ok(_) => Err("more after the close".into()),
        Err(_) if server == "granian" => Ok(code),
        Err(error) => Err(format!("after the close: {error}")),
    }
}

/// A client in its own thread, which has connected; returns when it was disconnected, or what went wrong.
fn client(server: &'static str, port: u16, path: &'static str) -> JoinHandle<Result<Instant, String>> {
    let (connected, is_connected) = mpsc::channel();
    let run = move || {
        let is_socket = path == "/ws";
        let stream = open_stream(port, path, if is_socket { UPGRADE } else { "" });
        connected.send(()).unwrap();
        if is_socket {
            let code = close_code(server, stream)?;
            return if code == 1012 { Ok(Instant::now()) } else { Err(format!("closed with {code}")) };
        }
        let mut stream = stream;
        skip_head(&mut stream).map_err(|error| error.to_string())?;
        let text = events(stream)?;
        let ended = Instant::now();
        if !are_whole(&text) {
            return Err(format!("cut in two: {text:?}"));
        }
        // It reconnects, to the successor.
        drop(open_stream(port, path, ""));
        Ok(ended)
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap();
    is_connected.recv().unwrap();
    thread
}

fn a_thousand_streams_and_two_hundred_web_sockets_are_closed_bit_by_bit_and_none_in_the_middle(server: &'static str) {
    let Some(mut running) = start(server, "streams:app", &["--workers", "2"]) else { return };
    let paths = ["/idle", "/halves", "/idle", "/halves", "/idle", "/ws"];
    let clients: Vec<_> = (0..1200).map(|number| client(server, running.port, paths[number % 6])).collect();
    running.signal(Signal::SIGHUP);
    running.wait_log("draining generation=1");
    let begun = Instant::now();
    running.wait_log(" gone generation=1");
    let took = begun.elapsed();
    let results: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failures.is_empty(), "{} failed: {failures:?}\n{}", failures.len(), running.log());
    let mut ended: Vec<_> =
        results.iter().flatten().map(|at| at.saturating_duration_since(begun).as_secs_f64()).collect();
    ended.sort_by(f64::total_cmp);
    let middle = ended[1140] - ended[60];
    let busiest = ended.windows(200).map(|window| window[199] - window[0]).fold(f64::MAX, f64::min);
    eprintln!("{server}: 90 % came back within {middle:.1} s, 200 in {busiest:.1} s, all gone after {took:?}");
    assert!(middle > 6.0, "at a hundred a second it takes 12 s: {middle:.1}");
    assert!(busiest > 0.8, "200 came back within {busiest:.1} s");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn one_idle_stream_does_not_hold_up_a_reload(server: &'static str) {
    for path in ["/idle", "/ws"] {
        let Some(mut running) = start(server, "streams:app", &["--workers", "2"]) else { return };
        let client = client(server, running.port, path);
        running.signal(Signal::SIGHUP);
        running.wait_log("draining generation=1");
        let begun = Instant::now();
        running.wait_log(" gone generation=1");
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}: {:?}", begun.elapsed());
        client.join().unwrap().unwrap();
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

fn at_a_stop_streams_and_web_sockets_end_within_a_second(server: &'static str) {
    for path in ["/idle", "/ws"] {
        let Some(mut running) = start(server, "streams:app", &["--workers", "2"]) else { return };
        let port = running.port;
        let stream = open_stream(port, path, if path == "/ws" { UPGRADE } else { "" });
        let client = std::thread::spawn(move || {
            let mut stream = stream;
            if path == "/ws" {
                assert_eq!(close_code(server, stream), Ok(1012));
            } else {
                skip_head(&mut stream).unwrap();
                assert!(are_whole(&events(stream).unwrap()));
            }
            Instant::now()
        });
        let begun = Instant::now();
        assert_eq!(running.stop(), 0, "{}", running.log());
        let took = begun.elapsed();
        let ended = client.join().unwrap().saturating_duration_since(begun);
        assert!(ended < Duration::from_millis(1200), "{path} ended after {ended:?}");
        assert!(took < Duration::from_secs(4), "{path}: stopped after {took:?}: {}", running.log());
    }
}

fn a_stream_that_answers_a_post_is_finished(server: &str) {
    let Some(mut running) = start(server, "streams:app", &["--workers", "2"]) else { return };
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", running.port)).unwrap());
    stream.get_mut().write_all(b"POST /work HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").unwrap();
    skip_head(&mut stream).unwrap();
    running.signal(Signal::SIGTERM);
    assert_eq!(events(stream), Ok("data: 0\ndata: 0\n\ndata: 1\ndata: 1\n\ndata: 2\ndata: 2\n\n".into()));
    assert_eq!(running.wait(), 0, "{}", running.log());
}

/// One worker does for the other what that one was asked for, without its own connection.
fn what_workers_do_for_each_other_is_finished(server: &str) {
    for stops in [false, true] {
        let Some(mut running) = start(server, "forward:app", &["--workers", "2", "--no-preload-app"]) else { return };
        let port = running.port;
        // Through the worker that is not the owner, because otherwise the owner would have a connection.
        let forward = move || {
            let mut connection = Connection::open(port).ok()?;
            let owner = connection.get("/owner", "").ok()?.body.contains("true");
            (!owner).then(|| std::thread::spawn(move || connection.get("/forward?s=3", "Connection: close\r\n")))
        };
        let mut asked = Vec::new();
        wait_until("a worker that is not the owner", || {
            asked.extend(forward());
            asked.len() >= 3
        });
        wait_until("the requests to be read", || unread(port) == 0);
        let begun = Instant::now();
        if stops {
            assert_eq!(running.stop(), 0, "{}", running.log());
        } else {
            running.signal(Signal::SIGHUP);
            running.wait_log(" gone generation=1");
        }
        let took = begun.elapsed();
        for client in asked {
            let answer = client.join().unwrap().expect("an answer");
            assert!(answer.status == 200 && answer.body.contains("by"), "{answer:?}\n{}", running.log());
        }
        assert!(took < Duration::from_secs(12), "{took:?}: {}", running.log());
        if !stops {
            assert!(get(port, "/pid").is_ok());
            assert_eq!(running.stop(), 0, "{}", running.log());
        }
    }
}

crate::for_both_servers!(
    a_thousand_streams_and_two_hundred_web_sockets_are_closed_bit_by_bit_and_none_in_the_middle,
    one_idle_stream_does_not_hold_up_a_reload,
    at_a_stop_streams_and_web_sockets_end_within_a_second,
    a_stream_that_answers_a_post_is_finished,
    what_workers_do_for_each_other_is_finished,
);

/// The worker that Gunicorn ends has closed its streams before.
fn one_worker_fewer_closes_its_streams_between_events(kind: &str) {
    let (_, class) = server_and_class(kind);
    let Some(mut running) = start("gunicorn", "streams:app", &["--workers", "2", "--worker-class", class]) else {
        return;
    };
    let paths = ["/idle", "/halves", "/ws", "/halves"];
    let clients: Vec<_> = (0..16).map(|number| client("gunicorn", running.port, paths[number % 4])).collect();
    let main = running.children()[0];
    let oldest = crate::harness::children(main).into_iter().min().unwrap();
    let begun = Instant::now();
    running.signal(Signal::SIGTTOU);
    wait_until("the oldest worker to end", || !crate::harness::is_alive(oldest));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "it waited for its streams: {took:?}\n{}", running.log());
    let ended = clients.iter().filter(|client| client.is_finished()).count();
    assert!((4..=12).contains(&ended), "{ended} of 16 clients were disconnected, those of one worker of two");
    running.signal(Signal::SIGHUP);
    running.wait_log(" gone generation=1");
    let results: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn one_worker_fewer_closes_its_streams_between_events_under_uvicorns_class() {
    one_worker_fewer_closes_its_streams_between_events("gunicorn");
}

#[test]
fn one_worker_fewer_closes_its_streams_between_events_under_asgi() {
    one_worker_fewer_closes_its_streams_between_events("asgi");
}
