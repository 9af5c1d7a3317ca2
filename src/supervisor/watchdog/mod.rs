//! The supervisor's part of the watch for hung workers: what it tells of them, and how it ends one.
//!
//! The generation that serves is watched, as long as its main process lives: nobody else would replace a worker.

pub mod policy;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{debug, warn};

use crate::guard::scoreboard::{self, Slot};
use crate::ids::GenerationId;
use crate::proc::process::{self as processes, Process};
use crate::proc::thread_stats::ThreadStats;
use crate::proc::usage;
use crate::settings::value::show_span;
use crate::supervisor::Supervisor;
use crate::supervisor::machine::generation::{Main, Startup};
use crate::supervisor::observers::log::show_rounded;
use crate::supervisor::workers::Cause;
use policy::{Id, Liveness, Remedy, Rules, Sample, Stamp, Verdict};

/// What the kernel tells of the time of a start is as fine as this.
const TICK: Duration = Duration::from_millis(100);

/// The watch over one generation.
#[derive(Debug)]
pub(super) struct Pulse {
    generation: GenerationId,
    liveness: Liveness,
    /// Of the list of workers, at the last look.
    revision: u64,
}

impl Pulse {
    /// When to look, in our own time.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(Instant::now() + self.liveness.next()?.saturating_sub(scoreboard::now()))
    }

    /// Whether a hung worker was ended, and there is no other in its place yet.
    pub(super) const fn is_ending(&self) -> bool {
        self.liveness.is_ending()
    }
}

impl Supervisor<'_> {
    /// Looks for hung workers where it is time to.
    pub(super) fn feel_pulse(&mut self) {
        let Some((generation, rules)) = self.to_be_watched() else {
            self.pulse = None;
            return;
        };
        let now = scoreboard::now();
        let revision = self.workers.revision();
        let mut pulse = match self.pulse.take() {
            Some(pulse) if pulse.generation == generation => pulse,
            _ => Pulse { generation, liveness: Liveness::new(rules, now), revision },
        };
        if revision != pulse.revision || pulse.liveness.next().is_some_and(|next| next <= now) {
            pulse.revision = revision;
            let workers = self.workers.of(generation);
            let planned = self.workers.planned(generation).unwrap_or(1) as usize;
            let samples = self.samples(generation, &workers, now);
            let process = |id: Id| workers.iter().find(|process| (process.pid, process.start) == id);
            let condition = |id| ThreadStats::read(process(id)?);
            for verdict in pulse.liveness.look(now, planned, &samples, condition) {
                if let Some(process) = process(verdict.id) {
                    self.carry_out_sentence(generation, process, &verdict, rules.timeout);
                }
            }
        }
        self.pulse = Some(pulse);
    }

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

    /// What the workers of a generation say, each with when its process was started.
    fn samples(&self, generation: GenerationId, workers: &[Process], now: Duration) -> Vec<Sample> {
        let slots = self.slots(generation);
        // Without the lifespan protocol a worker takes its slot with the first request, which may never come.
        let speaks_lifespan = slots.iter().any(|(_, slot)| !slot.no_lifespan);
        let sample = |process: &Process| {
            let slot = slots.iter().find(|(found, _)| found.pid == process.pid).map(|(_, slot)| slot);
            if slot.is_none() && !speaks_lifespan {
                return None;
            }
            let stamp = slot.map(|slot| Stamp {
                state: slot.state,
                claimed: slot.claimed,
                heartbeat: slot.heartbeat,
                traceback_on_abort: slot.traceback_on_abort,
            });
            let started = now.saturating_sub(usage::age(process));
            Some(Sample { id: (process.pid, process.start), started, stamp })
        };
        workers.iter().filter_map(sample).collect()
    }

    /// The workers of a generation that have a slot on its scoreboard. What a dead process of the same number left
    /// there is not theirs.
    pub(super) fn slots(&self, generation: GenerationId) -> Vec<(Process, Slot)> {
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        let slots = board.map(scoreboard::Scoreboard::slots).unwrap_or_default();
        pair(&slots, &self.workers.of(generation), scoreboard::now())
    }

    /// Whether all workers that a starting generation is to have are ready, as far as they can say so. Who has no
    /// scoreboard, or a server that does not tell the app when it starts, does not say.
    pub(super) fn is_complete(&self, generation: GenerationId) -> bool {
        let Some(running) = self.running.get(&generation) else { return true };
        let Some(found) = self.state.generations().iter().find(|found| found.id == generation) else { return true };
        let slots = running.board.as_ref().map(scoreboard::Scoreboard::slots).unwrap_or_default();
        let all = processes::descendants(nix::unistd::getpid());
        let members = processes::members(&all, running.main, &running.seen);
        let slots = pair(&slots, &members, scoreboard::now());
        let wanted = match found.startup {
            Startup::OneWorker => 1,
            Startup::Full => self.plans.get(&found.plan).map_or(1, |plan| plan.workers as usize),
        };
        let ready = slots.iter().filter(|(_, slot)| slot.state == scoreboard::State::Ready).count();
        ready >= wanted || slots.iter().all(|(_, slot)| slot.no_lifespan)
    }

    fn carry_out_sentence(
        &mut self,
        generation: GenerationId,
        process: &Process,
        verdict: &Verdict,
        timeout: Duration,
    ) {
        let Verdict { remedy, is_starting, silent, watched, cpu, state, .. } = verdict;
        let pid = process.pid;
        let in_flight = self.in_flight(generation, pid);
        let (silent, watched, timeout) = (show_rounded(silent), show_rounded(watched), show_span(timeout));
        let cpu = show_rounded(cpu);
        match remedy {
            Remedy::Report => {
                warn!(
                    generation = generation.0, %pid, silent, in_flight,
                    "worker waits for its standard output or standard error to be read: it is not replaced for that"
                );
                return;
            }
            Remedy::Finish => {
                warn!(generation = generation.0, %pid, "the hung worker does not act on SIGABRT: SIGKILL");
            }
            Remedy::Abort | Remedy::Kill if *is_starting => {
                warn!(generation = generation.0, %pid, starting = silent, %state, cpu, last = watched, "worker does not get ready");
            }
            Remedy::Abort | Remedy::Kill => {
                warn!(generation = generation.0, %pid, silent, timeout, %state, cpu, last = watched, in_flight, "worker hung");
            }
        }
        self.workers.mark_killed(generation, pid, Cause::Hung);
        let signal = if *remedy == Remedy::Abort { Signal::SIGABRT } else { Signal::SIGKILL };
        if let Err(errno) = process.signal(signal) {
            debug!(%pid, %signal, errno = errno.desc(), "not signalled");
        }
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
