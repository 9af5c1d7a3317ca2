//! Status for people.

use std::fmt::Write;
use std::time::Duration;

use super::protocol::{Generation, Load, Recent, Status, WorkerExit};

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
    if let Some(rates) = rates(&status.recent) {
        let _ = writeln!(text, "last {:.0}s: {rates}", status.recent.seconds);
    }
    for generation in &status.generations {
        text.push('\n');
        text += &generation_lines(generation);
    }
    text
}

/// How many requests there were, and how long they took; none if no worker has reported that.
#[must_use]
pub fn rates(recent: &Recent) -> Option<String> {
    if recent.seconds <= 0.0 {
        return None;
    }
    let Recent { requests_per_second: served, rejected_per_second: rejected, .. } = recent;
    let latency =
        |name, seconds: Option<f64>| seconds.map_or_else(String::new, |it| format!(", {name} {}", brief(it)));
    let [p50, p99] = [latency("p50", recent.p50_seconds), latency("p99", recent.p99_seconds)];
    Some(format!("{served:.1} requests/s, {rejected:.1} rejected/s{p50}{p99}"))
}

/// A short time with three digits at most: `0.12ms`, `3.4ms`, `120ms`, `2.5s`.
#[must_use]
pub fn brief(seconds: f64) -> String {
    let milliseconds = seconds * 1000.0;
    match milliseconds {
        0.0..1.0 => format!("{milliseconds:.2}ms"),
        1.0..9.95 => format!("{milliseconds:.1}ms"),
        9.95..999.5 => format!("{milliseconds:.0}ms"),
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        _ => format!("{seconds:.0}s"),
    }
}

/// A generation and its workers.
pub(super) fn generation_lines(generation: &Generation) -> String {
    let mut text = generation_head(generation) + "\n";
    if let Some(exit) = &generation.last_exit {
        let (pid, age, ago) = (exit.pid, span(exit.age_seconds), span(exit.seconds_ago));
        let _ = writeln!(text, "  last worker exit: pid {pid}, {}, after {age}, {ago} ago", cause(exit));
    }
    text + &worker_lines(generation)
}

/// A generation in one line.
#[must_use]
pub fn generation_head(generation: &Generation) -> String {
    let server = match &generation.version {
        Some(version) => format!("{}/{version}", generation.server),
        None => generation.server.clone(),
    };
    let main = generation.main_pid.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
    format!(
        "generation {}  {server}  {}  age {}  main {main}  workers {}/{}  restarts {}",
        generation.id,
        generation.state,
        span(generation.age_seconds),
        generation.workers.len(),
        generation.workers_planned,
        generation.restarts,
    )
}

/// The table of its workers, and why their limits are what they are.
fn worker_lines(generation: &Generation) -> String {
    let mut text = String::new();
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
    for worker in &generation.workers {
        if let Some(because) = worker.load.as_ref().and_then(|load| load.limit_because.as_ref()) {
            let _ = writeln!(text, "  limit of {}: {because}", worker.pid);
        }
    }
    text
}

/// What the kernel reports about a worker.
const PROCESS: [&str; 4] = ["WORKER", "AGE", "RSS", "CPU"];
/// What it reports itself: its state, whether it gets new clients or why not, open connections, requests in
/// flight, how many there may be and how many there were at most, open streams, requests served and rejected, its latest event loop lag, and when the loop last
/// ran.
const LOAD: [&str; 11] =
    ["STATE", "CLIENTS", "CONNS", "BUSY", "LIMIT", "PEAK", "STREAMS", "SERVED", "REJECTED", "LAG", "SEEN"];

