//! What the address of the metrics tells about the launcher: `status.json`. Pure.
//!
//! That address has no lock, so this is a list of what may be told there, and not the status with something removed: a
//! field that the status gets is not told here before it is added. There are no paths, neither of files nor of requests,
//! no stacks, and nothing from argv or the environment. The names are those of `status --json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::protocol::{Generation, Launcher, Load, Recent, Requests, Status, Worker, WorkerExit};

/// The state of the launcher.
#[derive(Debug, Serialize)]
pub struct PublicStatus<'a> {
    launcher: PublicLauncher<'a>,
    restarts_left: u32,
    failures: u64,
    worker_exits: &'a BTreeMap<String, u64>,
    requests: PublicRequests,
    recent: PublicRecent,
    generations: Vec<PublicGeneration<'a>>,
}

#[derive(Debug, Serialize)]
struct PublicLauncher<'a> {
    version: &'a str,
    uptime_seconds: f64,
    phase: &'a str,
    ready: bool,
}

#[derive(Debug, Serialize)]
struct PublicRequests {
    served: u64,
    rejected: u64,
}

#[derive(Debug, Serialize)]
struct PublicRecent {
    seconds: f64,
    requests_per_second: f64,
    rejected_per_second: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct PublicGeneration<'a> {
    id: u32,
    server: &'a str,
    version: Option<&'a str>,
    state: &'a str,
    age_seconds: f64,
    workers_planned: u32,
    limit: Option<u64>,
    limit_adapts: bool,
    memory_limit_bytes: Option<u64>,
    certificate_expiry_timestamp: Option<u64>,
    workers: Vec<PublicWorker<'a>>,
    restarts: u64,
    last_exit: Option<PublicExit<'a>>,
}

#[derive(Debug, Serialize)]
struct PublicWorker<'a> {
    pid: i32,
    age_seconds: f64,
    rss_bytes: u64,
    cpu_seconds: f64,
    load: Option<PublicLoad<'a>>,
}

#[derive(Debug, Serialize)]
struct PublicLoad<'a> {
    state: &'a str,
    clients: Option<&'a str>,
    heartbeat_seconds_ago: f64,
    lag_seconds: f64,
    most_lag_seconds: f64,
    in_flight: u32,
    limit: Option<u32>,
    limit_because: Option<&'a str>,
    high_water: u32,
    streams: u32,
    stuck: u32,
    connections: Option<u32>,
    #[serde(flatten)]
    requests: PublicRequests,
    recent: PublicRecent,
}

#[derive(Debug, Serialize)]
struct PublicExit<'a> {
    pid: i32,
    cause: &'a str,
    status: Option<u8>,
    signal: Option<&'a str>,
    age_seconds: f64,
    seconds_ago: f64,
}

impl<'a> From<&'a Status> for PublicStatus<'a> {
    fn from(status: &'a Status) -> Self {
        Self {
            launcher: (&status.launcher).into(),
            restarts_left: status.restarts_left,
            failures: status.failures,
            worker_exits: &status.worker_exits,
            requests: (&status.requests).into(),
            recent: (&status.recent).into(),
            generations: status.generations.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a Launcher> for PublicLauncher<'a> {
    fn from(launcher: &'a Launcher) -> Self {
        Self {
            version: &launcher.version,
            uptime_seconds: launcher.uptime_seconds,
            phase: &launcher.phase,
            ready: launcher.ready,
        }
    }
}

impl From<&Requests> for PublicRequests {
    fn from(requests: &Requests) -> Self {
        Self { served: requests.served, rejected: requests.rejected }
    }
}

impl From<&Recent> for PublicRecent {
    fn from(recent: &Recent) -> Self {
        Self {
            seconds: recent.seconds,
            requests_per_second: recent.requests_per_second,
            rejected_per_second: recent.rejected_per_second,
            p50_seconds: recent.p50_seconds,
            p99_seconds: recent.p99_seconds,
        }
    }
}

impl<'a> From<&'a Generation> for PublicGeneration<'a> {
    fn from(generation: &'a Generation) -> Self {
        Self {
            id: generation.id,
            server: &generation.server,
            version: generation.version.as_deref(),
            state: &generation.state,
            age_seconds: generation.age_seconds,
            workers_planned: generation.workers_planned,
            limit: generation.limit,
            limit_adapts: generation.limit_adapts,
            memory_limit_bytes: generation.memory_limit_bytes,
            certificate_expiry_timestamp: generation.certificate_expiry_timestamp,
            workers: generation.workers.iter().map(Into::into).collect(),
            restarts: generation.restarts,
            last_exit: generation.last_exit.as_ref().map(Into::into),
        }
    }
}

