//! Reports when executing a program takes long: it may be scanned, or be on a slow network file system. Otherwise
//! nothing would be logged until the generation is not ready in time.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use tracing::warn;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use crate::ids::GenerationId;

/// An exec that takes longer is reported.
const LONG: Duration = Duration::from_secs(3);

/// The generations whose main process has not executed its program yet, each with the time at which that is reported;
/// none if it was.
#[derive(Debug, Default)]
pub(super) struct Executing {
    waiting: BTreeMap<GenerationId, Option<Instant>>,
    newest: Option<GenerationId>,
}

impl Component for Executing {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        for (generation, say_at) in &self.waiting {
            if let Some(running) = world.running.get(generation) {
                waits.readable(running.exec.as_fd());
                waits.until(*say_at);
            }
        }
    }

    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let new = world.running.iter().filter(|(id, _)| self.newest.is_none_or(|newest| **id > newest));
        self.waiting.extend(new.map(|(id, running)| (*id, Some(running.started + LONG))));
        self.newest = self.newest.max(world.running.keys().last().copied());
        let is_decided = |id: &GenerationId| {
            world.running.get(id).is_none_or(|it| ready.descriptors().contains(&it.exec.as_fd().as_raw_fd()))
        };
        let decided: Vec<GenerationId> = self.waiting.keys().copied().filter(|id| is_decided(id)).collect();
        for id in decided {
            self.waiting.remove(&id);
            world.executed(id);
        }
        let now = Instant::now();
        for (generation, say_at) in &mut self.waiting {
            if say_at.take_if(|at| *at <= now).is_some() {
                let program = world.plan_of(*generation).map(|plan| plan.program.display());
                warn!(
                    generation = generation.0,
                    program = program.map(tracing::field::display),
                    "executing the program takes long: its file system is slow, or something scans it"
                );
            }
        }
        Vec::new()
    }
}
