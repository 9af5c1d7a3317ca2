//! What a generation is, and what the state machine is told and says. Pure.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::memory_budget::{Room, Shortage};
use super::steps::Headcount;
use crate::ids::{GenerationId, PlanId, ProcessId};
use crate::plan::Policy;
use crate::problem::Exit;
use crate::run::stop_sequence::StopSequence;
use crate::settings::value::Server;

/// A server's life from one start: its main process and all that descends from it.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Counts from 1 and is never used twice.
    pub id: GenerationId,
    /// The plan that it runs by.
    pub plan: PlanId,
    /// With how many workers.
    pub startup: Startup,
    /// Its main process.
    pub main: Main,
    /// How far it has got.
    pub stage: Stage,
    /// Why it fails, if one of its processes could say.
    pub why: Option<String>,
}

/// How many workers a generation is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// As many as its plan says.
    Full,
    /// One, because the memory has no room for more beside the generation that serves. More is to follow.
    OneWorker,
}

/// The main process of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// About to be started.
    Spawning,
    /// Running.
    Alive(Pid),
    /// Reaped; its workers may go on.
    Gone,
}

/// The stages of a generation's life, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Not ready yet.
    Starting {
        /// When that becomes a failure.
        deadline: Instant,
    },
    /// Ready, and the one that serves.
    Serving {
        /// Since when.
        since: Instant,
    },
    /// On its way out: replaced, or never ready.
    Leaving(StopSequence),
}

impl Generation {
    /// Whether its main process is gone while its workers serve on.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.main == Main::Gone && self.is_serving()
    }

    /// Whether it is the one that serves.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving { .. })
    }

    /// Whether it may become the one that serves.
    #[must_use]
    pub const fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. })
    }

    /// The stage in a word, as `status` shows it.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        match self.stage {
            Stage::Starting { .. } => "starting",
            Stage::Serving { .. } if self.main == Main::Gone => "orphaned",
            Stage::Serving { .. } => "serving",
            Stage::Leaving(_) => "draining",
        }
    }
}

/// What the state machine knows of a plan.
#[derive(Debug, Clone)]
pub struct PlanFacts {
    /// Its number.
    pub id: PlanId,
    /// How it is looked after.
    pub policy: Policy,
    /// Exit statuses that mean "cannot boot" when they come before readiness.
    pub boot_statuses: Vec<u8>,
    /// Whether a generation of it was ever ready.
    pub proven: bool,
    /// How many workers it has.
    pub workers: u32,
    /// Whether TTIN and TTOU change that number one by one: Gunicorn.
    pub resizable: bool,
    /// Whether it is resizable and new clients can be shared out between two generations of the kind: each has a
    /// listening socket from us, and not a Unix socket, of which one at a time has the path.
    pub shareable: bool,
}

/// How a main process ended, or failed to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
    /// It was not ready in time.
    NotReady,
    /// It could not be executed, for this shell status.
    NotStarted(u8),
}

impl Outcome {
    /// The exit status that stands for it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) | Self::NotStarted(status) => status,
            Self::Signaled(signal) => u8::try_from(128 + signal).unwrap_or(255),
            Self::NotReady => Exit::NotReady.code(),
        }
    }
}

