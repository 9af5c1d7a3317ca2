//! Events that are worth a line in the log.

use std::fmt;
use std::time::Duration;

use super::memory_budget::Shortage;
use super::outcome::Outcome;
use super::reload::Takeover;
use crate::ids::GenerationId;

/// An event that is worth a line in the log.
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
    KeepsDying {
        generation: GenerationId,
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
        takeover: Takeover,
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
    TakenBack {
        generation: GenerationId,
        failed: GenerationId,
    },
    Silent {
        generation: GenerationId,
    },
    Answering {
        generation: GenerationId,
    },
    NoWorkers {
        generation: GenerationId,
    },
    SurvivorsServe {
        why: String,
        wait: Duration,
    },
    StaysSmall {
        why: String,
        wait: Duration,
    },
    /// `serves`: whether a generation serves, as before.
    ReloadFailed {
        why: String,
        serves: bool,
    },
    /// The same of a reload that was to replace the single worker.
    RenewalFailed {
        why: String,
        serves: bool,
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

/// Why the launcher ends although no stop was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server cannot boot with this plan, and never has.
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
