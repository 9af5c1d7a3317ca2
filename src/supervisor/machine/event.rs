//! The events that the state machine gets.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::memory_budget::Room;
use super::outcome::{Outcome, SpawnFailure};
use super::plan_facts::PlanFacts;
use super::worker_moves::Headcount;
use crate::ids::GenerationId;
use crate::settings::value::Server;

/// Who waits for the outcome of a reload.
pub type Requester = u64;

/// Whether a generation has workers that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// At least one is ready.
    Answering,
    /// None has been ready for a while.
    Silent,
    /// None is ready or starting, or those that start keep dying: the generation has failed. The latter can also happen
    /// while it starts.
    Lost,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A polite request to end: SIGTERM, SIGINT.
    Stop,
    /// The same from the terminal, by Ctrl-C: all processes of the servers get the signal as well.
    Interrupt,
    /// A request to end at once: SIGQUIT.
    Quit,
    /// A request to hand over to a new generation.
    Reload {
        /// Who waits for the outcome.
        request: Option<Requester>,
        /// The server to switch to.
        server: Option<Server>,
        /// The change in the number of workers, which applies until the settings change.
        workers: i32,
    },
    /// The serving generation is to be replaced by one of the same plan, because its only worker is past a limit.
    Renew,
    /// A signal for the main process of the server that serves.
    Forward(Signal),
    /// The settings were read again, as [`Action::Replan`] requested.
    Planned(Result<PlanFacts, String>),
    /// The main process of a generation was forked. Its exec may still fail.
    Spawned {
        /// Which.
        generation: GenerationId,
        /// Its main process.
        pid: Pid,
    },
    /// A main process could not be started, or has ended without having executed its program.
    SpawnFailed {
        /// Of which generation.
        generation: GenerationId,
        /// What failed.
        failure: SpawnFailure,
        /// Why, in words.
        why: String,
    },
    /// The workers of a generation were asked to leave, as [`Action::Retire`] requested.
    Leaving {
        /// Whose.
        generation: GenerationId,
        /// How many event streams and web sockets they had open.
        streams: u32,
        /// The time over which they close them.
        spread: Duration,
    },
    /// One worker of a generation was asked to leave, as [`Action::RetireOldest`] requested.
    WorkerLeaving {
        /// Whose.
        generation: GenerationId,
        /// How many event streams and web sockets it had open.
        streams: u32,
        /// The time over which it closes them.
        spread: Duration,
    },
    /// A generation is ready to serve.
    Ready {
        /// Which.
        generation: GenerationId,
    },
    /// What the memory has room for, as [`Action::Measure`] requested.
    Measured {
        /// In addition to this generation, which serves.
        room: Room,
        /// How many workers that one has, if they can be seen.
        workers: Option<u32>,
    },
    /// The workers of a generation were counted, as they are while [`State::counted`](super::State::counted) names it.
    Counted {
        /// Whose.
        generation: GenerationId,
        /// How many.
        workers: Headcount,
    },
    /// Whether the serving generation has workers that answer, if that has changed; or that a starting one has lost them.
    Workers {
        /// Whose.
        generation: GenerationId,
        /// The new state.
        presence: Presence,
    },
    /// A process of a generation has reported why it fails.
    FailureReported {
        /// Whose.
        generation: GenerationId,
        /// The reason.
        why: String,
    },
    /// A child ended. Children that are not main processes are ignored.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        outcome: Outcome,
        /// Whether other processes of its generation are still running.
        survivors: bool,
    },
    /// A generation whose main process has ended has no processes left.
    GenerationEmpty {
        /// Which.
        generation: GenerationId,
    },
    /// We have no descendants at all.
    NoChildren,
    /// Time has passed.
    Tick,
}
