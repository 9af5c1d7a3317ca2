//! The supervisor's part of the watch over workers: what it tells of its generations, and what is logged.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use tracing::{debug, info, warn};

use crate::ids::GenerationId;
use crate::supervisor::Supervisor;
use crate::supervisor::machine::generation;
use crate::supervisor::machine::generation::{Main, Stage, Startup};
use crate::supervisor::observers::log::show_rounded;
use crate::supervisor::workers::{self, Cause, Roster, WorkerExit};

impl Supervisor<'_> {
    /// Takes note of workers that ended and of new ones.
    pub(in crate::supervisor) fn watch_workers(&mut self, ready: &BTreeSet<RawFd>) {
        let now = Instant::now();
        self.workers.follow(&self.rosters(), now);
        let exits = self.workers.advance(ready, now);
        self.take_note(&exits);
    }

    /// Looks for workers now, for somebody who asks.
    pub(in crate::supervisor) fn look_at_workers(&mut self) {
        let now = Instant::now();
        self.workers.follow(&self.rosters(), now);
        let exits = self.workers.look(now);
        self.take_note(&exits);
    }

    fn take_note(&mut self, exits: &[WorkerExit]) {
        for exit in exits {
            // Before its successor has its slot.
            self.count_requests(exit.generation);
            write_death(exit);
        }
    }

    /// What the workers of a generation have done with requests until now is added to the whole.
    pub(in crate::supervisor) fn count_requests(&mut self, generation: GenerationId) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            self.totals.note(generation, &board.slots());
        }
    }

    /// Gunicorn's main process changes the number of its workers on these signals.
    pub(in crate::supervisor) fn expect_workers(&mut self, generation: GenerationId, signal: Signal) {
        let more = match signal {
            Signal::SIGTTIN => 1,
            Signal::SIGTTOU => -1,
            _ => return,
        };
        self.workers.expect_more(generation, more, Instant::now());
    }

    fn rosters(&self) -> Vec<Roster> {
        let roster = |found: &generation::Generation| {
            let running = self.running.get(&found.id)?;
            let stage = match found.stage {
                _ if self.state.is_ending() => workers::Stage::Leaving,
                Stage::Starting { .. } => workers::Stage::Starting,
                Stage::Serving { .. } => workers::Stage::Serving,
                Stage::Leaving(_) => workers::Stage::Leaving,
            };
            Some(Roster {
                generation: found.id,
                main: running.main,
                main_alive: matches!(found.main, Main::Alive(_)),
                planned: match found.startup {
                    Startup::OneWorker => 1,
                    Startup::Full => self.plans.get(&found.plan).map_or(0, |plan| plan.workers),
                },
                stage,
            })
        };
        self.state.generations().iter().filter_map(roster).collect()
    }
}

fn write_death(exit: &WorkerExit) {
    let WorkerExit { generation, pid, cause, age, restarts, expected, .. } = exit;
    let age = show_rounded(age);
    match cause {
        _ if *expected => debug!(generation = generation.0, %pid, %cause, age, "worker exit, as it should"),
        // Servers replace their workers now and then (a number of requests), and so do we.
        Cause::Exit(0) | Cause::Rss | Cause::Age => {
            info!(generation = generation.0, %pid, %cause, age, restarts, "worker exit");
        }
        _ => warn!(generation = generation.0, %pid, %cause, age, restarts, "worker exit"),
    }
}
