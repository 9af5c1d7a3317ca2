//! How long requests take, as the launcher reports it.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::harness::ask::ask;
use crate::harness::http::get;
use crate::harness::{Launch, Running, children, venv, wait_for, wait_until};

fn status(running: &Running) -> Value {
    ask(running, &["status", "--json"]).json()
}

/// A metric without labels, or with these.
fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Requests take 0.4 s, or less as the guard sees it: uvloop's timers begin when the loop began its current turn.
fn how_long_requests_take_is_reported_and_never_forgotten(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "2"]).start();
    running.wait_log(" ready ");
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
    for _ in 0..4 {
        assert_eq!(get(running.port, "/slow?s=0.4").unwrap().status, 200);
        assert_eq!(get(running.port, "/health").unwrap().status, 200);
    }
    drop(stream);
    let json = wait_for("all requests", || {
        Some(status(&running)).filter(|status| status["requests"]["served"].as_u64() >= Some(9))
    });
    assert_eq!(json["request_duration"]["count"], 4, "without streams and exempt requests: {json:#}");
    let sum = json["request_duration"]["sum_seconds"].as_f64().unwrap();
    assert!((0.8..40.0).contains(&sum), "{sum}");
    let recent = &json["recent"];
    let [p50, p99] = ["p50_seconds", "p99_seconds"].map(|name| recent[name].as_f64().unwrap());
    assert!((0.2..5.0).contains(&p50) && p99 >= p50, "{recent}");
    assert!(recent["requests_per_second"].as_f64().unwrap() > 0.1, "{recent}");
    let workers = json["generations"][0]["workers"].as_array().unwrap();
    let timed = workers.iter().filter(|worker| worker["load"]["recent"]["p50_seconds"].as_f64() >= Some(0.2));
    assert!(timed.count() >= 1, "{workers:#?}");

    let histogram = || {
        let text = ask(&running, &["status", "--prometheus"]).out;
        let metric = |part: &str| metric(&text, &format!("mcp_launch_request_duration_seconds{part}"));
        [
            metric("_bucket{le=\"0.2\"}"),
            metric("_bucket{le=\"100\"}"),
            metric("_bucket{le=\"+Inf\"}"),
            metric("_count"),
        ]
    };
    assert_eq!(histogram(), [0, 4, 4, 4]);

    let killed = children(running.children()[0])[0];
    kill(killed, Signal::SIGKILL).unwrap();
    wait_until("its successor", || {
        let now = children(running.children()[0]);
        now.len() == 2 && !now.contains(&killed)
    });
    assert_eq!(histogram(), [0, 4, 4, 4], "a worker has ended");
    assert_eq!(ask(&running, &["reload"]).code, Some(0), "{}", running.log());
    wait_until("the end of the old generation", || status(&running)["generations"].as_array().unwrap().len() == 1);
    assert_eq!(histogram(), [0, 4, 4, 4], "a generation has ended");
    get(running.port, "/slow?s=0.4").unwrap();
    wait_until("the next request", || histogram()[3] >= 5);
    assert_eq!(running.stop(), 0);
}

crate::for_both_servers!(how_long_requests_take_is_reported_and_never_forgotten);
