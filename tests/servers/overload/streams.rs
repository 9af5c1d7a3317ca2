//! Event streams, web sockets, and clients that leave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{LIMIT, board, in_flight, start, streams};
use crate::harness::http::{Connection, UPGRADE, get, open_stream};
use crate::harness::{take_turn, wait_until};

fn event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own(server: &str) {
    let arguments = ["--workers", "1", "--backpressure", "1", "--max-streams", "2"];
    let Some((mut running, _)) = start(server, &arguments) else { return };
    let events = open_stream(running.port, "/sse", "");
    wait_until("the stream to be counted", || streams(&running) == 1);
    let socket = open_stream(running.port, "/ws", UPGRADE);
    wait_until("both to be counted", || streams(&running) == 2 && in_flight(&running) == 0);
    assert_eq!(get(running.port, "/").unwrap().status, 200, "streams do not count as requests");
    assert_eq!(get(running.port, "/sse").unwrap().status, 503);
    let refused = Connection::open(running.port).unwrap().get("/ws", UPGRADE).unwrap();
    assert!([503, 403].contains(&refused.status), "{refused:?}");
    assert_eq!(board(&running)[0].rejected, 2);
    assert_eq!(streams(&running), 2);
    drop((events, socket));
    wait_until("the streams to be over", || streams(&running) == 0 && in_flight(&running) == 0);
    drop(open_stream(running.port, "/sse", ""));
    let log = running.log();
    assert!(!log.contains("Traceback"), "a refused stream is no error: {log}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Clients that leave at any moment: before and within the request, while they wait, within the response.
fn ten_thousand_clients_that_leave_at_random_leave_nothing_behind(server: &str) {
    const CLIENTS: u32 = 10_000;
    const AT_A_TIME: u32 = 8;
    let _turn = take_turn();
    let Some((mut running, gate)) = start(server, &["--workers", "1"]) else { return };
    let port = running.port;
    let clients = (0..AT_A_TIME).map(|client| {
        std::thread::spawn(move || {
            (0..CLIENTS / AT_A_TIME).for_each(|round| leave_at_some_point(port, client, round));
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    // Not every server tells the app that the client has left: requests that wait are released.
    std::fs::write(&gate, "").unwrap();
    wait_until("the counts to be zero", || in_flight(&running) == 0 && streams(&running) == 0);
    assert!(board(&running).iter().all(|slot| slot.high_water <= LIMIT));
    assert_eq!(get(port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn leave_at_some_point(port: u16, client: u32, round: u32) {
    let chance = client.wrapping_mul(2_654_435_761).wrapping_add(round.wrapping_mul(40_503)) >> 3;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let path = ["/", "/", "/sse", "/ws", "/wait"][chance as usize % if round.is_multiple_of(100) { 5 } else { 4 }];
    let headers = if path == "/ws" { UPGRADE } else { "Content-Length: 4\r\n" };
    let request = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\nbody").replace("POST /ws", "GET /ws");
    let sent = if chance.is_multiple_of(7) {
        &request.as_bytes()[..(chance as usize) % request.len()]
    } else {
        request.as_bytes()
    };
    let _ = stream.write_all(sent);
    if chance.is_multiple_of(3) {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = stream.read(&mut [0; 64]);
    }
    if chance.is_multiple_of(5) {
        // A reset instead of a normal end.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger);
    }
}

crate::for_both_servers!(
    event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own,
    ten_thousand_clients_that_leave_at_random_leave_nothing_behind,
);

/// Gunicorn's own worker class has its own HTTP server.
mod asgi {
    #[test]
    fn event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own() {
        super::event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own("asgi");
    }

    #[test]
    fn ten_thousand_clients_that_leave_at_random_leave_nothing_behind() {
        super::ten_thousand_clients_that_leave_at_random_leave_nothing_behind("asgi");
    }
}

#[test]
fn a_refused_stream_gets_the_whole_response() {
    let Some((mut running, _)) = start("granian", &["--workers", "1", "--max-streams", "1"]) else { return };
    let _open = open_stream(running.port, "/sse", "");
    wait_until("the stream to be counted", || streams(&running) == 1);
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", running.port)).unwrap());
    stream.get_mut().write_all(b"GET /sse HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        line.contains(" 503 ") && rest.contains("retry-after: 1") && rest.ends_with("in a moment.\n"),
        "{line}{rest}"
    );
    running.stop();
}
