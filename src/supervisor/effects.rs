//! Carries out the actions of the state machine and of the components' policies. Nothing else acts on processes and
//! sockets, and nothing is decided here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;
use tracing::{debug, warn};

use super::World;
use super::generation_start::{failure, start, with_one_worker};
use super::machine::action::Action;
use super::machine::event::Event;
use super::machine::generation::{Main, Startup};
use super::machine::outcome::SpawnFailure;
use crate::ids::{GenerationId, PlanId, ProcessId};
use crate::plan::Plan;
use crate::problem::Exit;
use crate::proc::memory;
use crate::proc::process::{self, Process};
use crate::run::listener::Remaining;
use crate::run::signal_all;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::SpawnError;

impl World {
    /// Carries out an action, and returns the resulting event if the state machine waits for it.
    pub(super) fn carry_out(&mut self, action: &Action) -> Option<Event> {
        match *action {
            Action::Spawn { generation, plan, startup, on_trial } => {
                return Some(self.spawn(generation, plan, startup, on_trial));
            }
            Action::EndTrial { generation } => self.end_trial(generation),
            Action::PrepareLeave { staying } => self.hold_numbers(staying),
            Action::Retire { generation, within, occasion } => {
                return Some(self.retire(generation, within, occasion));
            }
            Action::RetireWorker { generation, worker, within, has_successor } => {
                if has_successor {
                    self.announce_successor(generation, worker);
                }
                self.retire_worker(generation, worker, within);
            }
            Action::RetireOldest { generation, within } => return Some(self.retire_oldest(generation, within)),
            Action::Keep { generation } => self.keep(generation),
            Action::Measure { generation } => return Some(self.measure(generation)),
            Action::Replan { choice, workers } => return self.make_plan_again(choice, workers),
            Action::Steer { generation } => self.steer_to(&[(generation, 1)]),
            Action::Share { parts } => self.steer_to(&parts),
            Action::Deal { generation, ref withheld } => self.listeners.withhold(generation, withheld.clone()),
            Action::Limit { generation, worker, limit } => self.limit(generation, worker, limit),
            Action::AskForStacks { generation, worker, number } => self.ask_for_stacks(generation, worker, number),
            Action::InterruptForStacks { generation, worker, all_threads } => {
                self.interrupt_for_stacks(generation, worker, all_threads);
            }
            Action::TakeListenersBack { generation } => self.listeners.release(generation, Remaining::Own),
            Action::CloseListener { inode, shut_down } => self.listeners.close(inode, shut_down),
            Action::KillDraining { generation } => signal_all(&self.draining_workers(generation), Signal::SIGKILL),
            Action::Signal { generation, signal } => self.signal_main(generation, signal),
            Action::SignalProcess { process, signal } => signal_process(process, signal),
            Action::ShutDownSocket { holder, descriptor } => shut_down(holder, descriptor),
            Action::SignalRest { generation, signal } => {
                signal_all(&self.rest(generation), signal);
                self.signal_blindly(Some(generation), signal);
            }
            Action::SignalStrays(signal) => {
                signal_all(&self.strays(), signal);
                self.signal_blindly(None, signal);
            }
            Action::Kill { generation } => {
                kill_until_none_is_new(|| self.members(generation));
                self.signal_blindly(Some(generation), Signal::SIGKILL);
            }
            Action::KillAll => {
                kill_until_none_is_new(own_descendants);
                self.signal_blindly(None, Signal::SIGKILL);
            }
            // For the observers.
            Action::RefuseClients | Action::Reply { .. } | Action::Log(_) | Action::Exit(_) => {}
        }
        None
    }

    fn spawn(&mut self, generation: GenerationId, plan_id: PlanId, startup: Startup, on_trial: bool) -> Event {
        let Some(plan) = self.plans.get(&plan_id) else {
            let failure = SpawnFailure::Program(Exit::NotFound.code());
            return Event::SpawnFailed { generation, failure, why: "its plan no longer exists".into() };
        };
        let lends = plan.descriptors.iter().any(|descriptor| descriptor.what.is_public_listener());
        if lends {
            self.steer_past_newcomer();
        }
        let plan = match startup {
            Startup::Full => Cow::Borrowed(plan),
            Startup::OneWorker => Cow::Owned(with_one_worker(plan)),
        };
        let is_alone = self.running.is_empty();
        match start(&plan, generation, is_alone, &mut self.listeners, self.inherited) {
            Ok(mut running) => {
                let pid = running.main;
                running.on_trial = on_trial;
                if lends && self.running.is_empty() {
                    self.listeners.open_to(generation);
                }
                self.running.insert(generation, running);
                Event::Spawned { generation, pid }
            }
            Err(error) => {
                let failed = not_started(generation, &plan, error);
                self.end_handover(generation);
                failed
            }
        }
    }

    /// A main process has executed its program: only from now on it takes memory. Until then, it may be as inaccessible
    /// to us as our own memory is to others.
    pub(super) fn executed(&self, generation: GenerationId) {
        if let Some(running) = self.running.get(&generation).filter(|running| running.on_trial) {
            memory::offer_to_oom_killer(running.main);
        }
    }

