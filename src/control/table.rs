//! Status for people.

use std::fmt::Write;
use std::time::Duration;

use super::protocol::{Generation, Status, WorkerExit};

/// The whole text.
#[must_use]
pub fn table(status: &Status) -> String {
    let launcher = &status.launcher;
    let ready = if launcher.ready { "ready" } else { "not ready" };
    let mut text = format!(
        "mcp-launch {}  pid {}  up {}  {}, {ready}\naddress {}  restarts left {}  failures {}\n",
        launcher.version,
        launcher.pid,
        span(launcher.uptime_seconds),
        launcher.phase,
        status.address,
        status.restarts_left,
        status.failures,
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
    if !generation.workers.is_empty() {
        let _ = writeln!(text, "  {:>8}  {:>8}  {:>8}  {:>8}", "WORKER", "AGE", "RSS", "CPU");
    }
    for worker in &generation.workers {
        let (age, memory, cpu) = (span(worker.age_seconds), size(worker.rss_bytes), worker.cpu_seconds);
        let _ = writeln!(text, "  {:>8}  {age:>8}  {memory:>8}  {cpu:>7.2}s", worker.pid);
    }
    text
}

fn cause(exit: &WorkerExit) -> String {
    match (&exit.signal, exit.status) {
        _ if exit.cause == "oom" => "killed for lack of memory (oom)".to_owned(),
        (Some(signal), _) => format!("killed by {signal}"),
        (None, Some(status)) => format!("exit status {status}"),
        (None, None) => "cause unknown".to_owned(),
    }
}

/// The two largest units, which is what a reader takes in at a glance.
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
    use crate::control::protocol::{Launcher, Worker};

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
            workers: vec![Worker { pid: pid + 1, age_seconds: 59.94, rss_bytes: 120 << 20, cpu_seconds: 3.21 }],
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
            generations: vec![generation(1, "draining", 31), generation(2, "serving", 41)],
        }
    }

    #[test]
    fn a_reader_sees_what_matters() {
        let text = table(&status());
        for part in [
            "mcp-launch 0.1.0  pid 1  up 1h2m  serving, ready\n",
            "address 0.0.0.0:4444  restarts left 5  failures 0\n",
            "generation 2  granian/2.8.7  serving  age 1h1m  main 41  workers 1/2  restarts 1\n",
            "  last worker exit: pid 7, killed by SIGKILL, after 1m1s, 2d7h ago\n",
            "        42     59.9s    120.0M     3.21s\n",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 5 << 30].map(size), ["0.0B", "1023.0B", "1.0K", "5.0G"]);
    }
}
