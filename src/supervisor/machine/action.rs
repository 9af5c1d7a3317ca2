//! What the state machine wants done.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::event::Requester;
use super::generation::Startup;
use super::leaving::Occasion;
use super::note::Note;
use super::plan_facts::Choice;
use crate::ids::{GenerationId, PlanId, ProcessId};

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
        /// Whether the OOM killer is to choose it first until it is ready, because another generation serves.
        on_trial: bool,
    },
    /// A generation is ready, so it gets the normal OOM score.
    EndTrial {
        /// Which.
        generation: GenerationId,
    },
    /// The main process of a generation is about to be told to leave while another generation serves. New clients must
    /// not be given to a listening socket that is just being closed.
    PrepareLeave {
        /// The one that serves.
        staying: GenerationId,
    },
    /// Tell the workers of a generation that they leave, so that they part from their clients, and answer with
    /// [`Event::Leaving`].
    Retire {
        /// Whose.
        generation: GenerationId,
        /// The time in which they must be gone.
        within: Duration,
        /// Why.
        occasion: Occasion,
    },
    /// Tell one worker the same.
    RetireWorker {
        /// Whose it is.
        generation: GenerationId,
        /// Which.
        worker: ProcessId,
        /// The time in which it must be gone.
        within: Duration,
    },
    /// Tell the same to the worker that the main process will end first when it is told to have one fewer: the oldest.
    RetireOldest {
        /// Whose.
        generation: GenerationId,
        /// The time in which it must be gone.
        within: Duration,
    },
    /// Tell the workers of a generation that they stay after all.
    Keep {
        /// Whose.
        generation: GenerationId,
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
    /// Give no new clients to some workers of a generation that each have a listening socket from us.
    Deal {
        /// Whose.
        generation: GenerationId,
        /// Which sockets, counted from 0.
        withheld: BTreeSet<usize>,
    },
    /// Take the listening sockets back that a generation was lent and does not use.
    TakeListenersBack {
        /// Whose.
        generation: GenerationId,
    },
    /// Refuse new clients as soon as the servers have stopped accepting them: everything ends.
    RefuseClients,
    /// Close our copy of a listening socket.
    CloseListener {
        /// Its inode.
        inode: u64,
        /// Whether to shut it down, for everybody who has a copy.
        shut_down: bool,
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
    /// Send a signal to one process.
    SignalProcess {
        /// Which.
        process: ProcessId,
        /// Which signal.
        signal: Signal,
    },
    /// Shut down a listening socket that nobody accepts from, through a copy of it. Where the kernel does not give us
    /// one, KILL the process that holds it.
    ShutDownSocket {
        /// Who holds it.
        holder: ProcessId,
        /// Under which number.
        descriptor: i32,
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
        /// What was chosen while running.
        choice: Choice,
        /// Workers more or fewer than now.
        workers: i32,
    },
    /// Tell who waits for a reload how it went: the new generation's number, or why the old one was kept.
    Reply {
        /// Who.
        request: Requester,
        /// What.
        result: Result<GenerationId, String>,
    },
    /// Write to the log.
    Log(Note),
    /// End, with this status.
    Exit(u8),
}
