//! The supervisor's part of the limits of memory and age: whom it watches, and how a worker is replaced.
//!
//! Only while nothing else goes on: a generation that is being replaced takes all its workers with it.

pub mod policy;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{debug, info, warn};

use crate::guard::scoreboard::{self, State};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::proc::process::Process;
use crate::proc::sockets as listeners;
use crate::proc::usage::Usage;
use crate::settings::value::{show_size, show_span};
use crate::supervisor::Supervisor;
use crate::supervisor::machine::generation::{Event, Main};
use crate::supervisor::observers::log::show_rounded;
use crate::supervisor::watchdog::Pulse;
use crate::supervisor::watchdog::policy::Id;
use crate::supervisor::workers::Cause;
use policy::{Excess, Limits, Order, Rules, Sample};

/// The longest time between two looks at what workers take.
const SLOWEST: Duration = Duration::from_secs(30);
/// The shortest.
const FASTEST: Duration = Duration::from_secs(1);
/// Looks in the time after which a worker counts as hung.
const LOOKS: u32 = 4;

/// The watch over one generation.
#[derive(Debug)]
pub(super) struct Retirement {
    generation: GenerationId,
    limits: Limits,
    /// Of the list of workers, at the last look.
    revision: u64,
}

impl Supervisor<'_> {
    /// Replaces workers that have become too big or too old, where it is time to.
    pub(super) fn keep_limits(&mut self) {
        let mut retirement = self.retirement.take();
        if let Some((generation, rules)) = self.to_be_limited() {
            let (now, revision) = (scoreboard::now(), self.workers.revision());
            let before = retirement.take_if(|it| it.generation != generation);
            let limits = || before.map_or_else(|| Limits::new(rules, now), |it| it.limits.following(rules, now));
            let new = || Retirement { generation, limits: limits(), revision };
            let Retirement { limits, revision: seen, .. } = retirement.get_or_insert_with(new);
            if revision != *seen || limits.next() <= now {
                *seen = revision;
                let planned = self.workers.planned(generation).unwrap_or(1) as usize;
                let workers = self.workers.of(generation);
                let one_is_hung = self.pulse.as_ref().is_some_and(Pulse::is_ending);
                if let Some(order) = limits.look(now, planned, &self.sizes(generation, &workers), one_is_hung) {
                    self.obey(generation, order, &workers);
                }
            }
        }
        self.retirement = retirement;
    }

    /// When to look at what workers take, while nothing else goes on.
    pub(super) fn next_retirement(&self) -> Option<Instant> {
        let (generation, _) = self.to_be_limited()?;
        let of_it = self.retirement.as_ref().filter(|it| it.generation == generation);
        let wait = of_it.map_or(Duration::ZERO, |it| it.limits.next().saturating_sub(scoreboard::now()));
        Some(Instant::now() + wait)
    }

    fn to_be_limited(&self) -> Option<(GenerationId, Rules)> {
        let serving = self.state.serving().filter(|_| self.state.is_settled())?;
        let Main::Alive(_) = serving.main else { return None };
        let plan = self.plans.get(&serving.plan)?;
        let Policy { workers_max_rss: rss, workers_lifetime: age, worker_timeout, stop_timeout, .. } = plan.policy;
        if rss.is_none() && age.is_none() {
            return None;
        }
        let interval = worker_timeout.map_or(SLOWEST, |timeout| (timeout / LOOKS).clamp(FASTEST, SLOWEST));
        let pace = plan.capabilities.least_age;
        Some((serving.id, Rules { rss, age, grace: stop_timeout, pace, interval, renews: plan.workers == 1 }))
    }

    /// The workers of a generation with what they take. Children of the main process that are no workers are left out:
    /// those without a slot on the scoreboard, or, where nobody takes one, without the listening socket.
    fn sizes(&self, generation: GenerationId, workers: &[Process]) -> Vec<Sample> {
        let slots = self.slots(generation);
        let socket = self.front.inode(generation).map(|inode| BTreeSet::from([inode]));
        // Without the lifespan protocol a worker takes its slot with its first request, which may never come.
        let all_take_slots = slots.iter().any(|(_, slot)| !slot.no_lifespan);
        let boot = self.running.get(&generation).and_then(|running| running.boot).unwrap_or_default();
        let sample = |process: &Process| {
            let usage = Usage::read(process)?;
            let slot = slots.iter().find(|(found, _)| found.pid == process.pid).map(|(_, slot)| slot);
            let is_ready = match slot {
                Some(slot) => slot.state == State::Ready,
                None if all_take_slots => return None,
                None if socket.as_ref().is_some_and(|socket| !listeners::owns(process.pid.as_raw(), socket)) => {
                    return None;
                }
                // As long as the whole generation took, it will have taken.
                None => usage.age >= boot,
            };
            Some(Sample { id: (process.pid, process.start), age: usage.age, rss: usage.rss, is_ready })
        };
        workers.iter().filter_map(sample).collect()
    }

    fn obey(&mut self, generation: GenerationId, order: Order, workers: &[Process]) {
        match order {
            Order::Dismiss(worker, excess) => {
                self.write_replacing(generation, worker, excess, "replacing a worker");
                self.workers.mark_killed(generation, worker.id.0, excess.cause());
                signal(worker.id, Signal::SIGTERM, workers);
            }
            Order::Kill(id) => {
                warn!(generation = generation.0, pid = %id.0, "the worker that is being replaced has not finished in time: SIGKILL");
                signal(id, Signal::SIGKILL, workers);
            }
            Order::Renew(worker, excess) => {
                self.write_replacing(generation, worker, excess, "replacing the only worker with its generation");
                self.tell(Event::Renew);
            }
        }
    }

    fn write_replacing(&self, generation: GenerationId, worker: Sample, excess: Excess, what: &str) {
        let (pid, cause, limit) = (worker.id.0, excess.cause(), self.limit_of(generation, excess));
        let (rss, age) = (show_mebibytes(worker.rss), show_rounded(worker.age));
        info!(generation = generation.0, %pid, %cause, limit, rss, age, "{what}");
    }

    /// The limit, as the settings have it.
    fn limit_of(&self, generation: GenerationId, excess: Excess) -> String {
        let limit = self.plan_of(generation).and_then(|plan| match excess {
            Excess::Rss => plan.policy.workers_max_rss.map(show_size),
            Excess::Age => plan.policy.workers_lifetime.map(show_span),
        });
        limit.unwrap_or_default()
    }
}

fn signal(id: Id, signal: Signal, workers: &[Process]) {
    let process = workers.iter().find(|process| (process.pid, process.start) == id);
    if let Some(Err(errno)) = process.map(|process| process.signal(signal)) {
        debug!(pid = %id.0, %signal, errno = errno.desc(), "not signalled");
    }
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
        }
    }
}