impl Outcome {
    /// The outcome, and behind it why, if that is known.
    #[must_use]
    pub fn because(self, why: Option<&str>) -> String {
        why.map_or_else(|| self.to_string(), |why| format!("{self}: {why}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signaled(signal) => match Signal::try_from(*signal) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::NotReady => f.write_str("not ready in time"),
            Self::NotStarted(_) => f.write_str("could not be executed"),
        }
    }
}

/// Who waits for the outcome of a reload.
pub type Request = u64;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A polite request to end: SIGTERM, SIGINT.
    Stop,
    /// A request to end at once: SIGQUIT.
    Quit,
    /// A request to hand over to a new generation.
    Reload {
        /// Who waits for the outcome.
        request: Option<Request>,
        /// The server to change to.
        server: Option<Server>,
        /// Workers more or fewer than now, until the next change of settings.
        workers: i32,
    },
    /// The generation that serves is to be replaced by one of the same plan, because its only worker is past a limit.
    Renew,
    /// A signal for the main process of the server that serves.
    Forward(Signal),
    /// The settings were read anew, as [`Action::Replan`] asked.
    Planned(Result<PlanFacts, String>),
    /// The main process of a generation runs.
    Spawned {
        /// Which.
        generation: GenerationId,
        /// Its main process.
        pid: Pid,
    },
    /// A main process could not be started.
    SpawnFailed {
        /// Of which generation.
        generation: GenerationId,
        /// How, if it is the program's fault; none if the system had no room and will have some later.
        outcome: Option<Outcome>,
    },
    /// A generation is ready to serve.
    Ready {
        /// Which.
        generation: GenerationId,
    },
    /// What the memory has room for, as [`Action::Measure`] asked.
    Measured {
        /// Beside the generation that serves.
        room: Room,
        /// How many workers that one has, if they can be seen.
        workers: Option<u32>,
    },
    /// The workers of a generation were counted, as they are while
    /// [`State::counted`](super::State::counted) names it.
    Counted {
        /// Whose.
        generation: GenerationId,
        /// How many.
        workers: Headcount,
    },
    /// A process of a generation has said why it fails.
    FailureReported {
        /// Whose.
        generation: GenerationId,
        /// What.
        why: String,
    },
    /// A child ended. Most are none of our main processes; those are ignored.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        outcome: Outcome,
        /// Whether processes of its generation live on.
        survivors: bool,
    },
    /// A generation whose main process is gone has no processes left.
    GenerationEmpty {
        /// Which.
        generation: GenerationId,
    },
    /// We have no descendants at all.
    NoChildren,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a generation's main process.
    Spawn {
        /// Its number.
        generation: GenerationId,
        /// The plan to run it by.
        plan: PlanId,
        /// With how many workers.
        startup: Startup,
    },
    /// Find out whether the memory has room for another generation beside this one and answer with
    /// [`Event::Measured`].
    Measure {
        /// The generation that serves.
        generation: GenerationId,
    },
    /// Let new clients in to this generation only.
    Steer {
        /// Which.
        generation: GenerationId,
    },
    /// Share new clients out among generations that have their listening sockets from us.
    Share {
        /// Which, and their parts of the whole.
        parts: [(GenerationId, u32); 2],
    },
    /// KILL the workers of a generation that take no more clients.
    KillDraining {
        /// Whose.
        generation: GenerationId,
    },
    /// Send a signal to a generation's main process.
    Signal {
        /// Whose.
        generation: GenerationId,
        /// Which.
        signal: Signal,
    },
    /// Send a signal to one worker.
    SignalWorker {
        /// Whose.
        generation: GenerationId,
        /// Which worker.
        worker: ProcessId,
        /// Which signal.
        signal: Signal,
    },
    /// Send a signal to all processes of a generation but the main one.
    SignalRest {
        /// Whose.
        generation: GenerationId,
        /// Which.
        signal: Signal,
    },
    /// Send a signal to all our descendants but the main processes.
    SignalStrays(Signal),
    /// KILL all processes of a generation.
    Kill {
        /// Whose.
        generation: GenerationId,
    },
    /// KILL all our descendants.
    KillAll,
    /// Read the settings and the machine anew and answer with [`Event::Planned`].
    Replan {
        /// The server to change to.
        server: Option<Server>,
        /// Workers more or fewer than now.
        workers: i32,
    },
    /// Tell who waits for a reload how it went: the new generation's number, or why the old one was kept.
    Reply {
        /// Who.
        request: Request,
        /// What.
        result: Result<GenerationId, String>,
    },
    /// Write to the log.
    Log(Note),
    /// End, with this status.
    Exit(u8),
}

/// What is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Note {
    Ready {
        generation: GenerationId,
    },
    Draining {
        generation: GenerationId,
        replaced_by: GenerationId,
    },
    MainExited {
        generation: GenerationId,
        outcome: Outcome,
        ready_for: Option<Duration>,
        survivors: bool,
        why: Option<String>,
    },
    NotReadyInTime {
        generation: GenerationId,
        timeout: Duration,
    },
    Respawning {
        wait: Duration,
        restarts_left: u32,
    },
    NoRoom {
        wait: Duration,
    },
    GivingUp {
        status: u8,
        cause: Cause,
        failures: u64,
    },
    Reloading,
    ShortOfMemory {
        shortage: Shortage,
        stepwise: bool,
    },
    Step {
        old: GenerationId,
        old_workers: u32,
        new: GenerationId,
        new_workers: u32,
    },
    StepsFailed {
        generation: GenerationId,
        given_back: u32,
    },
    Complete {
        generation: GenerationId,
        workers: u32,
    },
    StaysSmall {
        why: String,
        wait: Duration,
    },
    ReloadFailed {
        why: String,
    },
    RenewalFailed {
        why: String,
    },
    Stopping {
        delay: Duration,
        budget: Duration,
    },
    Hurrying,
    Killing,
    Gone {
        generation: GenerationId,
    },
    Abandoned,
    Stopped {
        status: u8,
    },
}

/// Why the launcher ends of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server cannot boot with this plan, and never could.
    BootFailed,
    /// It failed too often.
    TooManyFailures,
    /// It ended, and is not to be started again.
    Ended,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BootFailed => "boot-failed",
            Self::TooManyFailures => "too-many-failures",
            Self::Ended => "server-ended",
        })
    }
}
