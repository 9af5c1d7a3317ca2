//! What `status` shows of each worker: its connections, and whether it gets new clients, with the same words everywhere.

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::Connection;
use crate::harness::{Launch, Running, take_turn, venv, wait_until};

const KINDS: [(&str, &str); 3] =
    [("gunicorn", "uvicorn_worker.UvicornWorker"), ("gunicorn", "asgi"), ("granian", "auto")];

/// Two workers that may have one request each.
fn start((server, class): (&str, &str), balance: &str) -> Option<Running> {
    let arguments = ["--workers", "2", "--worker-class", class, "--worker-timeout", "0"];
    let launch = Launch::app(&venv()?, server, &arguments);
    let launch = launch.env("MCP_LAUNCH_BALANCE", balance);
    let mut running = launch.env("GUNICORN_BACKPRESSURE", "1").env("GRANIAN_BACKPRESSURE", "1").start();
    running.wait_log("ready generation=");
    wait_until("all workers", || all_are_ready(&running));
    Some(running)
}

/// For each worker whether it gets new clients, and its connections.
fn workers(running: &Running) -> BTreeMap<i64, (Option<String>, Option<u64>)> {
    let status = ask(running, &["status", "--json"]).json();
    let workers = status["generations"][0]["workers"].as_array().unwrap().iter();
    let worker = |worker: &serde_json::Value| {
        let load = &worker["load"];
        let clients = load["clients"].as_str().map(str::to_owned);
        (worker["pid"].as_i64().unwrap(), (clients, load["connections"].as_u64()))
    };
    workers.map(worker).collect()
}

/// Whether workers get new clients: the words, as far as status tells, in order.
pub fn words(running: &Running) -> Vec<String> {
    let mut words: Vec<String> = workers(running).into_values().filter_map(|(clients, _)| clients).collect();
    words.sort();
    words
}

/// The process of a worker with this word.
fn with(running: &Running, word: &str) -> Pid {
    let found = workers(running).into_iter().find(|(_, (clients, _))| clients.as_deref() == Some(word));
    Pid::from_raw(found.unwrap().0.try_into().unwrap())
}

fn connections(running: &Running) -> u64 {
    workers(running).into_values().filter_map(|(_, connections)| connections).sum()
}

#[test]
fn each_worker_is_shown_with_its_connections_and_whether_it_gets_clients() {
    let _turn = take_turn();
    for kind in KINDS {
        let Some(mut running) = start(kind, "on") else { return };
        wait_until("both to get clients", || words(&running) == ["dealt", "dealt"]);
        let kept: Vec<Connection> = (0..6)
            .map(|_| {
                let mut client = Connection::open(running.port).unwrap();
                client.get("/", "").unwrap();
                client
            })
            .collect();
        wait_until("their connections", || connections(&running) == 6);
        drop(kept);
        wait_until("none any longer", || connections(&running) == 0);

        let mut slow = Connection::open(running.port).unwrap();
        slow.send("/slow?s=600").unwrap();
        wait_until("one to be full", || words(&running) == ["dealt", "full"]);
        let stopped = with(&running, "dealt");
        kill(stopped, Signal::SIGSTOP).unwrap();
        wait_until("the other to be silent", || words(&running) == ["full", "silent"]);
        let (table, metrics) = (ask(&running, &["status"]).out, ask(&running, &["status", "--prometheus"]).out);
        assert!(table.contains("CLIENTS  CONNS") && table.contains("silent"), "{table}");
        let silent = format!("worker_clients_info{{generation=\"1\",pid=\"{stopped}\",clients=\"silent\"}} 1");
        assert!(metrics.contains(&silent), "{metrics}");
        kill(stopped, Signal::SIGCONT).unwrap();
        wait_until("it to go on", || words(&running) == ["dealt", "full"]);

        // The app does not notice that the client has gone.
        drop(slow);
        kill(with(&running, "full"), Signal::SIGKILL).unwrap();
        wait_until("its successor", || words(&running) == ["dealt", "dealt"]);
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn where_clients_are_not_distributed_no_word_is_shown_and_connections_are() {
    let _turn = take_turn();
    for kind in KINDS {
        let Some(mut running) = start(kind, "off") else { return };
        let mut kept = Connection::open(running.port).unwrap();
        kept.get("/", "").unwrap();
        wait_until("its connection", || connections(&running) == 1);
        assert_eq!(words(&running), [] as [String; 0], "{kind:?}");
        drop(kept);
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}
