//! Requests to a running launcher.

use std::process::{Command, Output};

use serde_json::Value;

use super::{PROGRAM, Running};

/// Another shell in the same container. It names the socket, which exists before the launcher is ready.
pub fn ask(running: &Running, arguments: &[&str]) -> Answer {
    let socket = running.directory.path().join(format!("mcp-launch-127.0.0.1-{}.sock", running.port));
    command(running, arguments).env("MCP_LAUNCH_SOCKET", socket).output().unwrap().into()
}

/// Whether a launcher's first generation has all its workers, and they are ready; without the guard, old enough to be.
/// Granian must not be asked to stop before that: it ends with 1 if it has not noticed a worker's end yet, and a worker
/// that is just starting misses the signal.
pub fn all_are_ready(running: &Running) -> bool {
    let status = ask(running, &["status", "--json"]).json();
    let generation = &status["generations"][0];
    let workers = generation["workers"].as_array().unwrap();
    let is_ready = |worker: &Value| match worker["load"]["state"].as_str() {
        Some(state) => state == "ready",
        None => worker["age_seconds"].as_f64().unwrap() > 2.0,
    };
    workers.len() as u64 == generation["workers_planned"].as_u64().unwrap() && workers.iter().all(is_ready)
}

/// The same as [`ask`], found by the port, and not started yet.
pub fn command(running: &Running, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("XDG_RUNTIME_DIR", running.directory.path())
        .env("PORT", running.port.to_string())
        .env("HOST", "127.0.0.1")
        .args(arguments);
    command
}

/// The outcome of a command.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub problem: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), problem: text(&output.stderr) }
    }
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