fn load_cells(load: &Load) -> [String; 11] {
    let Load { state, clients, connections, in_flight, limit, high_water, streams, requests, .. } = load;
    [
        state.clone(),
        clients.clone().unwrap_or_else(|| "-".to_owned()),
        connections.map_or_else(|| "-".to_owned(), |connections| connections.to_string()),
        in_flight.to_string(),
        limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
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

/// How a worker ended.
#[must_use]
pub fn cause(exit: &WorkerExit) -> String {
    match (exit.cause.as_str(), &exit.signal, exit.status) {
        ("oom", ..) => "killed, out of memory (oom)".to_owned(),
        ("hung", ..) => "hung, killed".to_owned(),
        ("rss", ..) => "too large, replaced".to_owned(),
        ("age", ..) => "too old, replaced".to_owned(),
        ("spin", ..) => "used a processor with nothing to do, replaced".to_owned(),
        ("requests", ..) => "replaced after its number of requests".to_owned(),
        ("stuck", ..) => "replaced, half of its requests were stuck".to_owned(),
        (_, Some(signal), _) => format!("killed by {signal}"),
        (_, None, Some(status)) => format!("exit status {status}"),
        (_, None, None) => "cause unknown".to_owned(),
    }
}

/// The two largest units, which is enough for a quick look.
#[must_use]
pub fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// A change, with its sign.
pub(super) fn signed_size(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { '-' } else { '+' }, size(bytes.unsigned_abs()))
}

/// In units of 1024.
#[must_use]
pub fn size(bytes: u64) -> String {
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
pub(crate) mod tests {
    use super::*;
    use crate::control::protocol::{Bucket, Histogram, Launcher, Requests, Worker};

    /// A launcher in the middle of a reload.
    pub(crate) fn status() -> Status {
        let generation = |id, state: &str, pid| Generation {
            id,
            server: "granian".into(),
            version: Some("2.8.7".into()),
            state: state.into(),
            age_seconds: 3700.0,
            main_pid: Some(pid),
            workers_planned: 2,
            limit: Some(64),
            limit_adapts: false,
            memory_limit_bytes: Some(2 << 30),
            certificate_expiry_timestamp: Some(1_800_000_000),
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
            request_duration: Histogram {
                count: 8,
                sum_seconds: 12.5,
                buckets: [(0.0001, 5), (1.5, 6), (2.0, 7)].map(|(le, count)| Bucket { le, count }).into(),
            },
            recent: recent(),
            generations: vec![generation(1, "draining", 31), generation(2, "serving", 41)],
            ends: None,
        }
    }

    fn recent() -> Recent {
        Recent {
            seconds: 10.25,
            requests_per_second: 12.34,
            rejected_per_second: 0.0,
            p50_seconds: Some(0.0123),
            p99_seconds: Some(1.25),
        }
    }

    fn load() -> Load {
        Load {
            state: "ready".into(),
            heartbeat_seconds_ago: 0.44,
            clients: Some("silent".into()),
            lag_seconds: 0.0012,
            most_lag_seconds: 0.25,
            in_flight: 7,
            limit: Some(64),
            limit_because: Some("latency 33ms, 20ms at best".into()),
            high_water: 64,
            streams: 3,
            stuck: 0,
            spinning: false,
            connections: Some(12),
            requests: Requests { served: 123_456, rejected: 8 },
            recent: recent(),
        }
    }

    #[test]
    fn a_reader_sees_what_matters() {
        let text = table(&status());
        for part in [
            "mcp-launch 0.1.0  pid 1  up 1h2m  serving, ready\n",
            "address 0.0.0.0:4444  restarts left 5  failures 0  served 200000  rejected 11\n\
             last 10s: 12.3 requests/s, 0.0 rejected/s, p50 12ms, p99 1.2s\n",
            "generation 2  granian/2.8.7  serving  age 1h1m  main 41  workers 1/2  restarts 1\n",
            "  last worker exit: pid 7, killed by SIGKILL, after 1m1s, 2d7h ago\n",
            "  WORKER    AGE     RSS    CPU  STATE  CLIENTS  CONNS  BUSY  LIMIT  PEAK  STREAMS  SERVED  REJECTED  LAG      SEEN\n",
            "  limit of 42: latency 33ms, 20ms at best\n",
            "      42  59.9s  120.0M  3.21s  ready   silent     12     7     64    64        3  123456         8  1ms  0.4s ago\n",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn without_the_guard_there_is_what_the_kernel_says() {
        let mut status = status();
        status.generations.iter_mut().for_each(|generation| generation.workers[0].load = None);
        status.recent = Recent::default();
        let text = table(&status);
        assert!(text.contains("  WORKER    AGE     RSS    CPU\n      42  59.9s  120.0M  3.21s\n"), "{text}");
        assert!(!text.contains("requests/s"), "{text}");
    }

    #[test]
    fn times_are_short() {
        let shown = [0.0, 0.000_123, 0.001_26, 0.0126, 0.9994, 0.9996, 9.96, 250.0].map(brief);
        assert_eq!(shown, ["0.00ms", "0.12ms", "1.3ms", "13ms", "999ms", "1.0s", "10s", "250s"]);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 5 << 30].map(size), ["0.0B", "1023.0B", "1.0K", "5.0G"]);
    }
}
