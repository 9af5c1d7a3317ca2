//! When a worker has become too large or too old, and when it may be replaced. Pure: the input is the state of the
//! workers and the time, the output is orders.
//!
//! Where the main process can be told about it, and there is memory for one more, its successor starts first. When that
//! is ready, the worker is asked to leave, closes its connections, is then asked to end, and finishes its requests.
//! Otherwise the main process starts another when it has ended. This is done with one worker at a time, and only while
//! all of them are ready: the others carry its load. If there is no other, the generation is replaced, by a new one of
//! the same plan that serves before the old one stops. If that is not possible (no memory for two, a failed boot), the old
//! one stays, and it is tried again later.
//!
//! All times are on the clock of the scoreboard.

use std::time::Duration;

use crate::ids::ProcessId;
use crate::supervisor::machine::disconnecting::{self, Occasion};

/// The interval between checks while a worker leaves and its successor starts, which is not reported to us.
const STEP: Duration = Duration::from_millis(500);
/// Before a worker is asked to end: time in which it notices that it takes no more clients, and its clients send their
/// requests.
const LEAVES: Duration = Duration::from_secs(2);
/// Workers that become too large sooner than this are replaced less often: the limit may be less than any worker needs.
const YOUNG: Duration = Duration::from_mins(10);
/// How much less often: the first time at once, and then after this interval.
const YOUNG_PAUSE: Duration = Duration::from_mins(1);

/// The interval if only requests are counted: a worker that reaches its number wakes us.
const IDLE: Duration = Duration::from_hours(24);
/// The time from one attempt to replace a generation to the next.
const RENEWAL_PAUSE: Duration = Duration::from_mins(10);

/// The limits, and how long the steps may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How large a worker may become: resident memory in bytes.
    pub rss: Option<u64>,
    /// How old it may become.
    pub age: Option<Duration>,
    /// How long it may take to finish its requests.
    pub grace: Duration,
    /// No worker younger than this is asked to leave: Granian gives up when one slot fails twice in 5.5 s.
    pub pace: Duration,
    /// The interval between two checks of the memory.
    pub interval: Duration,
    /// Whether the main process starts one more worker if it is asked to, and none for a worker that has a successor.
    pub knows_successors: bool,
    /// Whether an only worker is replaced with its generation: not if the plan has more, and the main process was asked
    /// from outside to have fewer.
    pub renews: bool,
}

/// A worker as it was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its identity.
    pub id: ProcessId,
    /// Since its start.
    pub age: Duration,
    /// Its resident memory in bytes.
    pub rss: u64,
    /// Event streams and web sockets that it has open.
    pub streams: u32,
    /// Whether it serves.
    pub is_ready: bool,
    /// What is known of it without a look at it, if it is to be replaced for that: it has reached its number of requests,
    /// too many of them are stuck, or it uses a processor although it has nothing to do.
    pub reported: Option<Excess>,
}

/// The limit that a worker is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It is too large.
    Rss,
    /// It is too old.
    Age,
    /// It has reached its number of requests.
    Requests,
    /// Too many of its requests have taken longer than they may, and do not end.
    Stuck,
    /// It uses a processor although it has nothing to do.
    Spin,
}

/// What is to be done about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Have the main process start one more worker, which is to take this one's place.
    Grow(Sample, Excess),
    /// Its successor exists: ask it to leave.
    Withdraw(Sample, Excess),
    /// Ask it to leave, so that it closes its connections.
    Dismiss(Sample, Excess),
    /// SIGTERM, so that it finishes its requests.
    End(ProcessId),
    /// SIGKILL: it has not finished in time.
    Kill(ProcessId),
    /// There is no other worker: a new generation is to take over.
    Renew(Sample, Excess),
}

/// The watch over the workers of the serving generation.
#[derive(Debug)]
pub struct Recycler {
    rules: Rules,
    replacing: Replacing,
    /// Until then no worker is replaced for being too large.
    too_big_from: Duration,
    /// Until then the generation is not replaced.
    renewal_from: Duration,
    next: Duration,
}

/// How far the replacement of a worker has got. It ends when there is another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replacing {
    /// No worker is being replaced.
    Nothing,
    /// The main process starts one more worker, after which this one leaves.
    Growing { worker: ProcessId, excess: Excess },
    /// The worker was asked to leave, and is asked to end at `end_at`.
    Leaving { worker: ProcessId, end_at: Duration, kill_at: Duration },
    /// The worker was asked to end.
    Ending { worker: ProcessId, kill_at: Duration },
    /// The worker was killed.
    Killed { worker: ProcessId },
}

impl Replacing {
    /// The next step with a worker that leaves, if it is due.
    fn proceed(&mut self, now: Duration) -> Option<Order> {
        match *self {
            Self::Leaving { worker, end_at, kill_at } if end_at <= now => {
                *self = Self::Ending { worker, kill_at };
                Some(Order::End(worker))
            }
            Self::Ending { worker, kill_at } if kill_at <= now => {
                *self = Self::Killed { worker };
                Some(Order::Kill(worker))
            }
            _ => None,
        }
    }
}

impl Rules {
    /// How long a worker may take to close its connections.
    fn time_to_disconnect(&self, worker: &Sample) -> Duration {
        let spread = disconnecting::spread(worker.streams, self.grace, Occasion::Handover);
        disconnecting::time_to_disconnect(worker.streams, spread, self.grace).max(LEAVES.min(self.grace / 2))
    }
}

impl Recycler {
    /// A watch whose first check is due at once.
    #[must_use]
    pub const fn new(rules: Rules, now: Duration) -> Self {
        Self { rules, replacing: Replacing::Nothing, too_big_from: now, renewal_from: now, next: now }
    }

