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
//! Everything else begins with the first call, after the fork, or for WSGI when the worker is about to serve. Then the worker takes a slot on the scoreboard of its
//! generation ([`scoreboard`]), and reports its state there with plain stores; a timer in its event loop proves that the
//! loop is running. The same timer notices when both launcher and main process have ended, and ends the worker.
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
//! | `listening.py` | beginning before a server under Gunicorn listens |
//! | `accept.py` | when a worker accepts clients under Gunicorn |
//! | `listen.py` | how it accepts them |
//! | `idle.py` | which idle connections the server may close under Gunicorn |
//! | `headers.py` | reading the headers of responses |
//! | `leave.py` | closing connections and streams before the worker leaves |
//! | `latency.py` | how long requests take |
//! | `report.py` | its memory and its open requests, for the record of its end |
//! | `worker.py` | the worker, whatever its interface: slot, heartbeat, end |
//! | `warm_up.py`, `warm_up_wsgi.py` | requests to the app before the worker is ready |
//! | `request_timeout.py` | requests that take too long |
//! | `request_stack.py` | where a request is |
//! | `spin.py` | a processor that is used although there is nothing to do |
//! | `stacks.py` | what the worker is doing, when the launcher asks |
//! | `lifespan.py` | starting and stopping an ASGI app |
//! | `asgi.py` | the guard around an ASGI app |
//! | `timers.py` | timers where there is no event loop |
//! | `leave_wsgi.py` | ending the event streams of a WSGI app before the worker leaves |
//! | `wsgi.py` | the guard around a WSGI app |
//! | `wsgi_detection.py` | finding out whether server or app are for WSGI |
//! | `guard.py` | the names that servers import |

pub mod scoreboard;
pub mod stacks;

use std::fmt::Write as _;
use std::time::Duration;

use crate::settings::value::Server;

/// The module's name.
pub const MODULE: &str = "mcp_launch_guard";

/// The names of files, each with its text.
macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_str!($name))),+] };
}

/// The files of the module, in their order: their names, and their texts. They share their global names.
pub const FILES: &[(&str, &str)] = files![
    "board.py",
    "siblings.py",
    "loading.py",
    "stand_in.py",
    "granian.py",
    "listening.py",
    "headers.py",
    "leave.py",
    "latency.py",
    "open_requests.py",
    "report.py",
    "worker.py",
    "warm_up.py",
    "warm_up_wsgi.py",
    "request_stack.py",
    "request_timeout.py",
    "stacks.py",
    "spin.py",
    "lifespan.py",
    "asgi.py",
    "timers.py",
    "leave_wsgi.py",
    "wsgi.py",
    "wsgi_detection.py",
    "guard.py",
];

/// What comes before them where workers share a listening socket and accept for the server.
pub const ACCEPT: &[(&str, &str)] = files!["accept.py", "idle.py", "listen.py"];

/// The guard's settings. They are part of the module's text, so that neither the environment nor a file contains them.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The server, which decides how the app is imported.
    pub server: Server,
    /// The app, as the server would get it.
    pub app: String,
    /// Whether the server (Granian) would treat it as a factory.
    pub factory: bool,
    /// Whether the server would try to call what it imported, in case it is a factory. Uvicorn does.
    pub calls_factories: bool,
    /// Gunicorn's worker class, unless it is ours or a configuration file's.
    pub worker_class: Option<String>,
    /// Whether the workers serve WSGI apps; none if that is only known when Gunicorn's worker class is.
    pub wsgi: Option<bool>,
    /// How many requests a worker may have in flight.
    pub limit: Option<Limit>,
    /// How many event streams and web sockets a worker may have open.
    pub max_streams: Option<u64>,
    /// A path that is never refused.
    pub health_path: String,
    /// Beginnings of paths that are never refused.
    pub exempt: Vec<String>,
    /// What the app must have answered before a worker is ready.
    pub warm_up: WarmUp,
    /// How long requests may take, if any has a limit.
    pub time_limits: Option<TimeLimits>,
    /// Whether the workers deal clients out among themselves, see `MCP_LAUNCH_BALANCE`.
    pub deals: bool,
    /// The descriptor of the [scoreboard](scoreboard), if there is one.
    pub board: Option<i32>,
    /// The descriptor over which the launcher asks for a copy of a listening socket, if it does.
    pub line: Option<i32>,
    /// The descriptors of the workers' own listening sockets, in the order of the workers, if the launcher provides one
    /// for each.
    pub listeners: Vec<i32>,
    /// The length of their queues.
    pub backlog: u32,
    /// After how many requests a worker wakes the launcher to be replaced.
    pub max_requests: Option<MaxRequests>,
    /// The descriptor through which a worker wakes the launcher, if it does.
    pub poke: Option<i32>,
    /// The descriptor of the [memory](stacks) for their stacks, if there is one.
    pub stacks: Option<i32>,
    /// The interval at which a worker says that it uses a processor although it has nothing to do, if it does.
    pub spin: Option<Duration>,
    /// The time between two heartbeats.
    pub beat: Duration,
    /// How long a worker may finish its requests when neither the launcher nor the main process is left to end it.
    pub grace: Duration,
}

