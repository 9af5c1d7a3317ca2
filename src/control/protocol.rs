//! Requests to a running launcher and its responses: one JSON object each, on one line.
//!
//! `status --json` and `explain --running --json` print these keys, and [`super::stacks`] those of `stacks --json`, so they
//! must not change.

mod rates;
mod stacks;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::end::End;
use crate::settings::value::Server;
pub use rates::{Bucket, Histogram, Recent, Requests};
pub use stacks::{StackAnswer, StackState};

/// A request: `{"request":"reload","server":"granian"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The state of the launcher.
    Status,
    /// Hand over to a new generation; answered once the outcome is decided.
    Reload {
        /// The server to switch to.
        #[serde(default, with = "server_word", skip_serializing_if = "Option::is_none")]
        server: Option<Server>,
    },
    /// The plan in force.
    Explain,
    /// Whether the service is ready for requests.
    Ready,
    /// Where to check whether workers respond.
    Live,
    /// What workers are doing; answered once they have answered, or time is up.
    Stacks {
        /// Which; none for all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pids: Vec<i32>,
    },
}

/// A response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Reload`]: a new generation serves.
    Reloaded {
        /// Its number.
        generation: u32,
        /// Its server, with the version if known: `granian/2.8.7`.
        server: String,
        /// Its workers.
        workers: u32,
    },
    /// To [`Request::Reload`]: no new generation serves.
    Kept {
        /// Why.
        why: String,
        /// Whether the old one has ended as well, so that nothing serves. Launchers of earlier releases do not say it.
        #[serde(default)]
        is_down: bool,
    },
    /// To [`Request::Explain`].
    Plan(Box<LivePlan>),
    /// To [`Request::Ready`].
    Ready {
        /// Yes or no.
        ready: bool,
        /// What the launcher is doing, in a few words.
        phase: String,
    },
    /// To [`Request::Live`].
    Live(Live),
    /// To [`Request::Stacks`]: those that there are of these workers.
    Stacks(Vec<StackAnswer>),
    /// To [`Request::Live`] before the first start: no worker could respond yet.
    Preparing {
        /// What is being done.
        phase: String,
    },
    /// To requests that were not understood or are not allowed.
    Refused {
        /// Why.
        why: String,
    },
}

/// Whether workers are alive according to their own reports, and where to check whether they respond.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Whether there is a server at all.
    pub server: bool,
    /// How long ago a worker's event loop last ran; the most recent of all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds_ago: Option<f64>,
    /// What the launcher is doing, in one word.
    pub phase: String,
    /// Where it serves: `127.0.0.1:4444`, `unix:/path`.
    pub address: String,
    /// The path to request.
    pub path: String,
    /// Whether it serves TLS.
    pub tls: bool,
    /// Whether it only speaks HTTP/2 without TLS.
    pub h2c: bool,
}

/// The state of the launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The launcher itself.
    pub launcher: Launcher,
    /// Where clients arrive.
    pub address: String,
    /// How many more failures are allowed at this moment.
    pub restarts_left: u32,
    /// All failures of the server since the start.
    pub failures: u64,
    /// Workers that ended while their generation served, by cause, since the start.
    pub worker_exits: BTreeMap<String, u64>,
    /// The outcome of requests in all workers since the start, as far as they report it.
    pub requests: Requests,
    /// How long requests took in all workers since the start.
    #[serde(default)]
    pub request_duration: Histogram,
    /// What happened in the last seconds, in all workers that exist.
    #[serde(default)]
    pub recent: Recent,
    /// The current generations, oldest first.
    pub generations: Vec<Generation>,
    /// How the last workers and servers ended, the last one last. Not at the address of the metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Vec<End>>,
}

/// The launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launcher {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: f64,
    /// `starting`, `serving`, `waiting` (for the next respawn) or `stopping`.
    pub phase: String,
    /// Whether the service is ready for requests.
    pub ready: bool,
}

/// One run of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts from 1.
    pub id: u32,
    /// `gunicorn` or `granian`.
    pub server: String,
    /// Its version, if known.
    pub version: Option<String>,
    /// `starting`, `serving`, `orphaned` (its main process has ended, its workers serve) or `draining`.
    pub state: String,
    /// Since its start.
    pub age_seconds: f64,
    /// Its main process, if it is alive.
    pub main_pid: Option<i32>,
    /// The planned number of workers.
    pub workers_planned: u32,
    /// The limit of requests in flight per worker, if there is one that is always the same.
    pub limit: Option<u64>,
    /// Whether each worker has a limit of its own that adapts.
    #[serde(default)]
    pub limit_adapts: bool,
    /// The memory limit that the number of workers was computed with, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// When the certificate that it serves with expires, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expiry_timestamp: Option<u64>,
    /// The current workers.
    pub workers: Vec<Worker>,
    /// Workers that ended while it served.
    pub restarts: u64,
    /// The last of those.
    pub last_exit: Option<WorkerExit>,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its process.
    pub pid: i32,
    /// Since its start.
    pub age_seconds: f64,
    /// Resident memory, including shared pages.
    pub rss_bytes: u64,
    /// CPU time, user and system.
    pub cpu_seconds: f64,
    /// What it reports, if the guard is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// What a worker reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// `starting`, `warming-up`, `ready` or `stopping`.
    pub state: String,
    /// Whether it gets new clients, if the launcher distributes them: `dealt`, or why not: `full`, `silent`, `leaving`,
    /// `starting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
    /// How long ago its event loop last ran. Much more than a second means that the loop is blocked.
    pub heartbeat_seconds_ago: f64,
    /// The latest event loop lag.
    pub lag_seconds: f64,
    /// The highest event loop lag.
    pub most_lag_seconds: f64,
    /// Requests in progress.
    pub in_flight: u32,
    /// How many it may have, if that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Why it is this many, if the limit adapts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_because: Option<String>,
    /// The highest number of concurrent requests.
    pub high_water: u32,
    /// Open event streams and web sockets.
    pub streams: u32,
    /// Requests that have taken longer than `request_timeout` and do not end.
    #[serde(default)]
    pub stuck: u32,
    /// Whether it uses a processor although it has nothing to do, for longer than `spin_after`.
    #[serde(default)]
    pub spinning: bool,
    /// Open connections, as its server or the kernel counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// The outcome of its requests.
    #[serde(flatten)]
    pub requests: Requests,
    /// What happened in the last seconds.
    #[serde(default)]
    pub recent: Recent,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerExit {
    /// Its process, which has ended.
    pub pid: i32,
    /// `exit`, `signal`, `oom`, `hung`, `rss`, `age`, `requests`, `stuck` (replaced because of that limit) or `spin` (replaced
    /// because it used a processor with nothing to do), or `unknown`.
    pub cause: String,
    /// Its exit status, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The signal that ended it, if one did: `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Its age at the end.
    pub age_seconds: f64,
    /// How long ago that was.
    pub seconds_ago: f64,
}

