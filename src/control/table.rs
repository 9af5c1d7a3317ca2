//! Status for people.

use std::fmt::Write;
use std::time::Duration;

use super::protocol::{Generation, Load, Status, WorkerExit};

/// The whole text.
#[must_use]
pub fn table(status: &Status) -> String {
    let launcher = &status.launcher;
    let ready = if launcher.ready { "ready" } else { "not ready" };
    let mut text = format!(
        "mcp-launch {}  pid {}  up {}  {}, {ready}\n\
         address {}  restarts left {}  failures {}  served {}  rejected {}\n",
        launcher.version,
        launcher.pid,
        span(launcher.uptime_seconds),
        launcher.phase,
        status.address,
        status.restarts_left,
        status.failures,
        status.requests.served,
        status.requests.rejected,
    );
    for generation in &status.generations {
        text.push('\n');
        text += &generation_lines(generation);
    }
    text
}

/// A generation and its workers.
pub(super) fn generation_lines(generation: &Generation) -> String {
    let server = match &generation.version {
        Some(version) => format!("{}/{version}", generation.server),
        None => generation.server.clone(),
    };
    let main = generation.main_pid.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
    let mut text = format!(
        "generation {}  {server}  {}  age {}  main {main}  workers {}/{}  restarts {}\n",
        generation.id,
        generation.state,
        span(generation.age_seconds),
        generation.workers.len(),
        generation.workers_planned,
        generation.restarts,
    );
    if let Some(exit) = &generation.last_exit {
        let (pid, age, ago) = (exit.pid, span(exit.age_seconds), span(exit.seconds_ago));
        let _ = writeln!(text, "  last worker exit: pid {pid}, {}, after {age}, {ago} ago", cause(exit));
    }
    let has_loads = generation.workers.iter().any(|worker| worker.load.is_some());
    let rows = generation.workers.iter().map(|worker| {
        let load = has_loads.then(|| worker.load.as_ref().map_or_else(|| LOAD.map(|_| "-".to_owned()), load_cells));
        let cpu = format!("{:.2}s", worker.cpu_seconds);
        let cells = [worker.pid.to_string(), span(worker.age_seconds), size(worker.rss_bytes), cpu];
        cells.into_iter().chain(load.into_iter().flatten()).collect()
    });
    let head = PROCESS.into_iter().chain(LOAD.into_iter().filter(|_| has_loads)).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    if rows.len() > 1 {
        text += &columns(&rows);
    }
    text
}

/// What the kernel reports about a worker.
const PROCESS: [&str; 4] = ["WORKER", "AGE", "RSS", "CPU"];
/// What it reports itself: its state, open connections, requests in flight and their maximum, open streams, requests
/// served and rejected, its latest event loop lag, and when the loop last ran.
const LOAD: [&str; 9] = ["STATE", "CONNS", "BUSY", "PEAK", "STREAMS", "SERVED", "REJECTED", "LAG", "SEEN"];

fn load_cells(load: &Load) -> [String; 9] {
    let Load { state, connections, in_flight, high_water, streams, requests, .. } = load;
    [
        state.clone(),
        connections.map_or_else(|| "-".to_owned(), |connections| connections.to_string()),
        in_flight.to_string(),
        high_water.to_string(),
        streams.to_string(),
        requests.served.to_string(),
        requests.rejected.to_string(),
        format!("{:.0}ms", load.lag_seconds * 1000.0),
        format!("{} ago", span(load.heartbeat_seconds_ago)),
    ]
}

/// Rows of cells, aligned to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(text, "  {cell:>width$}", width = width(column));
        }
        text.push('\n');
    }
    text
}

fn cause(exit: &WorkerExit) -> String {
    match (exit.cause.as_str(), &exit.signal, exit.status) {
        ("oom", ..) => "killed, out of memory (oom)".to_owned(),
        ("hung", ..) => "hung, killed".to_owned(),
        ("rss", ..) => "too large, replaced".to_owned(),
        ("age", ..) => "too old, replaced".to_owned(),
        ("requests", ..) => "replaced after its number of requests".to_owned(),
        (_, Some(signal), _) => format!("killed by {signal}"),
        (_, None, Some(status)) => format!("exit status {status}"),
        (_, None, None) => "cause unknown".to_owned(),
    }
}

/// The two largest units, which is enough for a quick look.
fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// In units of 1024.
fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut number = bytes as f64;
    let mut unit = "B";
    for larger in ["K", "M", "G", "T"] {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        unit = larger;
    }
    format!("{number:.1}{unit}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::protocol::{Launcher, Requests, Worker};

    /// A launcher in the middle of a reload.
    pub(in crate::control) fn status() -> Status {
        let generation = |id, state: &str, pid| Generation {
            id,
            server: "granian".into(),
            version: Some("2.8.7".into()),
            state: state.into(),
            age_seconds: 3700.0,
            main_pid: Some(pid),
            workers_planned: 2,
            limit: Some(64),
            workers: vec![Worker {
                pid: pid + 1,
                age_seconds: 59.94,
                rss_bytes: 120 << 20,
                cpu_seconds: 3.21,
                load: Some(load()),
            }],
            restarts: 1,
            last_exit: Some(WorkerExit {
                pid: 7,
                cause: "signal".into(),
                status: None,
                signal: Some("SIGKILL".into()),
                age_seconds: 61.0,
                seconds_ago: 200_000.0,
            }),
        };
        Status {
            launcher: Launcher {
                version: "0.1.0".into(),
                pid: 1,
                uptime_seconds: 3725.5,
                phase: "serving".into(),
                ready: true,
            },
            address: "0.0.0.0:4444".into(),
            restarts_left: 5,
            failures: 0,
            worker_exits: [("signal".to_owned(), 1), ("oom".to_owned(), 0)].into(),
            requests: Requests { served: 200_000, rejected: 11 },
            generations: vec![generation(1, "draining", 31), generation(2, "serving", 41)],
        }
    }

    fn load() -> Load {
        Load {
            state: "ready".into(),
            heartbeat_seconds_ago: 0.44,
            clients: None,
            lag_seconds: 0.0012,
            most_lag_seconds: 0.25,
            in_flight: 7,
            high_water: 64,
            streams: 3,
            connections: Some(12),
            requests: Requests { served: 123_456, rejected: 8 },
        }
    }

    #[test]
    fn a_reader_sees_what_matters() {
        let text = table(&status());
        for part in [
            "mcp-launch 0.1.0  pid 1  up 1h2m  serving, ready\n",
            "address 0.0.0.0:4444  restarts left 5  failures 0  served 200000  rejected 11\n",
            "generation 2  granian/2.8.7  serving  age 1h1m  main 41  workers 1/2  restarts 1\n",
            "  last worker exit: pid 7, killed by SIGKILL, after 1m1s, 2d7h ago\n",
            "  WORKER    AGE     RSS    CPU  STATE  CONNS  BUSY  PEAK  STREAMS  SERVED  REJECTED  LAG      SEEN\n",
            "      42  59.9s  120.0M  3.21s  ready     12     7    64        3  123456         8  1ms  0.4s ago\n",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn without_the_guard_there_is_what_the_kernel_says() {
        let mut status = status();
        status.generations.iter_mut().for_each(|generation| generation.workers[0].load = None);
        let text = table(&status);
        assert!(text.contains("  WORKER    AGE     RSS    CPU\n      42  59.9s  120.0M  3.21s\n"), "{text}");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 5 << 30].map(size), ["0.0B", "1023.0B", "1.0K", "5.0G"]);
    }
}