impl<'a> From<&'a Worker> for PublicWorker<'a> {
    fn from(worker: &'a Worker) -> Self {
        Self {
            pid: worker.pid,
            age_seconds: worker.age_seconds,
            rss_bytes: worker.rss_bytes,
            cpu_seconds: worker.cpu_seconds,
            load: worker.load.as_ref().map(Into::into),
        }
    }
}

impl<'a> From<&'a Load> for PublicLoad<'a> {
    fn from(load: &'a Load) -> Self {
        Self {
            state: &load.state,
            clients: load.clients.as_deref(),
            heartbeat_seconds_ago: load.heartbeat_seconds_ago,
            lag_seconds: load.lag_seconds,
            most_lag_seconds: load.most_lag_seconds,
            in_flight: load.in_flight,
            limit: load.limit,
            limit_because: load.limit_because.as_deref(),
            high_water: load.high_water,
            streams: load.streams,
            stuck: load.stuck,
            connections: load.connections,
            requests: (&load.requests).into(),
            recent: (&load.recent).into(),
        }
    }
}

impl<'a> From<&'a WorkerExit> for PublicExit<'a> {
    fn from(exit: &'a WorkerExit) -> Self {
        Self {
            pid: exit.pid,
            cause: &exit.cause,
            status: exit.status,
            signal: exit.signal.as_deref(),
            age_seconds: exit.age_seconds,
            seconds_ago: exit.seconds_ago,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::control::table::tests::status;

    /// What may be told. Before a name is added: can it never be a path, a stack, or something from argv or the
    /// environment?
    const TOLD: &[&str] = &[
        "launcher.version launcher.uptime_seconds launcher.phase launcher.ready",
        "restarts_left failures worker_exits.signal worker_exits.oom requests.served requests.rejected",
        "generations.id generations.server generations.version generations.state generations.age_seconds",
        "generations.workers_planned generations.limit generations.limit_adapts generations.memory_limit_bytes",
        "generations.certificate_expiry_timestamp generations.restarts",
        "generations.last_exit.pid generations.last_exit.cause generations.last_exit.status",
        "generations.last_exit.signal generations.last_exit.age_seconds generations.last_exit.seconds_ago",
        "generations.workers.pid generations.workers.age_seconds generations.workers.rss_bytes",
        "generations.workers.cpu_seconds generations.workers.load.state generations.workers.load.clients",
        "generations.workers.load.heartbeat_seconds_ago generations.workers.load.lag_seconds",
        "generations.workers.load.most_lag_seconds generations.workers.load.in_flight",
        "generations.workers.load.limit generations.workers.load.limit_because generations.workers.load.high_water",
        "generations.workers.load.streams generations.workers.load.stuck generations.workers.load.connections",
        "generations.workers.load.served generations.workers.load.rejected",
        "recent.seconds recent.requests_per_second recent.rejected_per_second recent.p50_seconds recent.p99_seconds",
        "generations.workers.load.recent.seconds generations.workers.load.recent.requests_per_second",
        "generations.workers.load.recent.rejected_per_second generations.workers.load.recent.p50_seconds",
        "generations.workers.load.recent.p99_seconds",
    ];

    /// The names of all values, and those that are not the same in the other.
    fn leaves(value: &Value, other: Option<&Value>, name: &str, names: &mut BTreeSet<String>) {
        let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    leaves(field, other.and_then(|other| other.get(key)), &below(key), names);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    leaves(item, other.and_then(|other| other.get(at)), name, names);
                }
            }
            // What is not known is left out of the status.
            _ => {
                assert_eq!(value, other.unwrap_or(&Value::Null), "{name}");
                names.insert(name.to_owned());
            }
        }
    }

    #[test]
    fn nothing_is_told_that_is_not_on_the_list() {
        let mut status = status();
        status.address = "unix:/run/secret.sock".into();
        let told = serde_json::to_value(PublicStatus::from(&status)).unwrap();
        let mut names = BTreeSet::new();
        leaves(&told, Some(&json!(status)), "", &mut names);
        let wanted: BTreeSet<String> = TOLD.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect();
        assert_eq!(names, wanted);
        assert!(!told.to_string().contains("secret") && !told.to_string().contains('/'), "{told}");
    }
}
