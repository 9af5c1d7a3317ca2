//! The watchdog replaces workers whose event loop is blocked. [`policy`] decides; this component observes and reports.
//!
//! The serving generation is watched, as long as its main process is running: otherwise no process would replace a
//! worker.

pub mod policy;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::warn;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::generation::Main;
use super::observers::log::show_rounded;
use super::stacks::Purpose;
use super::worker_watch::WorkerWatch;
use super::workers::Cause;
use crate::guard::scoreboard::{self, Slot};
use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;
use crate::proc::thread_stats::ThreadStats;
use crate::proc::usage;
use crate::settings::value::show_span;
use policy::{Liveness, Remedy, Rules, Sample, Stamp, Verdict};

/// The resolution of the kernel's start times.
const TICK: Duration = Duration::from_millis(100);

/// Looks for workers whose event loop is blocked.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// The watch over the serving generation.
    watched: Option<WorkerWatch<Liveness>>,
    /// The worker that is to be ended.
    pending: Option<Pending>,
}

/// A worker that hangs, and is asked where it is before it is ended.
#[derive(Debug)]
struct Pending {
    worker: ProcessId,
    signal: Signal,
    /// When it is ended without an answer.
    until: Instant,
}

/// How long it may take until a worker that hangs has told where it is, other questions before this one included.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1200);

impl Component for Watchdog {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        let next = self.watched.as_ref().and_then(|watched| watched.policy.next());
        waits.until(next.map(|next| Instant::now() + next.saturating_sub(scoreboard::now())));
        let end_at = |pending: &Pending| world.inquiries.due(pending.worker, Purpose::Hang, pending.until);
        waits.until(self.pending.as_ref().map(end_at));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let Some((generation, rules)) = world.to_be_watched() else {
            (self.watched, self.pending) = (None, None);
            world.workers.replaces_hung = false;
            return Vec::new();
        };
        let now = scoreboard::now();
        let before = self.watched.take().filter(|watched| watched.generation == generation);
        let watched = before.unwrap_or_else(|| WorkerWatch::new(generation, Liveness::new(rules, now)));
        let watched = self.watched.insert(watched);
        let has_changed = watched.take_change(world.workers.revision());
        let is_due = has_changed || watched.policy.next().is_some_and(|next| next <= now);
        for (worker, remedy) in if is_due { watched.look(world, &rules, now) } else { Vec::new() } {
            let signal = if remedy == Remedy::Abort { Signal::SIGABRT } else { Signal::SIGKILL };
            // Whoever did not end on SIGABRT was asked before.
            let patience = if remedy == Remedy::Finish { Duration::ZERO } else { ANSWERED_WITHIN };
            self.pending = Some(Pending { worker, signal, until: Instant::now() + patience });
            if remedy != Remedy::Finish {
                world.inquiries.ask_about(worker, Purpose::Hang);
            }
        }
        world.workers.replaces_hung = watched.policy.is_ending();
        self.end_pending(generation, world).into_iter().collect()
    }
}

impl Watchdog {
    /// Ends the worker that is to be ended, once it has told where it is.
    fn end_pending(&mut self, generation: GenerationId, world: &mut World) -> Option<Output> {
        let pending = self.pending.as_ref()?;
        let answers = world.inquiries.take_answers_about(pending.worker, Purpose::Hang);
        for answer in answers.iter().flatten() {
            world.ends.keep_stack(pending.worker, answer);
        }
        if answers.is_empty() && Instant::now() < pending.until {
            return None;
        }
        let Pending { worker, signal, .. } = self.pending.take()?;
        world.workers.mark_killed(generation, worker.pid, Cause::Hung);
        Some(Action::SignalProcess { process: worker, signal }.into())
    }
}

impl WorkerWatch<Liveness> {
    /// The workers that are to be ended, and how.
    fn look(&mut self, world: &World, rules: &Rules, now: Duration) -> Vec<(ProcessId, Remedy)> {
        let workers = world.workers.of(self.generation);
        let planned = world.workers.planned(self.generation).unwrap_or(1) as usize;
        let samples = world.samples(self.generation, &workers, now);
        let process = |id: ProcessId| workers.iter().find(|process| process.id() == id);
        let stats = |id| ThreadStats::read(process(id)?);
        let verdicts = self.policy.look(now, planned, &samples, stats);
        let judged = verdicts.into_iter().filter_map(|verdict| Some((process(verdict.id)?, verdict)));
        let to_be_ended = judged.filter(|(process, verdict)| self.report(world, process, verdict, rules.timeout));
        to_be_ended.map(|(_, verdict)| (verdict.id, verdict.remedy)).collect()
    }

