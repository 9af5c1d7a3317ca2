//! Presence: whether the serving generation has workers that answer, and whether those of a starting one keep dying.
//! [`policy`] decides; this component observes and reports.
//!
//! It checks when a worker comes or goes, and at intervals only while none is ready.

pub mod policy;

use std::time::{Duration, Instant};

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::worker_watch::WorkerWatch;
use crate::guard::scoreboard::{self, Scoreboard, State};
use crate::ids::GenerationId;
use policy::{Sample, Watch};

/// Checks whether the generations that serve and start have workers that answer.
#[derive(Debug, Default)]
pub(super) struct WorkerPresence {
    /// The watch over the serving generation.
    serving: Option<WorkerWatch<Watch>>,
    /// The watch over the starting one.
    starting: Option<WorkerWatch<Watch>>,
}

impl Component for WorkerPresence {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        let next = [&self.serving, &self.starting].into_iter().flatten().filter_map(|watched| watched.policy.next());
        waits.until(next.min().map(|next| Instant::now() + next.saturating_sub(scoreboard::now())));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let now = scoreboard::now();
        let serving = due(&mut self.serving, to_be_watched(world), Watch::new, world, now).and_then(|watched| {
            if !reports_readiness(world, watched.generation) {
                watched.policy = Watch::new(now);
                return None;
            }
            look(watched, world, now)
        });
        let starting = due(&mut self.starting, generation_that_starts(world), Watch::of_start, world, now)
            .and_then(|watched| look(watched, world, now));
        let reported = starting.as_ref().and_then(|event| reason(event, world));
        serving.into_iter().chain(reported).chain(starting).map(Output::from).collect()
    }
}

/// The watch over this generation, if it is to check now.
fn due<'a>(
    watched: &'a mut Option<WorkerWatch<Watch>>,
    generation: Option<GenerationId>,
    new: fn(Duration) -> Watch,
    world: &World,
    now: Duration,
) -> Option<&'a mut WorkerWatch<Watch>> {
    let before = watched.take().filter(|watched| Some(watched.generation) == generation);
    *watched = before.or_else(|| generation.map(|generation| WorkerWatch::new(generation, new(now))));
    let watched = watched.as_mut()?;
    let has_changed = watched.take_change(world.workers.revision());
    (has_changed || watched.policy.next().is_some_and(|next| next <= now)).then_some(watched)
}

fn look(watched: &mut WorkerWatch<Watch>, world: &World, now: Duration) -> Option<Event> {
    let generation = watched.generation;
    let presence = watched.policy.look(now, sample(world, generation));
    presence.map(|presence| Event::Workers { generation, presence })
}

/// The generation that is starting.
fn generation_that_starts(world: &World) -> Option<GenerationId> {
    let starting = world.state.generations().iter().find(|generation| generation.is_starting())?;
    world.running.contains_key(&starting.id).then_some(starting.id)
}

/// Why the workers of a generation end before they are ready, as far as one of them or its end has shown it.
fn reason(event: &Event, world: &World) -> Option<Event> {
    let Event::Workers { generation, .. } = *event else { return None };
    let board = world.running.get(&generation).and_then(|running| running.board.as_ref());
    let last = || world.workers.record(generation).1.map(|exit| exit.cause.to_string());
    let why = board.and_then(Scoreboard::failure).or_else(last)?;
    Some(Event::FailureReported { generation, why })
}

/// The generation that serves, if its workers have the guard.
fn to_be_watched(world: &World) -> Option<GenerationId> {
    let serving = world.state.serving().filter(|_| !world.state.is_ending())?;
    world.running.get(&serving.id)?.board.as_ref().map(|_| serving.id)
}

/// Whether its workers report that they are ready: only if the server calls the app when it starts.
fn reports_readiness(world: &World, generation: GenerationId) -> bool {
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
