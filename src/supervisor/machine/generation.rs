//! A generation, and the stages of its life.

use std::time::Instant;

use nix::unistd::Pid;

use crate::ids::{GenerationId, PlanId};
use crate::run::stop_sequence::StopSequence;

/// One run of a server: its main process and all descendants of it.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Counts from 1 and is never used twice.
    pub id: GenerationId,
    /// The plan that it was started with.
    pub plan: PlanId,
    /// The number of workers that it was started with.
    pub startup: Startup,
    /// Its main process.
    pub main: Main,
    /// Its stage.
    pub stage: Stage,
    /// Whether one of its workers has answered lately.
    pub answers: bool,
    /// Why it fails, if one of its processes has reported it.
    pub why: Option<String>,
}

/// How many workers a generation is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// As many as its plan says.
    Full,
    /// One, because the memory has no room for more next to the serving generation. The others follow later.
    OneWorker,
}

impl Startup {
    /// That number, for a plan that has this many workers.
    #[must_use]
    pub const fn workers(self, planned: u32) -> u32 {
        match self {
            Self::Full => planned,
            Self::OneWorker => 1,
        }
    }
}

/// The main process of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// About to be started.
    Spawning,
    /// Running.
    Alive(Pid),
    /// Reaped; its workers may still run.
    Gone,
}

/// The stages of a generation's life, in order.
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
    /// Replaced: new clients go to another generation, and it answers those that have connected already. Until it is
    /// asked to stop it can be taken back.
    Lingering {
        /// Since when it served.
        since: Instant,
        /// When it is asked to stop.
        until: Instant,
        /// When it must have ended.
        deadline: Instant,
    },
    /// Stopping: replaced, or never ready.
    Leaving(StopSequence),
}

impl Generation {
    /// Whether it may still turn out that its main process never executed its program.
    #[must_use]
    pub const fn may_fail_to_start(&self) -> bool {
        match self.main {
            Main::Spawning => true,
            Main::Alive(_) => matches!(self.stage, Stage::Starting { .. } | Stage::Leaving(_)),
            Main::Gone => false,
        }
    }

    /// Whether its main process has ended while its workers still serve.
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

    /// The stage in one word, as `status` shows it.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        match self.stage {
            Stage::Starting { .. } => "starting",
            Stage::Serving { .. } if self.main == Main::Gone => "orphaned",
            Stage::Serving { .. } => "serving",
            Stage::Lingering { .. } | Stage::Leaving(_) => "draining",
        }
    }
}
