//! The guard: what of ours runs inside each worker, and the memory in which it tells us how the worker is.
//!
//! It is a Python module that the server imports in place of the app. It imports the app, and passes it what the
//! server says: but no more requests at a time than the worker may have. `guard.py` tells the rest.

pub mod scoreboard;

use std::fmt::Write as _;
use std::time::Duration;

use crate::settings::value::Server;

/// The module's name.
pub const MODULE: &str = "mcp_launch_guard";

const SOURCE: &str = include_str!("guard.py");

/// What the guard is told. It is part of the module's text, so that neither the environment nor a file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The server, which says how the app is imported.
    pub server: Server,
    /// The app, as the server would be told.
    pub app: String,
    /// Whether Granian would be told that it is a factory.
    pub factory: bool,
    /// Whether the server would try to call what it imported, in case it is a factory. Uvicorn does.
    pub calls_factories: bool,
    /// Gunicorn's worker class, unless it is ours or a configuration file's.
    pub worker_class: Option<String>,
    /// How many requests a worker may have in flight.
    pub limit: Option<u64>,
    /// How many event streams and web sockets a worker may have open.
    pub max_streams: Option<u64>,
    /// A path that is never refused.
    pub health_path: String,
    /// Beginnings of paths that are never refused.
    pub exempt: Vec<String>,
    /// The number of the [scoreboard](scoreboard)'s descriptor, if there is one.
    pub board: Option<i32>,
    /// The number of the descriptor over which the launcher asks for a copy of a listening socket, if it does.
    pub line: Option<i32>,
    /// The time between two heartbeats.
    pub beat: Duration,
    /// How long a worker may finish its requests when nobody is left to end it.
    pub grace: Duration,
}

impl Config {
    /// The module's text.
    #[must_use]
    pub fn source(&self) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let descriptor = |number: Option<i32>| number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let truth = |truth| if truth { "True" } else { "False" };
        let exempt: String = self.exempt.iter().map(|prefix| literal(prefix) + ", ").collect();
        let constants = [
            ("SERVER", literal(self.server.word())),
            ("APP", literal(&self.app)),
            ("FACTORY", truth(self.factory).into()),
            ("CALLS_FACTORIES", truth(self.calls_factories).into()),
            ("WORKER_CLASS", self.worker_class.as_deref().map_or_else(|| "None".to_owned(), literal)),
            ("LIMIT", number(self.limit)),
            ("MAX_STREAMS", number(self.max_streams)),
            ("HEALTH_PATH", literal(&self.health_path)),
            ("EXEMPT", format!("({exempt})")),
            ("BOARD", descriptor(self.board)),
            ("LINE", descriptor(self.line)),
            ("BEAT", self.beat.as_secs_f64().to_string()),
            ("GRACE", self.grace.as_secs_f64().to_string()),
        ];
        let mut text =
            String::from("\"\"\"The guard that mcp-launch puts around the app, made for one server.\"\"\"\n\n");
        for (name, value) in constants {
            let _ = writeln!(text, "{name} = {value}");
        }
        text + "\n" + SOURCE
    }
}

/// A Python literal of a text, in ASCII, whatever the text is.
#[must_use]
pub fn literal(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ => _ = write!(quoted, "\\U{:08x}", u32::from(letter)),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests;
