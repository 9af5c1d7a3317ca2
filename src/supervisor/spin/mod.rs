//! Finds workers that spin, and reports them with their stacks. [`policy`] decides; this component observes.
//!
//! A worker that has nothing to do and uses a processor says so on the scoreboard, and wakes the launcher through the pipe
//! of [`super::dealing`]. While no worker does, nothing is looked at. [`super::recycling`] replaces it if that is wanted.

pub mod policy;
mod samples;

use std::os::fd::AsFd;

use tracing::warn;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::generation::Main;
use super::observers::log::show_rounded;
use super::worker_watch::WorkerWatch;
use crate::guard::scoreboard::{self, State};
use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;
use crate::proc::thread_stats::ThreadStats;
use policy::{Rules, Sample, Spinning, Verdict};
use samples::Samples;

/// Looks for workers that spin.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// The watch over the serving generation.
    watched: Option<WorkerWatch<Spinning>>,
    /// The stacks of a worker that has just been found.
    samples: Option<Samples>,
}

impl Component for Spin {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        let wakeup = |(generation, _)| world.running.get(&generation)?.channels.wakeup.as_ref();
        if let Some(wakeup) = world.to_be_watched_for_spin().and_then(wakeup) {
            waits.readable(wakeup.as_fd());
        }
    }

    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        self.go_on_sampling(world);
        let Some((generation, rules)) = world.to_be_watched_for_spin() else {
            self.watched = None;
            world.workers.spinning.clear();
            return Vec::new();
        };
        let wakeup = world.running.get(&generation).and_then(|running| running.channels.wakeup.as_ref());
        if wakeup.is_some_and(|wakeup| ready.is_ready(wakeup)) {
            self.look(generation, rules, world);
        }
        Vec::new()
    }
}

impl Spin {
    fn look(&mut self, generation: GenerationId, rules: Rules, world: &mut World) {
        let watched = self.watched.take().filter(|watched| watched.generation == generation);
        let watched =
            self.watched.insert(watched.unwrap_or_else(|| WorkerWatch::new(generation, Spinning::new(rules))));
        let suspects: Vec<Process> = world.suspects(generation);
        if suspects.is_empty() && watched.policy.is_idle() {
            return;
        }
        let sample = |process: &Process| {
            let stats = ThreadStats::read(process)?;
            Some(Sample { id: process.id(), runnable: stats.cpu + stats.delay })
        };
        let samples: Vec<Sample> = suspects.iter().filter_map(sample).collect();
        for verdict in watched.policy.look(scoreboard::now(), &samples) {
            report(generation, &verdict);
            self.samples.get_or_insert_with(|| Samples::new(generation, verdict.id));
        }
        // It is not replaced before it has answered.
        let is_asked = |id: &ProcessId| self.samples.as_ref().is_some_and(|samples| samples.worker() == *id);
        world.workers.spinning = watched.policy.reported().filter(|id| !is_asked(id)).collect();
    }

    /// Asks the worker for its stacks, several times: it is not always where its time goes.
    fn go_on_sampling(&mut self, world: &mut World) {
        let Some(samples) = &mut self.samples else { return };
        samples.go_on(&mut world.inquiries, &mut world.ends);
        if samples.are_complete() {
            samples.write();
            let id = samples.worker();
            if self.watched.as_ref().is_some_and(|watched| watched.policy.reported().any(|reported| reported == id)) {
                world.workers.spinning.insert(id);
            }
            self.samples = None;
        }
    }
}

fn report(generation: GenerationId, verdict: &Verdict) {
    let Verdict { id, since, runnable } = verdict;
    let percent = runnable.as_nanos() * 100 / since.as_nanos().max(1);
    let since = show_rounded(since);
    warn!(
        generation = generation.0, pid = %id, since, runnable = %format!("{percent}%"),
        "worker spins: it uses a processor although it has nothing to do"
    );
}

impl World {
    fn to_be_watched_for_spin(&self) -> Option<(GenerationId, Rules)> {
        let serving = self.state.serving().filter(|_| !self.state.is_ending())?;
        let Main::Alive(_) = serving.main else { return None };
        let after = self.plans.get(&serving.plan)?.spin?.after;
        Some((serving.id, Rules { after, interval: crate::guard::spin_interval(after) }))
    }

    /// The workers of a generation that say that they have nothing to do and use a processor.
    fn suspects(&self, generation: GenerationId) -> Vec<Process> {
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        let says_so = |slot: &scoreboard::Slot| slot.may_spin && slot.state == State::Ready;
        if !board.is_some_and(|board| board.slots().iter().any(says_so)) {
            return Vec::new();
        }
        self.slots(generation).into_iter().filter(|(_, slot)| says_so(slot)).map(|(process, _)| process).collect()
    }
}
