//! Gunicorn's workers, which share one socket and leave clients to less busy workers.

use std::time::Duration;

use super::crowd::{Crowd, refusals_are_quick};
use super::{Spread, WORKERS};
use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Connection, Load, get};
use crate::harness::stopwatch::Stopwatch;
use crate::harness::{Launch, Running, children, take_turn, tests_directory, venv, wait_until};
use crate::tls::certificates::pair;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Worker classes, and further arguments for Gunicorn: both with uvloop and with asyncio.
const KINDS: [(&str, &str); 4] = [
    ("uvicorn_worker.UvicornWorker", ""),
    ("uvicorn_worker.UvicornH11Worker", ""),
    ("asgi", ""),
    ("asgi", "--asgi-loop asyncio"),
];

fn launch(class: &str, arguments: &[&str]) -> Option<Launch> {
    let workers = WORKERS.to_string();
    let arguments = [&["--workers", &workers, "--worker-class", class, "--keep-alive", "30"], arguments].concat();
    Some(Launch::app(&venv()?, "gunicorn", &arguments))
}

fn ready(launch: Launch) -> Running {
    let mut running = launch.start();
    running.wait_log("ready generation=");
    wait_until("all workers", || all_are_ready(&running));
    running
}

fn local(running: &Running) -> String {
    format!("127.0.0.1:{}", running.port)
}