    /// A main process was reaped: returns why it never executed its program, if that is the case.
    pub(super) fn exec_failed(&self, generation: GenerationId) -> Option<Event> {
        let error = self.running.get(&generation)?.exec.failure()?;
        Some(not_started(generation, self.plan_of(generation)?, error))
    }

    /// Releases what belonged to generations that have ended.
    pub(super) fn release_ended(&mut self) {
        let is_gone = |id: &GenerationId| self.state.generations().iter().all(|generation| generation.id != *id);
        let gone: Vec<GenerationId> = self.running.keys().copied().filter(is_gone).collect();
        for generation in gone {
            self.count_requests(generation);
            self.totals.forget(generation);
            self.running.remove(&generation);
            self.end_handover(generation);
        }
    }

    fn limit(&self, generation: GenerationId, worker: ProcessId, limit: u32) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            board.set_limit(worker.pid, limit);
        }
    }

    fn signal_main(&mut self, generation: GenerationId, signal: Signal) {
        let members = self.members(generation);
        let Some(running) = self.running.get_mut(&generation) else { return };
        let leaving = signal == Signal::SIGTERM;
        if leaving {
            running.seen.extend(members.iter().map(Process::id));
        }
        // Our child until we reap it: its pid cannot have been reused.
        let _ = nix::sys::signal::kill(running.main, signal);
        if leaving {
            for stopped in members.iter().filter(|member| member.state == 'T') {
                let _ = stopped.signal(Signal::SIGCONT);
            }
            self.signal_blindly(Some(generation), Signal::SIGCONT);
        }
    }

    /// If processes cannot be seen, signals the process groups of one generation or of all: their main processes once
    /// more, and everything that has not left the group.
    fn signal_blindly(&self, generation: Option<GenerationId>, signal: Signal) {
        if process::are_visible() {
            return;
        }
        let of_it = |id: &GenerationId| generation.is_none_or(|generation| generation == *id);
        for (_, running) in self.running.iter().filter(|(id, _)| of_it(id)) {
            process::signal_group(running.main, signal);
        }
    }

    pub(super) fn members(&self, generation: GenerationId) -> Vec<Process> {
        let Some(running) = self.running.get(&generation) else { return Vec::new() };
        process::members(&own_descendants(), running.main, &running.seen)
    }

    /// All processes of a generation but its main process.
    fn rest(&self, generation: GenerationId) -> Vec<Process> {
        let main = self.running.get(&generation).map(|running| running.main);
        self.members(generation).into_iter().filter(|member| Some(member.pid) != main).collect()
    }

    /// All our descendants but the main processes, which have already got the signal.
    fn strays(&self) -> Vec<Process> {
        let mains: Vec<Pid> = self
            .state
            .generations()
            .iter()
            .filter_map(|g| if let Main::Alive(pid) = g.main { Some(pid) } else { None })
            .collect();
        own_descendants().into_iter().filter(|process| !mains.contains(&process.pid)).collect()
    }
}

fn not_started(generation: GenerationId, plan: &Plan, error: SpawnError) -> Event {
    warn!(generation = generation.0, program = %plan.program.display(), %error, "cannot start the server");
    Event::SpawnFailed { generation, failure: failure(error), why: error.to_string() }
}

/// Only if it is still the same process.
fn signal_process(id: ProcessId, signal: Signal) {
    let result = Process::read(id.pid).filter(|process| process.id() == id).map(|process| process.signal(signal));
    if let Some(Err(errno)) = result {
        debug!(pid = %id, %signal, errno = errno.desc(), "not signalled");
    }
}

fn shut_down(holder: ProcessId, descriptor: i32) {
    let copy = PidFd::open(holder.pid).and_then(|handle| {
        let is_it = Process::read(holder.pid).is_some_and(|process| process.id() == holder);
        if is_it { handle.take_copy(descriptor) } else { Err(Errno::ESRCH) }
    });
    let pid = holder.pid;
    match copy.and_then(|socket| shutdown(socket.as_raw_fd(), Shutdown::Both)) {
        Ok(()) => warn!(%pid, "a child of a worker that has ended held its listening socket: shut down"),
        Err(errno) => {
            let error = errno.desc();
            warn!(%pid, error, "a child of a worker that has ended holds its listening socket: SIGKILL");
            signal_process(holder, Signal::SIGKILL);
        }
    }
}

/// All that descends from the launcher.
pub(super) fn own_descendants() -> Vec<Process> {
    process::descendants(nix::unistd::getpid())
}

/// A process that forks while we kill may leave a child that we have not seen: look again until there is nothing new.
fn kill_until_none_is_new(find: impl Fn() -> Vec<Process>) {
    const PASSES: usize = 20;
    let mut killed = HashSet::new();
    for _ in 0..PASSES {
        let new: Vec<Process> =
            find().into_iter().filter(|process| !process.is_zombie() && killed.insert(process.id())).collect();
        if new.is_empty() {
            return;
        }
        signal_all(&new, Signal::SIGKILL);
    }
}
