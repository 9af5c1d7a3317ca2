//! The status page at the address of the metrics: what is there and what is not, and how it looks in a real browser.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::browser::{Browser, browser};
use crate::harness::http::{get, get_with, open_stream};
use crate::harness::{Launch, Running, free_port, venv, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Two workers; returns the port of the metrics, too.
fn start(server: &str) -> Option<(Running, u16)> {
    let port = free_port();
    let launch = Launch::app(&venv()?, server, &["--workers", "2", "--pre-start", "true token-in-argv"]);
    let limit = format!("{}_BACKPRESSURE", server.to_ascii_uppercase());
    let launch = launch.env("MCP_LAUNCH_METRICS", format!("127.0.0.1:{port}")).env(&limit, "16");
    let mut running = launch.env("TOKEN", "token-in-environment").start();
    running.wait_log(" ready ");
    Some((running, port))
}

fn status(port: u16) -> Value {
    let answer = get(port, "/status.json").unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&answer.body).unwrap()
}

fn workers(port: u16) -> Vec<Value> {
    let status = status(port);
    let generations = status["generations"].as_array().unwrap();
    generations.iter().flat_map(|generation| generation["workers"].as_array().unwrap().clone()).collect()
}

#[test]
fn the_page_and_its_data_tell_no_paths_arguments_or_variables() {
    let Some((mut running, port)) = start("gunicorn") else { return };
    let _stream = open_stream(running.port, "/sse?key=token-in-query", "X-Key: token-in-header\r\n");
    wait_until("the stream to be seen", || workers(port).iter().any(|worker| worker["load"]["streams"] == 1));
    let generation = &status(port)["generations"][0];
    assert_eq!((&generation["limit"], &generation["state"]), (&16.into(), &"serving".into()));
    assert_eq!(workers(port).len(), 2);
    let directory = running.directory.path().to_str().unwrap().to_owned();
    for path in ["/", "/status.json", "/metrics"] {
        let answer = get(port, path).unwrap();
        for secret in ["token-in", "/sse", "hello:app", &directory] {
            assert!(!answer.body.contains(secret), "{path} tells {secret}: {}", answer.body);
        }
        // A stranger's page can neither read nor frame it.
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let page = get_with(port, "/", "Origin: http://example.com\r\nAccept: text/html\r\n").unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(running.stop(), 0);
}

/// A request, and everything that comes back until the connection is closed.
fn exchange(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_page_can_only_be_read() {
    let Some((mut running, port)) = start("granian") else { return };
    for (request, wanted) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"),
        ("POST /status.json HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("GET /reload HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("GET /../status.json HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let answer = exchange(port, request);
        assert!(answer.starts_with(wanted), "{request:?}: {answer}");
        assert!(!request.starts_with("HEAD") || answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert_eq!(running.stop(), 0);
}

/// Requests that are answered, so that the plots have something to show.
fn requests(port: u16, count: usize) {
    for _ in 0..count {
        assert_eq!(get(port, "/").unwrap().status, 200);
    }
}

#[test]
fn in_a_browser_a_killed_worker_is_seen() {
    let (Some(program), Some((mut running, port))) = (browser(), start("gunicorn")) else { return };
    let mut browser = Browser::start(&program, 1280, 900);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait_until("document.querySelector('#state').textContent === 'Ready'");
    browser.wait_until("document.querySelectorAll('tbody tr').length === 2");
    assert!(browser.text("#none").contains("No worker has ended"), "{}", browser.text("body"));
    requests(running.port, 200);
    let shown = |title| {
        format!(
            "[...document.querySelectorAll('figure')].some(it => it.textContent.includes('{title}') && /[1-9]/.test(it.querySelector('output').textContent))"
        )
    };
    browser.wait_until(&shown("Requests per second"));
    browser.wait_until(&shown("Latency"));
    let old = browser.text("tbody tr td:first-child").trim().trim_start_matches("Worker").trim().to_owned();
    kill(Pid::from_raw(old.parse().unwrap()), Signal::SIGKILL).unwrap();
    browser.wait_until("document.querySelector('#exits').textContent.includes('killed by SIGKILL')");
    assert!(browser.text("#exits").contains(&format!("worker {old}")), "{}", browser.text("#exits"));
    assert!(browser.text("#causes").contains("signal × 1"), "{}", browser.text("#causes"));
    browser.wait_until(&format!(
        "[...document.querySelectorAll('tbody tr')].filter(row => row.cells[1].textContent.includes('ready')).length === 2 \
         && !document.querySelector('tbody').textContent.includes('{old}')"
    ));
    browser.wait_until("document.querySelector('path.marks').getAttribute('d').startsWith('M')");
    for (colours, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.prefer(colours);
        browser.resize(width, 900);
        let fits = browser.value("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, Value::Bool(true), "wider than a screen of {width}");
        browser.picture(&format!("status-{colours}-{width}"));
    }
    assert_eq!(browser.complaints, [""; 0]);
    let own = format!("http://127.0.0.1:{port}/");
    let foreign: Vec<_> =
        browser.requested.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(running.stop(), 0);
    browser.wait_until("document.querySelector('#notice').textContent.startsWith('No answer from mcp-launch since')");
}
