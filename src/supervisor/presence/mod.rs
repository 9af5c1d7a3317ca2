//! Presence: whether the serving generation has workers that answer. [`policy`] decides; this module looks and reports.
//!
//! It looks when a worker comes or goes, and from time to time only while none is ready.

pub mod policy;

use std::time::Instant;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::watched::Watched;
use crate::guard::scoreboard::{self, Scoreboard, State};
use crate::ids::GenerationId;
use policy::{Sample, Watch};

/// Looks whether the generation that serves has workers that answer.
#[derive(Debug, Default)]
pub(super) struct WorkerPresence {
    /// The watch over the generation that serves.
    watched: Option<Watched<Watch>>,
}

impl Component for WorkerPresence {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        let next = self.watched.as_ref().and_then(|watched| watched.policy.next());
        waits.until(next.map(|next| Instant::now() + next.saturating_sub(scoreboard::now())));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let Some(generation) = to_be_watched(world) else {
            self.watched = None;
            return Vec::new();
        };
        let now = scoreboard::now();
        let before = self.watched.take().filter(|watched| watched.generation == generation);
        let watched = self.watched.insert(before.unwrap_or_else(|| Watched::new(generation, Watch::new(now))));
        let has_changed = watched.take_change(world.workers.revision());
        if !has_changed && watched.policy.next().is_none_or(|next| now < next) {
            return Vec::new();
        }
        if !can_be_told(world, generation) {
            watched.policy = Watch::new(now);
            return Vec::new();
        }
        let presence = watched.policy.look(now, sample(world, generation));
        presence.map(|presence| Event::Workers { generation, presence }.into()).into_iter().collect()
    }
}

/// The generation that serves, if its workers have the guard.
fn to_be_watched(world: &World) -> Option<GenerationId> {
    let serving = world.state.serving().filter(|_| !world.state.is_ending())?;
    world.running.get(&serving.id)?.board.as_ref().map(|_| serving.id)
}

/// Whether its workers report that they are ready: only if the server tells the app when it starts.
fn can_be_told(world: &World, generation: GenerationId) -> bool {
    let board = world.running.get(&generation).and_then(|running| running.board.as_ref());
    let slots = board.map(Scoreboard::slots).unwrap_or_default();
    slots.is_empty() || slots.iter().any(|slot| !slot.no_lifespan)
}

fn sample(world: &World, generation: GenerationId) -> Sample {
    let slots = world.slots(generation);
    Sample {
        ready: slots.iter().filter(|(_, slot)| slot.state == State::Ready).count(),
        alive: world.workers.of(generation).len(),
        deaths: world.workers.record(generation).0,
        planned: world.workers.planned(generation).unwrap_or(1),
    }
}
