//! Recycling replaces workers that have become too large or too old. [`policy`] decides; this module looks and reports.
//!
//! Only while nothing else goes on: a generation that is being replaced takes all its workers with it.

pub mod policy;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::event::Event;
use super::machine::generation::Main;
use super::machine::memory_budget;
use super::observers::log::show_rounded;
use super::watched::Watched;
use super::workers::Cause;
use crate::guard::scoreboard::{self, Slot, State};
use crate::host;
use crate::ids::{GenerationId, ProcessId};
use crate::plan::Policy;
use crate::proc::process::Process;
use crate::proc::sockets;
use crate::proc::usage::Usage;
use crate::settings::value::{show_size, show_span};
use policy::{Excess, Limits, Order, Rules, Sample};

/// The longest time between two looks at what workers take.
const SLOWEST: Duration = Duration::from_secs(30);
/// The shortest.
const FASTEST: Duration = Duration::from_secs(1);
/// Looks in the time after which a worker counts as hung.
const LOOKS: u32 = 4;

/// Replaces workers that have become too big or too old.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    /// The watch over the generation that serves.
    watched: Option<Watched<Limits>>,
}

impl Component for Recycling {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        let settled = world.to_be_limited();
        let watched = self.watched.as_ref().filter(|it| settled.is_some_and(|(id, _)| id == it.generation));
        waits.until(watched.map(|it| Instant::now() + it.policy.next().saturating_sub(scoreboard::now())));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let Some((generation, rules)) = world.to_be_limited() else { return Vec::new() };
        let now = scoreboard::now();
        let watched = match self.watched.take() {
            Some(watched) if watched.generation == generation => watched,
            Some(before) => Watched::new(generation, before.policy.following(rules, now)),
            None => Watched::new(generation, Limits::new(rules, now)),
        };
        let watched = self.watched.insert(watched);
        let is_quiet = !watched.take_change(world.workers.revision()) && now < watched.policy.next();
        if is_quiet && !(watched.policy.is_idle() && world.has_spent_worker(generation)) {
            return Vec::new();
        }
        let planned = world.workers.planned(generation).unwrap_or(1) as usize;
        let samples = world.sizes(generation, &world.workers.of(generation));
        let room = memory_left(watched.policy.may_grow());
        let order = watched.policy.look(now, planned, &samples, world.workers.replaces_hung, room);
        order.map(|order| obey(generation, order, world)).into_iter().collect()
    }
}

/// How much memory there is for one worker more.
fn memory_left(is_asked: bool) -> u64 {
    if is_asked { memory_budget::free(&host::memory_use(Path::new("/"))) } else { 0 }
}

fn obey(generation: GenerationId, order: Order, world: &mut World) -> Output {
    match order {
        Order::Grow(worker, excess) => {
            world.write_replacing(generation, worker, excess, "replacing a worker");
            Action::Signal { generation, signal: Signal::SIGTTIN }.into()
        }
        Order::Shrink(_) => Action::Signal { generation, signal: Signal::SIGTTOU }.into(),
        Order::Dismiss(worker, excess) => {
            world.write_replacing(generation, worker, excess, "replacing a worker");
            retire(generation, worker, excess, world)
        }
        Order::Withdraw(worker, excess) => retire(generation, worker, excess, world),
        Order::End(id) => signal(id, Signal::SIGTERM),
        Order::Kill(id) => {
            warn!(generation = generation.0, pid = %id, "the worker being replaced has not finished in time: SIGKILL");
            signal(id, Signal::SIGKILL)
        }
        Order::Renew(worker, excess) => {
            world.write_replacing(generation, worker, excess, "replacing the single worker with its generation");
            Event::Renew.into()
        }
    }
}

fn retire(generation: GenerationId, worker: Sample, excess: Excess, world: &mut World) -> Output {
    world.workers.mark_killed(generation, worker.id.pid, excess.cause());
    let within = world.plan_of(generation).map_or(Duration::ZERO, |plan| plan.policy.stop_timeout);
    Action::RetireWorker { generation, worker: worker.id, within }.into()
}