/// The interval at which a worker says that it uses a processor although it has nothing to do, where that is a fault
/// after this time. It is at least two heartbeats, so that one that comes a little too early for it is made up for by the next.
#[must_use]
pub fn spin_interval(after: Duration) -> Duration {
    (after / 8).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// How many requests a worker may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// At first.
    pub start: u64,
    /// Whether the launcher changes it: the limit in force is on the scoreboard.
    pub adapts: bool,
}

/// Requests to the app inside a new worker, with the values that the app sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WarmUp {
    /// Their paths, perhaps with a query.
    pub paths: Vec<String>,
    /// Whether the server serves TLS.
    pub is_https: bool,
    /// Where it listens: an address, or the path of a Unix socket.
    pub place: String,
    /// The port, unless it is a Unix socket or not known yet.
    pub port: Option<u16>,
}

impl WarmUp {
    /// The value of the header `Host`, as clients would send it.
    fn host(&self) -> String {
        match self.port {
            Some(port) if self.place.contains(':') => format!("[{}]:{port}", self.place),
            Some(port) => format!("{}:{port}", self.place),
            None => "localhost".to_owned(),
        }
    }
}

/// How long requests may take, to the end of their responses. Zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeLimits {
    /// The limit for paths that have none of their own.
    pub general: Duration,
    /// Beginnings of paths with their limits, the longest first: the first one that fits decides.
    pub by_path: Vec<(String, Duration)>,
}

impl TimeLimits {
    /// As a Python literal: nanoseconds, and pairs of a prefix and nanoseconds.
    fn literal(&self) -> String {
        let pairs =
            self.by_path.iter().map(|(prefix, limit)| format!("({}, {}), ", literal(prefix), limit.as_nanos()));
        format!("({}, ({}))", self.general.as_nanos(), pairs.collect::<String>())
    }
}

/// After how many requests a worker is replaced. Each worker draws its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxRequests {
    /// The minimum.
    pub least: u32,
    /// The maximum that is added at random.
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
            ("WSGI", self.wsgi.map_or("None", truth).into()),
            ("LIMIT", number(self.limit.map(|limit| limit.start))),
            ("ADAPTS", truth(self.limit.is_some_and(|limit| limit.adapts)).into()),
            ("MAX_STREAMS", number(self.max_streams)),
            ("HEALTH_PATH", literal(&self.health_path)),
            ("EXEMPT", format!("({exempt})")),
            (
                "WARM_UP",
                format!("({})", self.warm_up.paths.iter().map(|path| literal(path) + ", ").collect::<String>()),
            ),
            ("SCHEME", literal(if self.warm_up.is_https { "https" } else { "http" })),
            ("HOST", literal(&self.warm_up.host())),
            ("ADDRESS", format!("({}, {})", literal(&self.warm_up.place), number(self.warm_up.port.map(u64::from)))),
            ("TIME_LIMITS", self.time_limits.as_ref().map_or_else(|| "None".to_owned(), TimeLimits::literal)),
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
            (
                "STACKS",
                self.stacks.map_or_else(
                    || "None".to_owned(),
                    |fd| {
                        let [python, all, main] = [stacks::FOR_PYTHON, stacks::FOR_ALL, stacks::FOR_MAIN];
                        format!("({fd}, {python}, {all}, {main})")
                    },
                ),
            ),
            ("SPIN", self.spin.map_or_else(|| "None".to_owned(), |interval| interval.as_secs_f64().to_string())),
            ("BEAT", self.beat.as_secs_f64().to_string()),
            ("GRACE", self.grace.as_secs_f64().to_string()),
        ];
        let mut text =
            String::from("\"\"\"The guard that mcp-launch puts around the app, made for one server.\"\"\"\n\n");
        for (name, value) in constants {
            let _ = writeln!(text, "{name} = {value}");
        }
        // Each file is compiled by itself: compiling all of them at once takes 5 MiB more, which every worker keeps.
        for (name, content) in if self.deals { ACCEPT } else { &[] }.iter().chain(FILES) {
            let _ = writeln!(text, "exec(compile({}, \"{MODULE}/{name}\", \"exec\"))", literal(content));
        }
        text
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