/// The limits from which a plan was computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanLimits {
    /// Cores that can be used.
    pub cores: f64,
    /// The memory limit, if there is one.
    pub memory_bytes: Option<u64>,
    /// How long ago they were read.
    pub seconds_ago: Option<f64>,
}

/// The plan in force. Secrets are redacted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LivePlan {
    /// `gunicorn` or `granian`.
    pub server: String,
    /// Its version, if known.
    pub version: Option<String>,
    /// The application, including the attribute.
    pub app: String,
    /// Where clients arrive.
    pub address: String,
    /// Whether it serves TLS there.
    pub tls: bool,
    /// The planned number of workers.
    pub workers: u32,
    /// The limits for which this number was chosen.
    pub limits: PlanLimits,
    /// The file that is executed.
    pub program: String,
    /// Its arguments, the program's name first.
    pub argv: Vec<String>,
    /// Its working directory, if it differs from the launcher's.
    pub cwd: Option<String>,
    /// Variables that its environment adds or changes, compared with the launcher's.
    pub environment: BTreeMap<String, String>,
    /// Variables that its environment lacks, compared with the launcher's.
    pub environment_removed: Vec<String>,
    /// Why the plan is what it is.
    pub reasons: Vec<Decision>,
    /// Warnings: what is odd but did not prevent the start.
    pub warnings: Vec<String>,
    /// The current generations, oldest first.
    pub generations: Vec<Generation>,
}

/// One decision of the plan.
#[allow(clippy::struct_field_names, reason = "the names are keys of the protocol")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided, in one word.
    pub topic: String,
    /// The decision.
    pub decision: String,
    /// Every input, and the one that was decisive.
    pub because: String,
}

impl Request {
    /// Parses the line that a client sent.
    ///
    /// # Errors
    /// Why it is not a request.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
    }
}

/// A value as the one line that is sent over the socket.
#[must_use]
pub fn line(value: &impl Serialize) -> Vec<u8> {
    // These types have string keys and no other way to fail.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

mod server_word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::settings::value::{Server, Value};

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(server: &Option<Server>, to: S) -> Result<S::Ok, S::Error> {
        match server {
            Some(server) => to.serialize_str(server.word()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Server>, D::Error> {
        let word = Option::<String>::deserialize(from)?;
        let parse = |word: String| {
            Server::parse(&word)
                .map_err(|_| D::Error::custom(format!("server is {word:?}; use {}", Server::expected())))
        };
        word.map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_written_as_they_are_read() {
        let granian = Some(Server::Granian);
        for (request, text) in [
            (Request::Status, r#"{"request":"status"}"#),
            (Request::Reload { server: None }, r#"{"request":"reload"}"#),
            (Request::Reload { server: granian }, r#"{"request":"reload","server":"granian"}"#),
            (Request::Live, r#"{"request":"live"}"#),
            (Request::Stacks { pids: Vec::new() }, r#"{"request":"stacks"}"#),
            (Request::Stacks { pids: vec![7] }, r#"{"request":"stacks","pids":[7]}"#),
        ] {
            assert_eq!(line(&request), format!("{text}\n").into_bytes());
            assert_eq!(Request::read(text.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        for text in
            ["", "{}", "status", r#"{"request":"dance"}"#, r#"{"request":"reload","server":"apache"}"#, "\u{0}"]
        {
            let why = Request::read(text.as_bytes()).unwrap_err();
            assert!(why.starts_with("not a request: "), "{why}");
        }
        let why = Request::read(br#"{"request":"reload","server":"apache"}"#).unwrap_err();
        assert!(why.contains("gunicorn, granian"), "{why}");
    }

    #[test]
    fn a_launcher_of_an_earlier_release_is_understood() {
        let answer = serde_json::from_str::<Answer>(r#"{"kept":{"why":"it is broken"}}"#);
        assert_eq!(answer.unwrap(), Answer::Kept { why: "it is broken".to_owned(), is_down: false });
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(bytes: Vec<u8>) {
            let _ = Request::read(&bytes);
        }

        #[test]
        fn an_answer_is_one_line(why: String) {
            let answer = Answer::Kept { why, is_down: false };
            let bytes = line(&answer);
            prop_assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
            prop_assert_eq!(serde_json::from_slice::<Answer>(&bytes).unwrap(), answer);
        }
    }
}
