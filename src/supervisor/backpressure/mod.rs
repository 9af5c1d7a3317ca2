//! Limits of requests in progress that adapt to what each worker can handle (`auto`). [`policy`] decides; this component
//! provides its input.
//!
//! A worker that is busy wakes the launcher with each heartbeat, through the pipe of [`super::dealing`]. While none is
//! busy, nothing is computed.

pub mod policy;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Instant;

use tracing::debug;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::guard::scoreboard::{self, Slot, State};
use crate::ids::{GenerationId, ProcessId};
use crate::plan::RequestLimit;
use policy::{Bounds, Limiter, Sample};

/// Adjusts the limits.
#[derive(Debug)]
pub(super) struct Backpressure;

/// The limits of each generation whose limits adapt.
pub(super) type Limiters = BTreeMap<GenerationId, Limiter>;

impl Component for Backpressure {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        for (generation, limiter) in &world.limiters {
            if let Some(wakeup) = world.running.get(generation).and_then(|running| running.channels.wakeup.as_ref()) {
                waits.readable(wakeup.as_fd());
            }
            waits.until(limiter.next().map(|at| Instant::now() + at.saturating_sub(scoreboard::now())));
        }
    }

    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        world.limiters.retain(|generation, _| world.running.contains_key(generation));
        let generations: Vec<GenerationId> = world.running.keys().copied().collect();
        generations.into_iter().flat_map(|generation| look(generation, world, ready)).collect()
    }
}

/// Looks at the workers of a generation, if one of them is busy or a measurement ends.
fn look(generation: GenerationId, world: &mut World, ready: &Ready) -> Vec<Output> {
    let Some(limit) = world.plan_of(generation).and_then(|plan| plan.limit).filter(|limit| limit.adapts()) else {
        return Vec::new();
    };
    let now = scoreboard::now();
    let limiter = world.limiters.entry(generation).or_insert_with(|| Limiter::new(bounds(limit)));
    let is_due = limiter.next().is_some_and(|at| at <= now);
    let wakeup = world.running.get(&generation).and_then(|running| running.channels.wakeup.as_ref());
    if !is_due && !wakeup.is_some_and(|wakeup| ready.is_ready(wakeup)) {
        return Vec::new();
    }
    let serving = world.slots(generation).into_iter().filter(|(_, slot)| slot.state == State::Ready);
    let slots: Vec<(ProcessId, Slot)> = serving.map(|(process, slot)| (process.id(), slot)).collect();
    let samples: Vec<(ProcessId, Sample)> = slots.iter().map(|(id, slot)| (*id, sample(slot))).collect();
    let Some(limiter) = world.limiters.get_mut(&generation) else { return Vec::new() };
    let wanted = limiter.look(&samples, now);
    let in_force = |id: &ProcessId| slots.iter().find(|(worker, _)| worker == id).and_then(|(_, slot)| slot.limit);
    let changes = wanted.into_iter().filter(|(id, limit)| in_force(id).is_none_or(|found| found.get() != *limit));
    changes
        .map(|(worker, limit)| {
            debug!(generation = generation.0, %worker, limit, because = limiter.because(worker), "limit");
            Action::Limit { generation, worker, limit }.into()
        })
        .collect()
}

fn bounds(limit: RequestLimit) -> Bounds {
    let [least, start, most] =
        [limit.least(), limit.start(), limit.most()].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Bounds { least, start, most }
}

pub(super) fn sample(slot: &Slot) -> Sample {
    Sample {
        at: slot.heartbeat,
        in_flight: slot.in_flight,
        ended: slot.timed,
        latency: slot.latency,
        squares: slot.squares,
        rejected: slot.rejected,
        lag: slot.lag,
    }
}
