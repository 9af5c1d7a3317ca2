//! How a worker or a server ended: the record that is logged, and that `status --ends` prints.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::stacks::{Frame, lines_of_frames};
use super::table::{signed_size, size, span};

/// How a worker or a server ended. Its keys are printed, so they must not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// `worker` or `server`, which is the server's main process.
    pub what: String,
    /// Its process.
    pub pid: i32,
    /// Its generation.
    pub generation: u32,
    /// Its server: `granian/2.8.7`.
    pub server: String,
    /// Of a worker: `exit`, `signal`, `oom`, `hung`, `rss`, `age`, `requests` or `stuck` (replaced because of that limit), or
    /// `unknown`. Of a server: `boot-failed`, `exit`, `signal`, `oom`, `not-ready` (in time), `no-workers` (are left),
    /// `keeps-dying` (its workers do, while it starts), or `replaced`.
    pub cause: String,
    /// Its exit status, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The signal that ended it, if one did: `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why, if one of its processes has reported that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether its generation was stopping.
    pub stopping: bool,
    /// Its age.
    pub age_seconds: f64,
    /// When the end was noticed, in seconds since 1970.
    pub timestamp: f64,
    /// Its memory, as it was last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What it was doing, as it was last reported. Of a server: all its workers together, if they ended with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<InProgress>,
    /// Where its main thread was when it was last asked, because it hung or spun: the innermost frames, the most recent call
    /// last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
}

/// The memory of a worker that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident memory, including shared pages.
    pub rss_bytes: u64,
    /// The most that it ever was.
    pub peak_bytes: u64,
    /// How much it has grown per minute, over the last five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_minute: Option<i64>,
}

/// What a worker was doing when it ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InProgress {
    /// Requests in progress that count.
    pub in_flight: u32,
    /// Open event streams and web sockets.
    pub streams: u32,
    /// Requests that had taken longer than `request_timeout` and did not end.
    pub stuck: u32,
    /// Requests that it had finished.
    pub served: u64,
    /// How long its event loop had not run; of a server, the longest of its workers.
    pub heartbeat_seconds_ago: f64,
    /// The oldest requests that were open at its last heartbeat, the oldest first. Younger ones are not known.
    pub oldest: Vec<OldRequest>,
}

/// A request that was open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OldRequest {
    /// Its method.
    pub method: String,
    /// Its path, without the query and without what may be a secret.
    pub path: String,
    /// Its age at the end, to within a heartbeat.
    pub age_seconds: f64,
}

/// The ends for people, the last one last. `now` is in seconds since 1970.
#[must_use]
pub fn text(ends: &[End], now: f64) -> String {
    if ends.is_empty() {
        return "no worker and no server has ended unexpectedly or was replaced\n".to_owned();
    }
    ends.iter().map(|end| one(end, now)).collect::<Vec<_>>().join("\n")
}

fn one(end: &End, now: f64) -> String {
    let End { what, pid, generation, server, age_seconds, .. } = end;
    let stopping = if end.stopping { ", stopping" } else { "" };
    let mut text = format!(
        "{what} {pid}, generation {generation}{stopping}, {server}: {}, after {}, {} ago\n",
        cause(end),
        span(*age_seconds),
        span((now - end.timestamp).max(0.0)),
    );
    if let Some(why) = &end.why {
        let _ = writeln!(text, "  why       {why}");
    }
    if let Some(memory) = &end.memory {
        let growth = memory.growth_bytes_per_minute.map(|growth| format!(", {} per minute", signed_size(growth)));
        let (rss, peak) = (size(memory.rss_bytes), size(memory.peak_bytes));
        let _ = writeln!(text, "  memory    {rss}, at most {peak}{}", growth.unwrap_or_default());
    }
    if let Some(requests) = &end.requests {
        text += &in_progress(requests);
    }
    if !end.stack.is_empty() {
        text += "  stack\n";
        text += &lines_of_frames(&end.stack, "    ");
    }
    text
}

fn in_progress(requests: &InProgress) -> String {
    let InProgress { in_flight, streams, stuck, served, heartbeat_seconds_ago, oldest } = requests;
    let seen = span(*heartbeat_seconds_ago);
    let mut text = format!(
        "  requests  {in_flight} in flight, {stuck} stuck, {streams} streams, {served} served, last seen {seen} before\n"
    );
    for OldRequest { method, path, age_seconds } in oldest {
        let _ = writeln!(text, "    {:>8}  {method} {path}", span(*age_seconds));
    }
    text
}

fn cause(end: &End) -> String {
    let how = match (&end.signal, end.status) {
        (Some(signal), _) => Some(format!("killed by {signal}")),
        (None, Some(status)) => Some(format!("exit status {status}")),
        (None, None) => None,
    };
    match (end.cause.as_str(), how) {
        ("signal" | "exit", Some(how)) => how,
        (cause, Some(how)) => format!("{cause} ({how})"),
        (cause, None) => cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        End {
            what: "worker".into(),
            pid: 41,
            generation: 2,
            server: "granian/2.8.7".into(),
            cause: "signal".into(),
            status: None,
            signal: Some("SIGKILL".into()),
            why: None,
            stopping: false,
            age_seconds: 303.0,
            timestamp: 1000.0,
            memory: Some(Memory {
                rss_bytes: 120 << 20,
                peak_bytes: 130 << 20,
                growth_bytes_per_minute: Some(-(2 << 20)),
            }),
            requests: Some(InProgress {
                in_flight: 3,
                served: 120,
                heartbeat_seconds_ago: 0.2,
                oldest: vec![OldRequest { method: "GET".into(), path: "/slow".into(), age_seconds: 12.3 }],
                ..InProgress::default()
            }),
            stack: vec![Frame { file: "/app/main.py".into(), line: 7, function: "wait".into() }],
        }
    }

    #[test]
    fn a_reader_sees_how_it_ended_and_what_it_was_doing() {
        let boot = End {
            what: "server".into(),
            cause: "boot-failed".into(),
            status: Some(3),
            signal: None,
            why: Some("no module named app".into()),
            stopping: true,
            memory: None,
            requests: None,
            stack: Vec::new(),
            ..end()
        };
        let shown = text(&[end(), boot], 1012.0);
        let expected = "worker 41, generation 2, granian/2.8.7: killed by SIGKILL, after 5m3s, 12.0s ago\n\
             \x20 memory    120.0M, at most 130.0M, -2.0M per minute\n\
             \x20 requests  3 in flight, 0 stuck, 0 streams, 120 served, last seen 0.2s before\n\
             \x20      12.3s  GET /slow\n\
             \x20 stack\n\
             \x20   File \"/app/main.py\", line 7, in wait\n\
             \n\
             server 41, generation 2, stopping, granian/2.8.7: boot-failed (exit status 3), after 5m3s, 12.0s ago\n\
             \x20 why       no module named app\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let json = serde_json::to_string(&end()).unwrap();
        assert!(json.contains(r#""oldest":[{"method":"GET","path":"/slow","age_seconds":12.3}]"#), "{json}");
        assert_eq!(serde_json::from_str::<End>(&json).unwrap(), end());
    }
}