fn stop(mut running: Running) {
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

/// Classes whose servers do not tell the app that they start.
const WITHOUT_LIFESPAN: &str = "
from uvicorn_worker import UvicornWorker


class Off(UvicornWorker):
    CONFIG_KWARGS = {'loop': 'auto', 'http': 'auto', 'lifespan': 'off'}
";

#[test]
fn they_are_when_the_server_does_not_tell_the_app_that_it_starts() {
    let _turn = take_turn();
    for (class, options) in [("without_lifespan.Off", ""), ("asgi", "--asgi-lifespan off")] {
        let Some(launch) = launch(class, &[]) else { return };
        let directory = launch.directory.path().to_owned();
        std::fs::write(directory.join("without_lifespan.py"), WITHOUT_LIFESPAN).unwrap();
        let path = format!("{}:{}", directory.display(), tests_directory("apps").display());
        let running = ready(launch.env("GUNICORN_CMD_ARGS", options).env("PYTHONPATH", path));
        Spread::measure(&local(&running), "plain").assert_even(class);
        assert!(!running.log().contains("perhaps unevenly"), "{}", running.log());
        stop(running);
    }
}

#[test]
fn keep_alive_clients_are_spread_evenly() {
    let _turn = take_turn();
    for (class, options) in KINDS {
        let Some(launch) = launch(class, &[]) else { return };
        let running = ready(launch.env("GUNICORN_CMD_ARGS", options));
        Spread::measure(&local(&running), "plain").assert_even(&format!("{class} {options}"));
        assert!(!running.log().contains("perhaps unevenly"), "{}", running.log());
        stop(running);
    }
}

#[test]
fn they_are_with_tls_and_when_the_app_is_loaded_once() {
    let _turn = take_turn();
    for class in ["uvicorn_worker.UvicornWorker", "asgi"] {
        let Some(launch) = launch(class, &["--ssl", "--cert-file", "server.crt", "--key-file", "server.key"]) else {
            return;
        };
        pair(launch.directory.path(), "server");
        let running = ready(launch.env("GUNICORN_PRELOAD_APP", "true"));
        Spread::measure(&local(&running), "tls").assert_even(class);
        stop(running);
    }
}

#[test]
fn they_are_on_a_unix_socket() {
    let _turn = take_turn();
    for class in ["uvicorn_worker.UvicornWorker", "asgi"] {
        let Some(launch) = launch(class, &["--uds", "gateway.sock"]) else { return };
        let path = launch.directory.path().join("gateway.sock");
        let mut running = launch.start();
        running.wait_log("ready generation=");
        Spread::measure(path.to_str().unwrap(), "plain").assert_even(class);
        stop(running);
    }
}

#[test]
fn as_many_requests_are_let_in_as_all_workers_together_may_have_and_the_next_is_refused_at_once() {
    let _turn = take_turn();
    let capacity = Crowd::LIMIT * WORKERS as usize;
    for class in ["uvicorn_worker.UvicornWorker", "asgi"] {
        let Some(launch) = launch(class, &[]) else { return };
        let mut crowd = Crowd::new(launch);
        let mut rejected = 0;
        for (count, pause) in
            [(capacity * 3 / 4, 0), (capacity, 4), (capacity, 0), (capacity + 16, 4), (capacity + 16, 0)]
        {
            crowd.come(count, Duration::from_millis(pause));
            let inside = count.min(capacity);
            rejected += (count - inside) as u64;
            wait_until("everybody to be inside or refused", || {
                crowd.in_flight() >= inside as u64 && crowd.rejected() >= rejected
            });
            let found = (crowd.in_flight(), crowd.rejected());
            assert_eq!(found, (inside as u64, rejected), "{class} {count} {pause}");
            if count >= capacity {
                rejected += refusals_are_quick(&crowd, class);
            }
            assert_eq!(crowd.leave(), inside, "{class} {count} {pause}");
        }
        stop(crowd.running);
    }
}

/// Idle clients of all workers but one, which has none: it would be the first to accept.
fn with_an_idle_worker(class: &str) -> Option<(Running, Vec<Connection>, Pid)> {
    let running = ready(launch(class, &["--worker-timeout", "0"])?);
    let mut clients: Vec<(Connection, String)> = (0..24)
        .map(|_| {
            let mut client = Connection::open(running.port).unwrap();
            let worker = client.get("/pid", "").unwrap().body;
            (client, worker)
        })
        .collect();
    let chosen = clients[0].1.clone();
    clients.retain(|(_, worker)| *worker != chosen);
    let digits: String = chosen.chars().filter(char::is_ascii_digit).collect();
    Some((running, clients.into_iter().map(|(client, _)| client).collect(), Pid::from_raw(digits.parse().unwrap())))
}

/// Times of fresh requests, sorted; none may fail.
fn fresh_requests(running: &Running, count: usize) -> Vec<Duration> {
    let processes = running.descendants();
    let ask = |_| {
        let watch = Stopwatch::start(&processes);
        assert_eq!(get(running.port, "/").unwrap().status, 200);
        watch.elapsed()
    };
    let mut times: Vec<Duration> = (0..count).map(ask).collect();
    times.sort_unstable();
    times
}

#[test]
fn no_fresh_request_fails_or_waits_for_a_worker_that_is_stopped_or_asleep() {
    let _turn = take_turn();
    for class in ["uvicorn_worker.UvicornWorker", "asgi"] {
        for stopped in [true, false] {
            let Some((running, clients, idle)) = with_an_idle_worker(class) else { return };
            let mut asleep = Connection::open(running.port).unwrap();
            let pause = std::thread::spawn(move || if stopped { None } else { asleep.get("/block?s=4", "").ok() });
            if stopped {
                kill(idle, Signal::SIGSTOP).unwrap();
            }
            let times = fresh_requests(&running, 300);
            assert!(times[150] < Duration::from_millis(20), "{class} {stopped}: median {:?}", times[150]);
            assert!(times[297] < Duration::from_millis(500), "{class} {stopped}: {:?}", &times[280..]);
            if stopped {
                kill(idle, Signal::SIGCONT).unwrap();
            }
            pause.join().unwrap();
            drop(clients);
            stop(running);
        }
    }
}

#[test]
fn killed_and_new_workers_disturb_no_other() {
    let _turn = take_turn();
    let Some((running, clients, idle)) = with_an_idle_worker("uvicorn_worker.UvicornWorker") else { return };
    kill(idle, Signal::SIGKILL).unwrap();
    let times = fresh_requests(&running, 200);
    assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
    wait_until("its successor", || all_are_ready(&running));
    drop(clients);
    Spread::measure(&local(&running), "plain").assert_even("with a successor");
    stop(running);
}

#[test]
fn if_it_is_switched_off_everything_is_left_to_the_server() {
    let Some(launch) = launch("uvicorn_worker.UvicornWorker", &[]) else { return };
    let running = ready(launch.env("MCP_LAUNCH_BALANCE", "off"));
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    let status = ask(&running, &["status", "--json"]).json();
    assert!(status["generations"][0]["workers"][0]["load"]["clients"].is_null(), "{status}");
    assert!(ask(&running, &["explain", "--running"]).out.contains("balance = off"));
    stop(running);
}

/// A class that accepts itself, without its event loop's servers.
const OWN_CLASS: &str = "
import asyncio

from uvicorn.server import Server
from uvicorn_worker import UvicornWorker


class Own(UvicornWorker):
    async def _serve(self):
        self.config.app = self.wsgi
        self.config.load()
        state = Server(config=self.config).server_state
        lifespan = self.config.lifespan_class(self.config)
        await lifespan.startup()
        loop = asyncio.get_running_loop()
        asyncio.ensure_future(self._beat())

        def protocol():
            return self.config.http_protocol_class(config=self.config, server_state=state, app_state={})

        async def accept(listener):
            listener.setblocking(False)
            while True:
                connection, _ = await loop.sock_accept(listener)
                await loop.connect_accepted_socket(protocol, connection)

        await asyncio.gather(*(accept(each.sock) for each in self.sockets))

    async def _beat(self):
        while True:
            self.notify()
            await asyncio.sleep(1)
";

#[test]
fn a_worker_class_that_accepts_itself_is_left_alone_and_that_is_logged_once() {
    let Some(launch) = launch("own_class.Own", &[]) else { return };
    let directory = launch.directory.path().to_owned();
    std::fs::write(directory.join("own_class.py"), OWN_CLASS).unwrap();
    let path = format!("{}:{}", directory.display(), tests_directory("apps").display());
    let mut running = ready(launch.env("PYTHONPATH", path));
    let said = "clients are dealt out as the server does it";
    for _ in 0..40 {
        assert_eq!(get(running.port, "/").unwrap().status, 200);
    }
    running.wait_log(said);
    let workers = children(running.children()[0]);
    for worker in workers {
        let line = format!("worker {worker}: {said}");
        assert!(running.log().matches(&line).count() <= 1, "{}", running.log());
    }
    running.stop();
}

/// No request is lost when old workers stop accepting, and new ones begin.
#[test]
fn reloads_under_fresh_connections_lose_no_request() {
    for class in ["uvicorn_worker.UvicornWorker", "asgi"] {
        let Some(launch) = launch(class, &[]) else { return };
        let running = ready(launch);
        let load = Load::start(running.port, "/", 4);
        for _ in 0..3 {
            let answer = ask(&running, &["reload"]);
            assert_eq!(answer.code, Some(0), "{answer:?}");
            let before = load.answered();
            wait_until("answers", || load.answered() > before + 50);
        }
        load.assert_nothing_lost();
        stop(running);
    }
}
