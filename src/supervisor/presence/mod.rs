//! Presence: whether the generation that serves has workers that answer. [`policy`] says what follows; this is what it
//! sees.
//!
//! It looks when a worker comes or goes, and from time to time only while none is ready.

pub mod policy;

use std::time::Instant;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use crate::guard::scoreboard::{self, State};
use crate::ids::GenerationId;
use policy::{Sample, Watch};

/// The watch over the generation that serves.
#[derive(Debug, Default)]
pub(super) struct WorkerPresence {
    watched: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    generation: GenerationId,
    watch: Watch,
    /// Of the list of workers, at the last look.
    revision: u64,
}

impl Component for WorkerPresence {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        let next = self.watched.as_ref().and_then(|watched| watched.watch.next());
        waits.until(next.map(|next| Instant::now() + next.saturating_sub(scoreboard::now())));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let Some(generation) = to_be_watched(world) else {
            self.watched = None;
            return Vec::new();
        };
        let (now, revision) = (scoreboard::now(), world.workers.revision());
        let before = self.watched.take().filter(|watched| watched.generation == generation);
        let is_new = before.is_none();
        let watched =
            self.watched.insert(before.unwrap_or_else(|| Watched { generation, watch: Watch::new(now), revision }));
        let is_due = watched.watch.next().is_some_and(|next| next <= now);
        if !is_new && !is_due && watched.revision == revision {
            return Vec::new();
        }
        watched.revision = revision;
        let presence = watched.watch.look(now, sample(world, generation));
        presence.map(|presence| Event::Workers { generation, presence }.into()).into_iter().collect()
    }
}

/// The generation that serves, if its workers can say that they are ready: they have the guard, and the server tells
/// the app when it starts.
fn to_be_watched(world: &World) -> Option<GenerationId> {
    let serving = world.state.serving().filter(|_| !world.state.is_ending())?;
    let slots = world.running.get(&serving.id)?.board.as_ref()?.slots();
    let speaks_lifespan = slots.is_empty() || slots.iter().any(|slot| !slot.no_lifespan);
    speaks_lifespan.then_some(serving.id)
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
