//! Recycling replaces workers that have become too large or too old. [`policy`] decides; this component observes and
//! reports.
//!
//! Only while nothing else is in progress: a generation that is being replaced takes all its workers with it.

pub mod policy;
pub mod successors;

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
use super::worker_watch::WorkerWatch;
use super::workers::Cause;
use crate::guard::scoreboard::{self, Slot, State};
use crate::host;
use crate::ids::{GenerationId, ProcessId};
use crate::plan::{Plan, Policy};
use crate::proc::process::Process;
use crate::proc::sockets;
use crate::proc::usage::Usage;
use crate::settings::value::{show_size, show_span};
use policy::{Excess, Order, Recycler, Rules, Sample};

/// The longest interval between two checks of the workers' memory.
const SLOWEST: Duration = Duration::from_secs(30);
/// The shortest.
const FASTEST: Duration = Duration::from_secs(1);
/// If a worker may have any number of requests in flight, it is replaced when this many of them are stuck.
const STUCK_WITHOUT_LIMIT: u32 = 16;
/// How many checks there are in the time after which a worker counts as hung.
const LOOKS: u32 = 4;

/// Replaces workers that have become too large or too old.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    /// The watch over the serving generation.
    watched: Option<WorkerWatch<Recycler>>,
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
            Some(before) => WorkerWatch::new(generation, before.policy.following(rules, now)),
            None => WorkerWatch::new(generation, Recycler::new(rules, now)),
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

/// How much memory one more worker may take.
fn memory_left(is_asked: bool) -> u64 {
    if is_asked { memory_budget::free(&host::memory_use(Path::new("/"))) } else { 0 }
}

fn obey(generation: GenerationId, order: Order, world: &mut World) -> Output {
    match order {
        Order::Grow(worker, excess) => {
            world.write_replacing(generation, worker, excess, "replacing a worker");
            Action::Signal { generation, signal: Signal::SIGTTIN }.into()
        }
        Order::Dismiss(worker, excess) => {
            world.write_replacing(generation, worker, excess, "replacing a worker");
            retire(generation, worker, excess, false, world)
        }
        Order::Withdraw(worker, excess) => retire(generation, worker, excess, true, world),
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

fn retire(
    generation: GenerationId,
    worker: Sample,
    excess: Excess,
    has_successor: bool,
    world: &mut World,
) -> Output {
    world.workers.mark_killed(generation, worker.id.pid, excess.cause());
    let within = world.plan_of(generation).map_or(Duration::ZERO, |plan| plan.policy.stop_timeout);
    Action::RetireWorker { generation, worker: worker.id, within, has_successor }.into()
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
        let are_counted =
            plan.policy.max_requests.is_some() || plan.policy.limits_requests || replaces_spinning(plan);
        if rss.is_none() && age.is_none() && !are_counted {
            return None;
        }
        let interval = worker_timeout.map_or(SLOWEST, |timeout| (timeout / LOOKS).clamp(FASTEST, SLOWEST));
        let pace = plan.capabilities.least_age;
        let knows_successors =
            self.running.get(&serving.id).is_some_and(|running| running.channels.successors.is_some());
        let renews = plan.workers == 1;
        Some((serving.id, Rules { rss, age, grace: stop_timeout, pace, interval, knows_successors, renews }))
    }

    /// The workers of a generation with their age and memory. Children of the main process that are not workers are
    /// left out: those without a slot on the scoreboard, or, if workers take no slots, without the listening socket.
    fn sizes(&self, generation: GenerationId, workers: &[Process]) -> Vec<Sample> {
        let slots = self.slots(generation);
        let lent = self.listeners.inodes(generation);
        // Without the lifespan protocol a worker takes its slot with its first request, which may never come.
        let all_take_slots = slots.iter().any(|(_, slot)| !slot.no_lifespan);
        let replaces_spinning = self.plan_of(generation).is_some_and(replaces_spinning);
        let boot = self.running.get(&generation).and_then(|running| running.boot).unwrap_or_default();
        let sample = |process: &Process| {
            let usage = Usage::read(process)?;
            let slot = slots.iter().find(|(found, _)| found.pid == process.pid).map(|(_, slot)| slot);
            let is_ready = match slot {
                Some(slot) => slot.state == State::Ready,
                None if all_take_slots => return None,
                None if !lent.is_empty() && !sockets::owns(process.pid.as_raw(), &lent) => return None,
                // It is assumed to be ready after the time that the whole generation took.
                None => usage.age >= boot,
            };
            let streams = slot.map_or(0, |slot| slot.streams);
            let (id, age, rss) = (process.id(), usage.age, usage.rss);
            let is_spinning = replaces_spinning && self.workers.spinning.contains(&id);
            let reported = match slot {
                Some(slot) if is_stuck(slot) => Some(Excess::Stuck),
                _ if is_spinning => Some(Excess::Spin),
                Some(slot) if is_spent(slot) => Some(Excess::Requests),
                _ => None,
            };
            Some(Sample { id, age, rss, streams, is_ready, reported })
        };
        workers.iter().filter_map(sample).collect()
    }

    /// Whether a worker must be replaced that has had its number of requests, has too many that are stuck, or spins.
    fn has_spent_worker(&self, generation: GenerationId) -> bool {
        if !self.workers.spinning.is_empty() && self.plan_of(generation).is_some_and(replaces_spinning) {
            return true;
        }
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        board.is_some_and(|board| {
            board.slots().iter().any(|slot| slot.state == State::Ready && (is_spent(slot) || is_stuck(slot)))
        })
    }

    fn write_replacing(&self, generation: GenerationId, worker: Sample, excess: Excess, what: &str) {
        let (pid, cause, limit) = (worker.id.pid, excess.cause(), self.limit_of(generation, excess));
        let (rss, age) = (show_mebibytes(worker.rss), show_rounded(worker.age));
        info!(generation = generation.0, %pid, %cause, limit, rss, age, "{what}");
    }

    /// The limit, as it is set.
    fn limit_of(&self, generation: GenerationId, excess: Excess) -> String {
        let limit = self.plan_of(generation).and_then(|plan| match excess {
            Excess::Rss => plan.policy.workers_max_rss.map(show_size),
            Excess::Age => plan.policy.workers_lifetime.map(show_span),
            Excess::Requests => plan.policy.max_requests.map(|most| format!("{} requests", most.least)),
            Excess::Stuck => Some("half of its requests".to_owned()),
            Excess::Spin => plan.spin.map(|limit| show_span(limit.after)),
        });
        limit.unwrap_or_default()
    }
}

fn is_spent(slot: &Slot) -> bool {
    slot.max_requests > 0 && slot.served >= slot.max_requests
}

/// Whether half of the requests that it may have in flight are stuck.
fn is_stuck(slot: &Slot) -> bool {
    slot.stuck >= slot.limit.map_or(STUCK_WITHOUT_LIMIT, |limit| limit.get().div_ceil(2))
}

fn replaces_spinning(plan: &Plan) -> bool {
    plan.spin.is_some_and(|limit| limit.replaces)
}

/// More precision is not useful.
pub(super) fn show_mebibytes(bytes: u64) -> String {
    show_size(bytes >> 20 << 20)
}

impl Excess {
    const fn cause(self) -> Cause {
        match self {
            Self::Rss => Cause::Rss,
            Self::Age => Cause::Age,
            Self::Requests => Cause::Requests,
            Self::Stuck => Cause::Stuck,
            Self::Spin => Cause::Spin,
        }
    }
}
