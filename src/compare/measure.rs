//! What is measured of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::load::Outcome;
use crate::problem::Exit;
use crate::settings::value::Server;

/// A server as it will be run, and how it is started.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// Which.
    #[serde(serialize_with = "word")]
    pub server: Server,
    /// Its version, if it could be found out.
    pub version: Option<String>,
    /// Gunicorn's worker class.
    pub worker_class: Option<String>,
    /// How many workers.
    pub workers: u32,
    /// How many requests a worker may have at a time, if the guard limits that.
    pub limit: Option<u64>,
    /// The limit for the overload.
    #[serde(skip)]
    pub overload_limit: OverloadLimit,
    /// The flags of mcp-launch that start it.
    #[serde(skip)]
    pub flags: Vec<std::ffi::OsString>,
    /// The application and what follows it.
    #[serde(skip)]
    pub operands: Vec<std::ffi::OsString>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn word<S: Serializer>(server: &Server, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(server.word())
}

/// How many requests a worker may have at a time when there are more clients than the capacity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverloadLimit {
    /// The limit in force: under threads it may be lower than the backpressure.
    pub in_force: u64,
    /// The backpressure to set for this test, if the settings have no limit.
    pub backpressure: Option<u64>,
}

impl Subject {
    /// For a heading: `Gunicorn 27.0.1`.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.server.title();
        self.version.as_ref().map_or_else(|| name.to_owned(), |version| format!("{name} {version}"))
    }
}

/// Everything that was found out about one server.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The server.
    #[serde(flatten)]
    pub subject: Subject,
    /// The measurements of each round.
    pub rounds: Vec<Round>,
    /// The overload, once in each round.
    pub overloads: Vec<Overload>,
    /// The reload under load.
    pub reload: Option<Reload>,
    /// Whether it speaks HTTP/2 without TLS and without a proxy.
    pub http2: Option<bool>,
    /// Why the measurements are incomplete, if they are.
    pub failure: Option<Failure>,
}

impl Results {
    /// No measurements yet.
    #[must_use]
    pub const fn none(subject: Subject) -> Self {
        Self { subject, rounds: Vec::new(), overloads: Vec::new(), reload: None, http2: None, failure: None }
    }
}

/// Why a server could not be measured, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What happened.
    pub why: String,
    /// The exit status for it.
    #[serde(serialize_with = "code")]
    pub exit: Exit,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn code<S: Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}

/// One round: a server from its start to its stop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    /// From its start to the first response.
    pub start_seconds: f64,
    /// Before the first request.
    pub idle: Memory,
    /// The highest value under load.
    pub loaded: Memory,
    /// After the last request.
    pub after: Memory,
    /// All of these and some more, in the order of time.
    pub memory_over_time: Vec<MemorySample>,
    /// At each number of connections.
    pub loads: Vec<Measured>,
}

/// Memory in bytes, pages that several processes share counted once (PSS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of the launcher and all its descendants.
    pub total: u64,
    /// Of a worker, on average.
    pub worker: u64,
}

/// The memory at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemorySample {
    /// Since the start of the server.
    pub seconds: f64,
    /// The number of connections, under load.
    pub connections: Option<u32>,
    /// Of the launcher and all its descendants.
    pub total: u64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The number of connections.
    pub connections: u32,
    /// What the clients saw.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The CPU time of all the server's processes.
    pub cpu_seconds: f64,
}

impl Measured {
    /// Responses per second.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "no count of requests comes near to 2^52")]
    pub fn rate(&self) -> f64 {
        self.outcome.answered as f64 / self.outcome.seconds
    }

    /// CPU seconds per thousand responses, if there were any.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "no count of requests comes near to 2^52")]
    pub fn cpu_for_a_thousand(&self) -> Option<f64> {
        (self.outcome.answered > 0).then(|| self.cpu_seconds * 1000.0 / self.outcome.answered as f64)
    }
}

/// What happens beyond the capacity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overload {
    /// How many requests a worker may have at a time.
    pub limit: u64,
    /// Whether that was set for this test because the settings have none.
    pub limit_was_set: bool,
    /// Workers times the limit.
    pub capacity: u64,
    /// How many clients there were.
    pub connections: u32,
    /// How long each waited for a response.
    pub patience_seconds: f64,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From the end of the load until every request was answered again; none if that took too long.
    pub recovery_seconds: Option<f64>,
}

impl Overload {
    /// How long it took to recover, in seconds; the longest that was waited for, if it did not.
    #[must_use]
    pub fn recovery(&self) -> f64 {
        self.recovery_seconds.unwrap_or(RECOVERY.as_secs_f64())
    }

    /// The share of the requests that were neither answered nor refused at once.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "no count of requests comes near to 2^52")]
    pub fn lost_share(&self) -> f64 {
        let outcome = &self.outcome;
        let lost = outcome.timed_out + outcome.failed;
        let all = outcome.answered + outcome.rejected.unwrap_or(0) + lost;
        // No response at all counts as a complete loss.
        if all == 0 { 1.0 } else { lost as f64 / all as f64 }
    }
}

/// How long a server may take to recover.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// A reload while clients come and go, each with a connection of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reload {
    /// How long it took until the new generation served.
    pub seconds: f64,
    /// Why the old one was kept, if it was.
    pub kept: Option<String>,
    /// Requests during the reload, and until the old generation had ended.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// How they failed, and how often each way.
    pub causes: BTreeMap<String, u64>,
}
