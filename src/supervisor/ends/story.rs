//! What the record of an end says. Pure.

use std::time::Duration;

use nix::unistd::Pid;

use crate::control::end::{End, InProgress, Memory, OldRequest};
use crate::control::stacks::{Frame, ThreadStack};
use crate::guard::scoreboard::Slot;
use crate::guard::scoreboard::report::{self, Report};
use crate::ids::GenerationId;
use crate::supervisor::machine::outcome::Outcome;
use crate::supervisor::workers::{Cause, WorkerExit};

/// How many requests a record names.
const MOST_REQUESTS: usize = 16;
/// How many bytes its stack may have, and those of a frame besides its names.
const STACK: usize = 1500;
const FRAME: usize = 40;

/// What a worker left on the scoreboard.
#[derive(Debug, Clone)]
pub struct Remains {
    /// Its slot.
    pub slot: Slot,
    /// What it reported besides.
    pub report: Option<Report>,
}

impl Remains {
    /// Whether it had requests or streams in progress.
    #[must_use]
    pub const fn has_requests(&self) -> bool {
        self.slot.in_flight > 0 || self.slot.streams > 0
    }
}

/// When and where something ended.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The server: `granian/2.8.7`.
    pub server: String,
    /// The time on the clock of the scoreboard.
    pub now: Duration,
    /// The time since 1970.
    pub since_1970: Duration,
}

/// How far a generation had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// Asked to stop, because another one serves.
    Replaced,
    /// Asked to stop, because everything stops.
    Stopping,
}

/// The end of a server's main process.
#[derive(Debug)]
pub struct ServerExit {
    /// Its generation.
    pub generation: GenerationId,
    /// Its process.
    pub pid: Pid,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the kernel killed it for lack of memory.
    pub is_oom: bool,
    /// Why, if one of its processes has reported that.
    pub why: Option<String>,
    /// How far it had come.
    pub progress: Progress,
    /// How old it got.
    pub age: Duration,
    /// What its workers left, if they ended with it.
    pub workers: Vec<Remains>,
}

/// The record of a worker's end. None if it is not worth one: it was asked to end and did, or another worker ended for the
/// same cause during this start.
#[must_use]
pub fn of_worker(exit: &WorkerExit, remains: Option<&Remains>, stack: Vec<Frame>, setting: &Setting) -> Option<End> {
    let is_polite = matches!(exit.cause, Cause::Exit(0) | Cause::Signal(libc::SIGTERM));
    if exit.is_repeat || exit.expected && is_polite {
        return None;
    }
    Some(End {
        what: "worker".to_owned(),
        pid: exit.pid().as_raw(),
        generation: exit.generation.0,
        server: setting.server.clone(),
        cause: exit.cause.word().to_owned(),
        status: exit_status(exit.how),
        signal: exit.how.and_then(Cause::signal_name),
        why: None,
        stopping: exit.expected,
        age_seconds: seconds(exit.age),
        timestamp: seconds(setting.since_1970),
        memory: remains.and_then(|it| it.report.as_ref()?.memory.as_ref()).map(memory),
        requests: remains.map(|it| in_progress(std::slice::from_ref(it), setting.now)),
        stack,
    })
}

/// What a record says of a thread: its innermost frames, as many as fit. A line of the log that is longer than 4096 bytes may
/// be mixed with others.
#[must_use]
pub fn innermost(thread: &ThreadStack) -> Vec<Frame> {
    let mut room = STACK;
    let mut fits = |frame: &&Frame| {
        let size = frame.file.len() + frame.function.len() + FRAME;
        room = room.saturating_sub(size);
        room > 0
    };
    let mut frames: Vec<Frame> = thread.frames.iter().rev().take_while(|frame| fits(frame)).cloned().collect();
    frames.reverse();
    frames
}

/// The record of a server's end. None if it was asked to stop and did.
#[must_use]
pub fn of_server(exit: &ServerExit, setting: &Setting) -> Option<End> {
    let is_polite =
        matches!(exit.outcome, Outcome::Exited(0) | Outcome::Signaled(libc::SIGTERM | libc::SIGINT | libc::SIGQUIT));
    if exit.progress == Progress::Stopping && is_polite {
        return None;
    }
    let how = how(exit.outcome);
    Some(End {
        what: "server".to_owned(),
        pid: exit.pid.as_raw(),
        generation: exit.generation.0,
        server: setting.server.clone(),
        cause: server_cause(exit).to_owned(),
        status: exit_status(how),
        signal: how.and_then(Cause::signal_name),
        why: exit.why.clone(),
        stopping: matches!(exit.progress, Progress::Replaced | Progress::Stopping),
        age_seconds: seconds(exit.age),
        timestamp: seconds(setting.since_1970),
        memory: None,
        requests: (!exit.workers.is_empty()).then(|| in_progress(&exit.workers, setting.now)),
        stack: Vec::new(),
    })
}

const fn server_cause(exit: &ServerExit) -> &'static str {
    match (exit.progress, exit.outcome) {
        (_, Outcome::NotReady) => "not-ready",
        (_, Outcome::NoWorkers) => "no-workers",
        (_, Outcome::KeepsDying) => "keeps-dying",
        _ if exit.is_oom => "oom",
        (Progress::Replaced, _) => "replaced",
        (Progress::Starting, _) | (_, Outcome::NotStarted(_) | Outcome::Refused) => "boot-failed",
        (_, Outcome::Signaled(_)) => "signal",
        (_, Outcome::Exited(_)) => "exit",
    }
}

/// How its process ended, if it did.
const fn how(outcome: Outcome) -> Option<Cause> {
    match outcome {
        Outcome::Exited(status) | Outcome::NotStarted(status) => Some(Cause::Exit(status)),
        Outcome::Signaled(signal) => Some(Cause::Signal(signal)),
        Outcome::NotReady | Outcome::Refused | Outcome::NoWorkers | Outcome::KeepsDying => None,
    }
}

const fn exit_status(how: Option<Cause>) -> Option<u8> {
    if let Some(Cause::Exit(status)) = how { Some(status) } else { None }
}

const fn memory(memory: &report::Memory) -> Memory {
    Memory { rss_bytes: memory.resident, peak_bytes: memory.peak, growth_bytes_per_minute: memory.growth }
}

/// What these workers were doing.
fn in_progress(workers: &[Remains], now: Duration) -> InProgress {
    let slots = || workers.iter().map(|worker| worker.slot);
    let mut open: Vec<_> =
        workers.iter().filter_map(|worker| worker.report.as_ref()).flat_map(|report| &report.requests).collect();
    open.sort_by_key(|request| request.began);
    let oldest = open.into_iter().take(MOST_REQUESTS).map(|request| OldRequest {
        method: request.method.clone(),
        path: request.path.clone(),
        age_seconds: seconds(now.saturating_sub(request.began)),
    });
    InProgress {
        in_flight: slots().map(|slot| slot.in_flight).fold(0, u32::saturating_add),
        streams: slots().map(|slot| slot.streams).fold(0, u32::saturating_add),
        stuck: slots().map(|slot| slot.stuck).fold(0, u32::saturating_add),
        served: slots().map(|slot| slot.served).fold(0, u64::saturating_add),
        heartbeat_seconds_ago: slots().map(|slot| seconds(now.saturating_sub(slot.heartbeat))).fold(0.0, f64::max),
        oldest: oldest.collect(),
    }
}

/// To the millisecond.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
