//! More concurrent requests than the workers may have.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::ask::ask;
use crate::harness::http::{answer, get, request};
use crate::harness::stopwatch::Stopwatch;
use crate::harness::{Launch, Running, wait_until};

/// Requests on fresh connections, which stay in progress until the gate is opened.
pub struct Crowd {
    pub running: Running,
    gate: PathBuf,
    clients: Vec<TcpStream>,
}

impl Crowd {
    pub const LIMIT: usize = 16;

    /// Clients of a server that is about to be started.
    pub fn new(mut launch: Launch) -> Self {
        launch.command.args(["--backpressure", &Self::LIMIT.to_string()]);
        let gate = launch.directory.path().join("gate");
        let launch = launch.replacing_argument("hello:app", "overload:app");
        let mut running = launch.env("GATE", &gate).start();
        running.wait_log("ready generation=");
        Self { running, gate, clients: Vec::new() }
    }

    /// Adds this many, with a pause between each two.
    pub fn come(&mut self, count: usize, pause: Duration) {
        for _ in 0..count {
            let mut client = TcpStream::connect(("127.0.0.1", self.running.port)).unwrap();
            request(&mut client, "/wait");
            self.clients.push(client);
            std::thread::sleep(pause);
        }
    }

    pub fn in_flight(&self) -> u64 {
        let status = ask(&self.running, &["status", "--json"]).json();
        let workers = status["generations"][0]["workers"].as_array().unwrap().clone();
        workers.iter().filter_map(|worker| worker["load"]["in_flight"].as_u64()).sum()
    }

    pub fn rejected(&self) -> u64 {
        ask(&self.running, &["status", "--json"]).json()["requests"]["rejected"].as_u64().unwrap()
    }

    /// Opens the gate, and returns how many were answered.
    pub fn leave(&mut self) -> usize {
        std::fs::write(&self.gate, "").unwrap();
        let answered = self.clients.drain(..).filter_map(|client| answer(client).ok()).count();
        std::fs::remove_file(&self.gate).unwrap();
        wait_until("nobody to be inside", || self.in_flight() == 0);
        answered
    }
}

/// During saturation each refusal comes within 50 ms, a tenth of which is usual. Returns how many there were.
pub fn refusals_are_quick(crowd: &Crowd, class: &str) -> u64 {
    const REFUSALS: u64 = 20;
    let processes = crowd.running.descendants();
    for _ in 0..REFUSALS {
        let watch = Stopwatch::start(&processes);
        assert_eq!(get(crowd.running.port, "/").unwrap().status, 503, "{class}");
        let took = watch.elapsed();
        assert!(took <= Duration::from_millis(50), "{class}: {took:?}");
    }
    REFUSALS
}
