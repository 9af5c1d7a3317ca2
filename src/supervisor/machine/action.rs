//! The actions that the state machine decides on.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::disconnecting::Occasion;
use super::event::Requester;
use super::generation::Startup;
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
        /// The plan to start it by.
        plan: PlanId,
        /// The number of workers.
        startup: Startup,
        /// Whether the OOM killer is to choose it first until it is ready, because another generation serves.
        on_trial: bool,
    },
    /// A generation is ready, so it gets the normal OOM score.
    EndTrial {
        /// Which.
        generation: GenerationId,
    },
    /// The main process of a generation is about to be asked to stop while another generation serves. New clients must
    /// not be given to a listening socket that is being closed.
    PrepareLeave {
        /// The one that serves.
        staying: GenerationId,
    },
    /// Ask the workers of a generation to leave, so that they close their connections, and answer with
    /// [`Event::Leaving`].
    Retire {
        /// Whose.
        generation: GenerationId,
        /// The time by which they must have ended.
        within: Duration,
        /// Why.
        occasion: Occasion,
    },
    /// Ask one worker to leave.
    RetireWorker {
        /// Whose it is.
        generation: GenerationId,
        /// Which.
        worker: ProcessId,
        /// The time by which it must have ended.
        within: Duration,
        /// Whether there is another in its place already, which its main process has to know.
        has_successor: bool,
    },
    /// Ask the worker to leave that the main process will end first when it gets one fewer, the oldest, and answer with
    /// [`Event::WorkerLeaving`]. Nothing is asked of an only worker.
    RetireOldest {
        /// Whose.
        generation: GenerationId,
        /// The time by which it must have ended.
        within: Duration,
    },
    /// Tell the workers of a generation that they stay after all.
    Keep {
        /// Whose.
        generation: GenerationId,
    },
    /// Find out whether the memory has room for another generation in addition to this one, and answer with
    /// [`Event::Measured`].
    Measure {
        /// The generation that serves.
        generation: GenerationId,
    },
    /// Send new clients to this generation only.
    Steer {
        /// Which.
        generation: GenerationId,
    },
    /// Distribute new clients among generations that have their listening sockets from us.
    Share {
        /// Which, and their shares.
        parts: [(GenerationId, u32); 2],
    },
    /// Send no new clients to some workers of a generation that each have a listening socket from us.
    Deal {
        /// Whose.
        generation: GenerationId,
        /// Which sockets, by index from 0.
        withheld: BTreeSet<usize>,
    },
    /// Change how many requests a worker may have in progress.
    Limit {
        /// Whose it is.
        generation: GenerationId,
        /// Which.
        worker: ProcessId,
        /// The new limit.
        limit: u32,
    },
    /// Ask a worker what it is doing.
    AskForStacks {
        /// Whose it is.
        generation: GenerationId,
        /// Which.
        worker: ProcessId,
        /// The number of the question.
        number: u32,
    },
    /// Have a worker that does not react to that show where its threads are, although its interpreter stands still.
    InterruptForStacks {
        /// Whose it is.
        generation: GenerationId,
        /// Which.
        worker: ProcessId,
        /// Whether to show all threads: none of them may be running Python code.
        all_threads: bool,
    },
    /// Take back the listening sockets that were lent to a generation and that it does not use.
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
        /// Whether to shut it down, for all processes that have a copy.
        shut_down: bool,
    },
    /// KILL the workers of a generation that accept no more clients.
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
    /// Shut down a listening socket from which no process accepts, through a copy of it. If the kernel does not give us
    /// one, KILL the process that has it open.
    ShutDownSocket {
        /// The process that has it open.
        holder: ProcessId,
        /// Its descriptor there.
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
    /// Read the settings and the machine again and answer with [`Event::Planned`].
    Replan {
        /// What was chosen at run time.
        choice: Choice,
        /// The change in the number of workers.
        workers: i32,
    },
    /// Report the outcome of a reload: the new generation's number, or why the old one was kept.
    Reply {
        /// To whom.
        request: Requester,
        /// The outcome.
        result: Result<GenerationId, String>,
    },
    /// Write to the log.
    Log(Note),
    /// End, with this status.
    Exit(u8),
}