    /// A watch over the next generation. Pauses continue: its workers may become as large again.
    #[must_use]
    pub fn following(&self, rules: Rules, now: Duration) -> Self {
        Self { too_big_from: self.too_big_from, renewal_from: self.renewal_from, ..Self::new(rules, now) }
    }

    /// Whether no worker is being replaced.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.replacing, Replacing::Nothing)
    }

    /// Whether it matters how much memory is left.
    #[must_use]
    pub const fn may_grow(&self) -> bool {
        self.rules.knows_successors && self.is_idle()
    }

    /// When to check again.
    #[must_use]
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// Checks the workers, of which `planned` should be ready. While one is being ended for being hung, no other is
    /// asked to leave. `room` is how much memory one more worker may take.
    pub fn look(
        &mut self,
        now: Duration,
        planned: usize,
        workers: &[Sample],
        one_is_hung: bool,
        room: u64,
    ) -> Option<Order> {
        let ready = workers.iter().filter(|worker| worker.is_ready).count();
        let find = |id: ProcessId| workers.iter().find(|worker| worker.id == id).copied();
        self.next = now + STEP;
        match self.replacing {
            Replacing::Nothing => {}
            Replacing::Growing { .. } if ready < planned => return None,
            Replacing::Growing { worker, excess } => {
                self.replacing = Replacing::Nothing;
                // If it has ended by itself, it has a successor all the same: then the next worker leaves instead.
                let worker = find(worker).or_else(|| Self::oldest(workers))?;
                return Some(self.dismiss(now, worker, excess, true));
            }
            Replacing::Leaving { worker, .. } | Replacing::Ending { worker, .. } | Replacing::Killed { worker } => {
                if find(worker).is_some() {
                    return self.replacing.proceed(now);
                }
                if ready < planned {
                    return None;
                }
                self.replacing = Replacing::Nothing;
            }
        }
        self.next = self.due(now, workers);
        if ready < planned || one_is_hung {
            self.next = now + self.rules.interval;
            return None;
        }
        let (worker, excess) = self.worst(now, workers)?;
        if excess == Excess::Rss && worker.age < YOUNG {
            self.too_big_from = now + YOUNG_PAUSE;
        }
        if planned <= 1 && self.rules.renews {
            if now < self.renewal_from {
                return None;
            }
            self.renewal_from = now + RENEWAL_PAUSE;
            return Some(Order::Renew(worker, excess));
        }
        // The successor will need as much as a worker that has not grown.
        let size = workers.iter().filter(|worker| worker.is_ready).map(|worker| worker.rss).min();
        if self.rules.knows_successors && size <= Some(room) {
            self.replacing = Replacing::Growing { worker: worker.id, excess };
            self.next = now + STEP;
            return Some(Order::Grow(worker, excess));
        }
        Some(self.dismiss(now, worker, excess, false))
    }

    fn dismiss(&mut self, now: Duration, worker: Sample, excess: Excess, has_successor: bool) -> Order {
        let (end_at, kill_at) = (now + self.rules.time_to_disconnect(&worker), now + self.rules.grace);
        self.replacing = Replacing::Leaving { worker: worker.id, end_at, kill_at };
        self.next = now + STEP;
        if has_successor { Order::Withdraw(worker, excess) } else { Order::Dismiss(worker, excess) }
    }

    /// The worker that was started first.
    fn oldest(workers: &[Sample]) -> Option<Sample> {
        workers.iter().min_by_key(|worker| worker.id.age_rank()).copied()
    }

    /// The worker that most needs to be replaced: one that is stuck or spins, else the oldest, else the largest.
    fn worst(&self, now: Duration, workers: &[Sample]) -> Option<(Sample, Excess)> {
        let settled = || workers.iter().filter(|worker| worker.is_ready && worker.age >= self.rules.pace);
        let too_old = settled().filter(|worker| self.rules.age.is_some_and(|limit| worker.age >= limit));
        let too_big = settled().filter(|worker| self.rules.rss.is_some_and(|limit| worker.rss > limit));
        let reported = |excess| settled().find(|it| it.reported == Some(excess)).map(|worker| (*worker, excess));
        let oldest = too_old.max_by_key(|worker| worker.age).map(|worker| (*worker, Excess::Age));
        let broken = reported(Excess::Stuck).or_else(|| reported(Excess::Spin));
        broken.or(oldest).or_else(|| reported(Excess::Requests)).or_else(|| {
            let biggest = too_big.max_by_key(|worker| worker.rss).filter(|_| now >= self.too_big_from);
            biggest.map(|worker| (*worker, Excess::Rss))
        })
    }

    /// When a worker may be past a limit next.
    fn due(&self, now: Duration, workers: &[Sample]) -> Duration {
        let interval = now + self.rules.interval;
        if self.rules.rss.is_some() {
            return interval;
        }
        // One that wakes us before it may be replaced does not do so again.
        let reports = |worker: &&Sample| worker.reported.is_some();
        let left = |worker: &Sample| self.rules.pace.saturating_sub(worker.age);
        let wait = workers.iter().filter(reports).map(left).filter(|left| !left.is_zero()).min();
        let idle = now + wait.unwrap_or(IDLE);
        let Some(_) = self.rules.age else { return idle };
        let left = |worker: &Sample| Some(self.rules.age?.max(self.rules.pace).saturating_sub(worker.age));
        let first = workers.iter().filter_map(left).min().unwrap_or(self.rules.interval);
        // If its time has come, it waits for the others to be ready.
        idle.min(now + if first.is_zero() { self.rules.interval } else { first })
    }
}

#[cfg(test)]
mod tests;
