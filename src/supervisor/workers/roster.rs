//! The supervisor's part of the watch over workers: what it tells of its generations, and what is logged.

use std::time::Instant;

use nix::sys::signal::Signal;
use tracing::{debug, info, warn};

use super::{Cause, Roster, WorkerExit};
use crate::ids::GenerationId;
use crate::supervisor::World;
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::generation::{self, Main, Stage};
use crate::supervisor::observers::log::show_rounded;

/// Sees who the workers are, when one ends, and why.
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
        let exits = world.workers.advance(ready.descriptors(), now);
        world.record(&exits);
        Vec::new()
    }

    /// Gunicorn's main process changes the number of its workers on these signals.
    fn observe(&mut self, world: &mut World, action: &Action) {
        let (generation, more) = match action {
            Action::Signal { generation, signal: Signal::SIGTTIN } => (*generation, 1),
            Action::Signal { generation, signal: Signal::SIGTTOU } => (*generation, -1),
            _ => return,
        };
        world.workers.expect_more(generation, more, Instant::now());
    }
}

impl World {
    /// Looks for workers now, for somebody who asks.
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
            write_exit(exit);
        }
    }

    /// What the workers of a generation have done with requests until now is added to the whole.
    pub(in crate::supervisor) fn count_requests(&mut self, generation: GenerationId) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            self.totals.note(generation, &board.slots());
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
            Some(Roster {
                generation: found.id,
                main: running.main,
                main_alive: matches!(found.main, Main::Alive(_)),
                planned: found.startup.workers(self.plans.get(&found.plan).map_or(0, |plan| plan.workers)),
                stage,
            })
        };
        self.state.generations().iter().filter_map(roster).collect()
    }
}

fn write_exit(exit: &WorkerExit) {
    let WorkerExit { generation, pid, cause, age, restarts, expected, .. } = exit;
    let age = show_rounded(age);
    match cause {
        _ if *expected => debug!(generation = generation.0, %pid, %cause, age, "worker exit, as expected"),
        // Servers replace their workers now and then (a number of requests), and so do we.
        Cause::Exit(0) | Cause::Rss | Cause::Age => {
            info!(generation = generation.0, %pid, %cause, age, restarts, "worker exit");
        }
        _ => warn!(generation = generation.0, %pid, %cause, age, restarts, "worker exit"),
    }
}