fn signal(process: ProcessId, signal: Signal) -> Output {
    Action::SignalProcess { process, signal }.into()
}

impl World {
    fn to_be_limited(&self) -> Option<(GenerationId, Rules)> {
        let serving = self.state.serving().filter(|_| self.state.is_settled())?;
        let Main::Alive(_) = serving.main else { return None };
        let plan = self.plans.get(&serving.plan)?;
        let Policy { workers_max_rss: rss, workers_lifetime: age, worker_timeout, stop_timeout, .. } = plan.policy;
        if rss.is_none() && age.is_none() && plan.policy.max_requests.is_none() {
            return None;
        }
        let interval = worker_timeout.map_or(SLOWEST, |timeout| (timeout / LOOKS).clamp(FASTEST, SLOWEST));
        let pace = plan.capabilities.least_age;
        let (resizes, renews) = (plan.capabilities.is_resizable(), plan.workers == 1);
        Some((serving.id, Rules { rss, age, grace: stop_timeout, pace, interval, resizes, renews }))
    }

    /// The workers of a generation with what they take. Children of the main process that are no workers are left out:
    /// those without a slot on the scoreboard, or, where nobody takes one, without the listening socket.
    fn sizes(&self, generation: GenerationId, workers: &[Process]) -> Vec<Sample> {
        let slots = self.slots(generation);
        let lent = self.listeners.inodes(generation);
        // Without the lifespan protocol a worker takes its slot with its first request, which may never come.
        let all_take_slots = slots.iter().any(|(_, slot)| !slot.no_lifespan);
        let boot = self.running.get(&generation).and_then(|running| running.boot).unwrap_or_default();
        let sample = |process: &Process| {
            let usage = Usage::read(process)?;
            let slot = slots.iter().find(|(found, _)| found.pid == process.pid).map(|(_, slot)| slot);
            let is_ready = match slot {
                Some(slot) => slot.state == State::Ready,
                None if all_take_slots => return None,
                None if !lent.is_empty() && !sockets::owns(process.pid.as_raw(), &lent) => return None,
                // As long as the whole generation took, it will have taken.
                None => usage.age >= boot,
            };
            let streams = slot.map_or(0, |slot| slot.streams);
            let (id, age, rss) = (process.id(), usage.age, usage.rss);
            Some(Sample { id, age, rss, streams, is_ready, is_spent: slot.is_some_and(is_spent) })
        };
        workers.iter().filter_map(sample).collect()
    }

    /// Whether a worker has had its number of requests.
    fn has_spent_worker(&self, generation: GenerationId) -> bool {
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        board.is_some_and(|board| board.slots().iter().any(|slot| slot.state == State::Ready && is_spent(slot)))
    }

    fn write_replacing(&self, generation: GenerationId, worker: Sample, excess: Excess, what: &str) {
        let (pid, cause, limit) = (worker.id.pid, excess.cause(), self.limit_of(generation, excess));
        let (rss, age) = (show_mebibytes(worker.rss), show_rounded(worker.age));
        info!(generation = generation.0, %pid, %cause, limit, rss, age, "{what}");
    }

    /// The limit, as the settings have it.
    fn limit_of(&self, generation: GenerationId, excess: Excess) -> String {
        let limit = self.plan_of(generation).and_then(|plan| match excess {
            Excess::Rss => plan.policy.workers_max_rss.map(show_size),
            Excess::Age => plan.policy.workers_lifetime.map(show_span),
            Excess::Requests => plan.policy.max_requests.map(|most| format!("{} requests", most.least)),
        });
        limit.unwrap_or_default()
    }
}

fn is_spent(slot: &Slot) -> bool {
    slot.max_requests > 0 && slot.served >= slot.max_requests
}

/// Nobody wants to know the rest.
fn show_mebibytes(bytes: u64) -> String {
    show_size(bytes >> 20 << 20)
}

impl Excess {
    const fn cause(self) -> Cause {
        match self {
            Self::Rss => Cause::Rss,
            Self::Age => Cause::Age,
            Self::Requests => Cause::Requests,
        }
    }
}