    /// Logs the finding about a worker, and returns whether it is to be ended.
    fn report(&self, world: &World, process: &Process, verdict: &Verdict, timeout: Duration) -> bool {
        let generation = self.generation;
        let Verdict { remedy, is_starting, silent, watched, cpu, state, .. } = verdict;
        let pid = process.pid;
        let in_flight = world.in_flight(generation, pid);
        let (silent, watched, timeout) = (show_rounded(silent), show_rounded(watched), show_span(timeout));
        let cpu = show_rounded(cpu);
        match remedy {
            Remedy::Report => {
                warn!(
                    generation = generation.0, %pid, silent, in_flight,
                    "worker is stuck writing to its standard output or standard error, which is not read: not replacing it"
                );
                return false;
            }
            Remedy::Finish => {
                warn!(generation = generation.0, %pid, "the hung worker does not respond to SIGABRT: SIGKILL");
            }
            Remedy::Abort | Remedy::Kill if *is_starting => {
                warn!(generation = generation.0, %pid, starting = silent, %state, cpu, last = watched, "worker does not become ready");
            }
            Remedy::Abort | Remedy::Kill => {
                warn!(generation = generation.0, %pid, silent, timeout, %state, cpu, last = watched, in_flight, "worker hung");
            }
        }
        true
    }
}

impl World {
    fn to_be_watched(&self) -> Option<(GenerationId, Rules)> {
        let serving = self.state.serving().filter(|_| !self.state.is_ending())?;
        let Main::Alive(_) = serving.main else { return None };
        self.running.get(&serving.id)?.board.as_ref()?;
        let plan = self.plans.get(&serving.plan)?;
        let rules = Rules {
            timeout: plan.policy.worker_timeout?,
            startup: plan.policy.startup_timeout,
            pace: plan.capabilities.least_age,
            all_take_slots: plan.capabilities.all_children_are_workers,
        };
        Some((serving.id, rules))
    }

    /// The reports of a generation's workers, each with the time when its process was started.
    fn samples(&self, generation: GenerationId, workers: &[Process], now: Duration) -> Vec<Sample> {
        let slots = self.slots(generation);
        let sample = |process: &Process| {
            let slot = slots.iter().find(|(found, _)| found.pid == process.pid).map(|(_, slot)| slot);
            let stamp = slot.map(|slot| Stamp {
                state: slot.state,
                claimed: slot.claimed,
                heartbeat: slot.heartbeat,
                no_lifespan: slot.no_lifespan,
                traceback_on_abort: slot.traceback_on_abort,
            });
            let started = now.saturating_sub(usage::age(process));
            Sample { id: process.id(), started, stamp }
        };
        workers.iter().map(sample).collect()
    }

    /// The workers of a generation that have a slot on its scoreboard. What a dead process with the same pid left there
    /// is not theirs.
    pub(super) fn slots(&self, generation: GenerationId) -> Vec<(Process, Slot)> {
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        let slots = board.map(scoreboard::Scoreboard::slots).unwrap_or_default();
        pair(&slots, &self.workers.of(generation), scoreboard::now())
    }

    fn in_flight(&self, generation: GenerationId, pid: Pid) -> u32 {
        self.slots(generation).iter().find(|(process, _)| process.pid == pid).map_or(0, |(_, slot)| slot.in_flight)
    }
}

/// Each process with the slot that it took itself.
pub(super) fn pair(slots: &[Slot], workers: &[Process], now: Duration) -> Vec<(Process, Slot)> {
    let own = |process: &Process| {
        let slot = slots.iter().find(|slot| slot.pid == process.pid)?;
        let started = now.saturating_sub(usage::age(process)).saturating_sub(TICK);
        (slot.claimed >= started).then_some((*process, *slot))
    };
    workers.iter().filter_map(own).collect()
}
