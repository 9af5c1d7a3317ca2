//! The component for workers: it follows the generations, and logs the ends of workers.

use std::time::Instant;

use nix::sys::signal::Signal;
use tracing::field::display;
use tracing::{debug, info, warn};

use super::{Cause, Repeat, Roster, WorkerExit};
use crate::ids::GenerationId;
use crate::supervisor::World;
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::ends::story::Remains;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::generation::{self, Main, Stage};
use crate::supervisor::observers::log::show_rounded;
use crate::supervisor::recycling::show_mebibytes;

/// Finds out which workers there are, when one ends, and why.
#[derive(Debug)]
pub(in crate::supervisor) struct Watch;

impl Component for Watch {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        let (handles, look) = world.workers.interest();
        for handle in handles {
            waits.readable(handle);
        }
        waits.until(look);
    }

    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        world.workers.follow(&world.rosters(), now);
        for (generation, Repeat { cause, more }) in world.workers.take_repeats() {
            warn!(generation = generation.0, "…and {more} more: {cause}");
        }
        let exits = world.workers.advance(ready.descriptors(), now);
        world.record(&exits);
        Vec::new()
    }

    /// Gunicorn's main process changes the number of its workers on these signals, and when a worker with a successor ends.
    fn observe(&mut self, world: &mut World, action: &Action) {
        let (generation, more) = match action {
            Action::Signal { generation, signal: Signal::SIGTTIN } => (*generation, 1),
            Action::Signal { generation, signal: Signal::SIGTTOU }
            | Action::RetireWorker { generation, has_successor: true, .. } => (*generation, -1),
            _ => return,
        };
        world.workers.expect_more(generation, more, Instant::now());
    }
}

impl World {
    /// Searches for workers now, because a client asked.
    pub(in crate::supervisor) fn look_at_workers(&mut self) {
        let now = Instant::now();
        self.workers.follow(&self.rosters(), now);
        let exits = self.workers.look(now);
        self.record(&exits);
    }

    fn record(&mut self, exits: &[WorkerExit]) {
        for exit in exits {
            // Before its successor has its slot.
            self.count_requests(exit.generation);
            let remains = self.remains(exit.generation, &[exit.process]).pop();
            write_exit(exit, remains.as_ref());
            self.record_worker(exit, remains.as_ref());
        }
    }

    /// Adds the requests of a generation's workers so far to the total.
    pub(in crate::supervisor) fn count_requests(&mut self, generation: GenerationId) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            self.totals.note(generation, &board.durations());
        }
    }

    fn rosters(&self) -> Vec<Roster> {
        let roster = |found: &generation::Generation| {
            let running = self.running.get(&found.id)?;
            let stage = match found.stage {
                _ if self.state.is_ending() => super::RosterStage::Leaving,
                Stage::Starting { .. } => super::RosterStage::Starting,
                Stage::Serving { .. } => super::RosterStage::Serving,
                Stage::Lingering { .. } | Stage::Leaving(_) => super::RosterStage::Leaving,
            };
            let plan = self.plans.get(&found.plan);
            let all_are_workers = plan.is_some_and(|plan| plan.capabilities.all_children_are_workers);
            let is_told_apart = stage == super::RosterStage::Starting && !all_are_workers;
            let known_by = if is_told_apart { self.listeners.inodes(found.id).first().copied() } else { None };
            Some(Roster {
                generation: found.id,
                main: running.main,
                main_alive: matches!(found.main, Main::Alive(_)),
                planned: found.startup.workers(plan.map_or(0, |plan| plan.workers)),
                stage,
                known_by,
            })
        };
        self.state.generations().iter().filter_map(roster).collect()
    }
}

fn write_exit(exit: &WorkerExit, remains: Option<&Remains>) {
    let WorkerExit { generation, cause, age, restarts, expected, is_repeat, .. } = exit;
    let (pid, age) = (exit.pid(), show_rounded(age));
    let memory = remains.and_then(|remains| remains.report.as_ref()?.memory);
    let rss = memory.map(|memory| display(show_mebibytes(memory.resident)));
    let in_flight = remains.map(|remains| remains.slot.in_flight);
    match cause {
        _ if *expected || *is_repeat => debug!(generation = generation.0, %pid, %cause, age, expected, "worker exit"),
        // Servers replace their workers from time to time (after a number of requests), and so do we.
        Cause::Exit(0) | Cause::Rss | Cause::Age => {
            info!(generation = generation.0, %pid, %cause, age, restarts, rss, in_flight, "worker exit");
        }
        _ => warn!(generation = generation.0, %pid, %cause, age, restarts, rss, in_flight, "worker exit"),
    }
}
