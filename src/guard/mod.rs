//! The guard: our Python code inside each worker, and the memory through which it reports the worker's state.
//!
//! It is a Python module that the server imports instead of the app. It calls the app for each request, counts the
//! requests in progress, and answers 503 itself once the worker has as many as it may have. Its settings are part of its
//! text. It travels in a zip archive in a memory file, which is found through `PYTHONPATH`; the first of these modules to
//! be imported removes that entry and loads the others in advance (`plan/modules.py`), so that the app never sees it and
//! workers that have changed their user do not need to open it. The entry contains the pid of the main process because
//! `/proc/self` is another directory in a spawned worker.
//!
//! It imports the app at the moment the server would have, through the server's own function: this supports the same
//! forms of APP and gives the same errors and exit statuses, and with preloading it happens in the same process.
//! Everything else begins with the first call, after the fork. Then the worker takes a slot on the scoreboard of its
//! generation ([`scoreboard`]), and reports its state there with plain stores; a timer in its event loop proves that the
//! loop is running. The same timer notices when launcher and main process are both gone, and ends the worker.
//!
//! A request counts until the app's coroutine has ended, in whatever way; a stream until its response has begun, a
//! WebSocket until it is accepted. An event stream that answers a POST is work and counts until it ends. Nothing is
//! awaited between counting and calling the app, so no cancellation can come between.
//!
//! The module consists of these files:
//!
//! | file | |
//! |---|---|
//! | `board.py` | the scoreboard, and waking the launcher |
//! | `siblings.py` | the other workers, as the board describes them |
//! | `loading.py` | importing the app |
//! | `stand_in.py` | what Gunicorn's hooks see instead of the app |
//! | `granian.py` | Granian's listening sockets |
//! | `accept.py` | accepting clients under Gunicorn |
//! | `headers.py` | reading the headers of responses |
//! | `leave.py` | closing connections and streams before the worker leaves |
//! | `guard.py` | the guard around the app |

pub mod scoreboard;

use std::fmt::Write as _;
use std::time::Duration;

use crate::settings::value::Server;

/// The module's name.
pub const MODULE: &str = "mcp_launch_guard";

/// The module's text below the constants, of which each file is a part.
pub const SOURCE: &str = concat!(
    include_str!("board.py"),
    "\n\n",
    include_str!("siblings.py"),
    "\n\n",
    include_str!("loading.py"),
    "\n\n",
    include_str!("stand_in.py"),
    "\n\n",
    include_str!("granian.py"),
    "\n\n",
    include_str!("headers.py"),
    "\n\n",
    include_str!("leave.py"),
    "\n\n",
    include_str!("guard.py"),
);

/// What is put in front of it where workers share a listening socket that they can accept from politely.
pub const ACCEPT: &str = include_str!("accept.py");

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
    /// Whether the workers deal clients out among themselves, see `MCP_LAUNCH_BALANCE`.
    pub deals: bool,
    /// The number of the [scoreboard](scoreboard)'s descriptor, if there is one.
    pub board: Option<i32>,
    /// The number of the descriptor over which the launcher asks for a copy of a listening socket, if it does.
    pub line: Option<i32>,
    /// The numbers of the descriptors of the workers' own listening sockets, in the order of the workers, if each has one
    /// from us.
    pub listeners: Vec<i32>,
    /// The length of their queues.
    pub backlog: u32,
    /// After how many requests a worker wakes the launcher to be replaced.
    pub max_requests: Option<MaxRequests>,
    /// The number of the descriptor through which a worker wakes the launcher, if it is to.
    pub poke: Option<i32>,
    /// The time between two heartbeats.
    pub beat: Duration,
    /// How long a worker may finish its requests when nobody is left to end it.
    pub grace: Duration,
}

/// After how many requests a worker is replaced. Each worker draws its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxRequests {
    /// At least so many.
    pub least: u32,
    /// At most so many more.
    pub jitter: u32,
}

impl MaxRequests {
    /// The limit that these settings mean; none for 0.
    #[must_use]
    pub fn new(least: u64, jitter: u64) -> Option<Self> {
        let [least, jitter] = [least, jitter].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        (least > 0).then_some(Self { least, jitter })
    }
}

impl Config {
    /// The module's text.
    #[must_use]
    pub fn source(&self) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let descriptor = |number: Option<i32>| number.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let truth = |truth| if truth { "True" } else { "False" };
        let exempt: String = self.exempt.iter().map(|prefix| literal(prefix) + ", ").collect();
        let listeners: Vec<String> = self.listeners.iter().map(|number| format!("{number},")).collect();
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
            ("DEALS", truth(self.deals).into()),
            ("BOARD", descriptor(self.board)),
            ("LINE", descriptor(self.line)),
            ("LISTENERS", format!("({})", listeners.join(" "))),
            ("BACKLOG", self.backlog.to_string()),
            (
                "MAX_REQUESTS",
                self.max_requests
                    .map_or_else(|| "None".to_owned(), |most| format!("({}, {})", most.least, most.jitter)),
            ),
            ("POKE", descriptor(self.poke)),
            ("BEAT", self.beat.as_secs_f64().to_string()),
            ("GRACE", self.grace.as_secs_f64().to_string()),
        ];
        let mut text =
            String::from("\"\"\"The guard that mcp-launch puts around the app, made for one server.\"\"\"\n\n");
        for (name, value) in constants {
            let _ = writeln!(text, "{name} = {value}");
        }
        text.push('\n');
        if self.deals {
            text += ACCEPT;
            text += "\n\n";
        }
        text + SOURCE
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
