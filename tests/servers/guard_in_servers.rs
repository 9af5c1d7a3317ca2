//! What the guard admits and passes on, inside the real servers: streams of every method, the health path wherever the
//! app is mounted, and the app's own attributes for Gunicorn's hooks.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::harness::http::{Answer, get, open_stream, open_stream_with};
use crate::harness::{Launch, Running, take_turn, wait_until};

use super::overload::{in_flight, launch, start, streams};

crate::for_every_kind!(
    a_stream_that_answers_a_post_counts_until_it_ends,
    the_health_path_is_never_refused_under_a_root_path
);

/// Granian by itself says that the client has gone.
#[test]
fn an_app_under_granian_may_call_receive_several_times_at_once_and_cancel_a_call() {
    let Some(venv) = crate::harness::venv() else { return };
    let mut launch = Launch::new(&["--server", "granian", "--workers", "1", "receive:app"]);
    launch.command.env("VIRTUAL_ENV", venv).env("PYTHONPATH", crate::harness::tests_directory("apps"));
    let mut running = launch.start();
    running.wait_log("ready generation=1");
    for path in ["/", "/cancelled"] {
        for _ in 0..5 {
            assert_eq!(get(running.port, path).unwrap().body, "http.request nothing nothing", "{path}");
        }
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_stream_that_answers_a_post_counts_until_it_ends(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "1", "--backpressure", "2"]) else { return };
    let port = running.port;
    let open = || open_stream_with("POST", port, "/sse", "Content-Length: 0\r\n");
    let idle = open_stream(port, "/sse", "");
    wait_until("the stream that answers a GET to leave the count", || {
        (in_flight(&running), streams(&running)) == (0, 1)
    });
    let work = (open(), open());
    wait_until("both answers to count", || (in_flight(&running), streams(&running)) == (2, 1));
    assert_eq!(get(port, "/").unwrap().status, 503);
    assert_eq!(get(port, "/sse").unwrap().status, 503);
    drop(work.0);
    wait_until("one to be over", || in_flight(&running) == 1);
    assert_eq!(get(port, "/").unwrap().status, 200);
    drop((work.1, idle));
    wait_until("all to be over", || (in_flight(&running), streams(&running)) == (0, 0));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The app mounted under `/api`, as configured for each server.
fn mounted(server: &str) -> Option<(Launch, PathBuf)> {
    let (launch, gate) = launch(server, "overload:app", &["--workers", "1", "--backpressure", "1"])?;
    let file = match server {
        "gunicorn" => {
            "from uvicorn_worker import UvicornWorker\nUvicornWorker.CONFIG_KWARGS = \
             {**UvicornWorker.CONFIG_KWARGS, 'root_path': '/api'}\n"
        }
        "asgi" => "root_path = '/api'\n",
        _ => return Some((launch.env("GRANIAN_URL_PATH_PREFIX", "/api"), gate)),
    };
    std::fs::write(launch.directory.path().join("gunicorn.conf.py"), file).unwrap();
    Some((launch, gate))
}

/// A request that waits for its gate, in its own thread.
fn occupy(running: &Running, path: &'static str) -> JoinHandle<Answer> {
    let port = running.port;
    let client = std::thread::spawn(move || get(port, path).unwrap());
    wait_until("the worker to be full", || in_flight(running) == 1);
    client
}

fn the_health_path_is_never_refused_under_a_root_path(server: &str) {
    let _turn = take_turn();
    let Some((launch, gate)) = mounted(server) else { return };
    let mut running = launch.start();
    running.wait_log(" ready ");
    // Uvicorn and Gunicorn are behind a proxy that removes the prefix, or keeps it; Granian expects it.
    let (waiting, paths): (_, &[&str]) = match server {
        "granian" => ("/api/wait", &["/api/health"]),
        "asgi" => ("/wait", &["/health", "/api/health"]),
        _ => ("/wait", &["/health"]),
    };
    let client = occupy(&running, waiting);
    assert_eq!(get(running.port, waiting).unwrap().status, 503);
    for path in paths {
        assert_eq!(get(running.port, path).unwrap().status, 200, "{path}");
    }
    std::fs::write(gate, "").unwrap();
    assert_eq!(client.join().unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// An app as in frameworks: an object with attributes and methods that hooks use.
const FRAMEWORK: &str = "
from overload import app as serve

class Framework:
    def __init__(self):
        self.routes, self.state = ['/'], {}

    def include(self, route):
        self.routes.append(route)
        return len(self.routes)

    async def __call__(self, scope, receive, send):
        await serve(scope, receive, send)

app = Framework()
";

const HOOKS: &str = "
def post_worker_init(worker):
    from framework import Framework
    app = worker.app.callable
    app.state['pid'] = worker.pid
    app.name = 'named'
    seen = (app.include('/more'), app.routes, isinstance(app, Framework), worker.app.wsgi().name)
    worker.log.info('hook saw %s', seen)
    worker.log.info('and kept %s', len(app.state))
";

fn hooks_see_the_app(class: &str, preload: bool) {
    let preload = format!("--preload-app={preload}");
    let arguments = ["--workers", "1", "--worker-class", class, "--backpressure", "1", &preload];
    let Some((launch, _)) = launch("gunicorn", "framework:app", &arguments) else { return };
    std::fs::write(launch.directory.path().join("framework.py"), FRAMEWORK).unwrap();
    std::fs::write(launch.directory.path().join("gunicorn.conf.py"), HOOKS).unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    running.wait_log("hook saw (2, ['/', '/more'], True, 'named')");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0);
    assert!(running.log().contains("and kept 1"), "{}", running.log());
    assert!(!running.log().contains("Traceback"), "{}", running.log());
}

#[test]
fn hooks_see_the_app_in_uvicorns_worker() {
    hooks_see_the_app("uvicorn_worker.UvicornWorker", false);
}

#[test]
fn hooks_see_the_app_in_gunicorns_own_worker_when_it_is_preloaded() {
    hooks_see_the_app("asgi", true);
}
