//! Which worker gets a client: all get their share, and only those that can take clients get any.

mod crowd;
mod granian;
mod gunicorn;
mod status;
mod surroundings;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::http::get;
use crate::harness::{Launch, Running, tests_directory, venv};
use nix::unistd::Pid;

/// A real server with four workers, ready.
pub fn four_workers(server: &str, arguments: &[&str]) -> Option<Running> {
    let arguments: Vec<&str> = ["--workers", "4"].iter().chain(arguments).copied().collect();
    let mut running = Launch::app(&venv()?, server, &arguments).in_turn().start();
    running.wait_log("ready generation=");
    Some(running)
}

/// The process of the worker that answers.
pub fn a_worker(port: u16) -> Pid {
    let answer = get(port, "/pid").unwrap().body;
    Pid::from_raw(answer.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
}

/// Makes this many requests on fresh connections; returns who answered, and how long the slowest response took.
pub fn ask_fresh(port: u16, requests: usize) -> (BTreeMap<String, u32>, Duration) {
    let mut counts = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let begin = Instant::now();
        let answer = get(port, "/pid").unwrap();
        assert_eq!(answer.status, 200);
        slowest = slowest.max(begin.elapsed());
        *counts.entry(answer.body).or_default() += 1;
    }
    (counts, slowest)
}

/// The number of workers in these tests.
const WORKERS: u32 = 4;
/// Keep-alive clients.
const CLIENTS: u32 = 64;

/// Medians of five trials: how many of the keep-alive clients the worker with the most has, as a multiple of the mean;
/// when they come one by one, and at once.
#[derive(Debug)]
struct Spread {
    one_by_one: f64,
    at_once: f64,
}

impl Spread {
    fn measure(address: &str, security: &str) -> Self {
        let trials = |order| {
            let output = Command::new(venv().unwrap().join("bin/python"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/dealing/clients.py"))
                .args([address, security, order, &CLIENTS.to_string(), &WORKERS.to_string(), "5"])
                .current_dir(tests_directory("apps"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let mut found: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(found.len(), 5, "{}", String::from_utf8_lossy(&output.stderr));
            found.sort_by(f64::total_cmp);
            found[2]
        };
        Self { one_by_one: trials("one-by-one"), at_once: trials("at-once") }
    }

    #[track_caller]
    fn assert_even(&self, case: &str) {
        eprintln!("{case}: {self:?}");
        assert!(self.one_by_one <= 1.5 && self.at_once <= 1.75, "{case}: {self:?}");
    }
}
