//! HTTP/2, with and without TLS.

use super::certificates::{ask, curl, probe, start};
use crate::harness::{Launch, venv};

/// The version of HTTP that curl uses, by server and arguments.
#[test]
fn http_2_is_negotiated_where_it_is_to_be() {
    let asgi = ["--worker-class", "asgi", "--http", "2"];
    let servers = [
        ("granian", &[][..], "200 2"),
        ("granian", &["--http", "1"], "200 1.1"),
        ("granian", &["--http", "2"], "200 2"),
        ("gunicorn", &asgi, "200 2"),
        ("gunicorn", &["--http", "auto"], "200 1.1"),
    ];
    for (server, arguments, expected) in servers {
        let Some(mut running) = start(server, arguments, &[]) else { return };
        let (code, said) = curl(&running, "/", &["--cacert", "server.crt", "--http2"]);
        assert_eq!((code, said.as_str()), (0, expected), "{server} {arguments:?}\n{}", running.log());
        let (code, said) = probe(&running);
        assert!(code == 0 && said.contains("answered 200"), "{server} {arguments:?}: {said}");
        assert_eq!(running.stop(), 0);
    }
}

/// Without the guard, liveness needs a request.
#[test]
fn a_server_that_speaks_http_2_alone_and_in_clear_is_probed_in_it() {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, "granian", &["--workers", "1", "--http", "2", "--guard=off"]).start();
    running.wait_log(" ready ");
    let (code, said) = ask(&running, &["health", "--live"]);
    assert!(code == 0 && said.contains("answered 200"), "{said}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn where_gunicorn_cannot_speak_http_2_it_is_said_what_would_work() {
    let Some(venv) = venv() else { return };
    let plain = Launch::app(&venv, "gunicorn", &["--http", "2"]).finish();
    assert!(
        plain.code == 78 && plain.log.contains("needs TLS") && plain.log.contains("set SSL=true"),
        "{}",
        plain.log
    );
    let launch = super::certificates::launch("gunicorn", "server", &["--http", "2"]).unwrap();
    super::certificates::pair(launch.directory.path(), "server");
    let uvicorn = launch.finish();
    assert!(uvicorn.code == 78 && uvicorn.log.contains("GUNICORN_WORKER_CLASS=asgi"), "{}", uvicorn.log);
    assert!(uvicorn.log.contains("or use --server granian"), "{}", uvicorn.log);
}
