//! When a worker has become too big or too old, and when it may be replaced for that. Pure: what was seen of the
//! workers and the time go in, orders come out.
//!
//! The worker is told to leave, parts from its clients, is then told to end, finishes its requests, and its main process
//! starts another. That is done
//! with one worker at a time, and only while all of them are ready: the others carry its load. Where there is no other
//! it is the generation that is replaced, by a new one of the same plan that serves before the old one leaves. If that
//! cannot be (no memory for two, a boot that fails), the old one stays, and it is tried again later.
//!
//! All times are on the clock of the scoreboard.

use std::time::Duration;

use crate::ids::ProcessId;
use crate::supervisor::machine::leaving::{self, Occasion};

/// While a worker leaves and its successor gets ready, of which nobody tells us.
const STEP: Duration = Duration::from_millis(500);
/// Before a worker is told to end: time for it to notice that it takes no more clients, and for those to ask that it has.
const LEAVES: Duration = Duration::from_secs(2);
/// Workers that grow too big sooner than this are replaced less often: the limit may be less than any worker needs.
const YOUNG: Duration = Duration::from_mins(10);
/// So much less often, to begin with at once and from then on after this.
const YOUNG_PAUSE: Duration = Duration::from_mins(1);

/// Where only requests are counted: a worker that has had its number wakes us.
const IDLE: Duration = Duration::from_hours(24);
/// From one try to replace a generation to the next.
const RENEWAL_PAUSE: Duration = Duration::from_mins(10);

/// The limits, and how long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How big a worker may get: resident memory in bytes.
    pub rss: Option<u64>,
    /// How old it may get.
    pub age: Option<Duration>,
    /// How long it may finish its requests.
    pub grace: Duration,
    /// No worker is told to leave that is younger: Granian gives up when one slot fails twice in 5.5 s.
    pub pace: Duration,
    /// Between two looks at the memory.
    pub interval: Duration,
    /// Whether the main process can be told to have one worker more, and one less, which is the oldest then.
    pub resizes: bool,
    /// Whether an only worker is replaced with its generation: not if there are more in the plan, which somebody has told
    /// the main process to do without.
    pub renews: bool,
}

/// A worker as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Who.
    pub id: ProcessId,
    /// Since its start.
    pub age: Duration,
    /// Its resident memory in bytes.
    pub rss: u64,
    /// Event streams and web sockets that it has open.
    pub streams: u32,
    /// Whether it serves.
    pub is_ready: bool,
    /// Whether it has had its number of requests.
    pub is_spent: bool,
}

/// The limit that a worker is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It is too big.
    Rss,
    /// It is too old.
    Age,
    /// It has had its number of requests.
    Requests,
}

/// What is to be done about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Have the main process start one worker more, which is to take this one's place.
    Grow(Sample, Excess),
    /// Its successor is there: tell it to leave.
    Withdraw(Sample, Excess),
    /// Have the main process end the oldest worker, which is this one.
    Shrink(ProcessId),
    /// Tell it to leave, so that it parts from its clients.
    Dismiss(Sample, Excess),
    /// SIGTERM, so that it finishes what it has.
    End(ProcessId),
    /// SIGKILL: it has not finished in time.
    Kill(ProcessId),
    /// There is no other worker: a new generation is to take over.
    Renew(Sample, Excess),
}

/// The watch over the workers of the generation that serves.
#[derive(Debug)]
pub struct Limits {
    rules: Rules,
    growing: Option<(ProcessId, Excess)>,
    leaving: Option<Leaving>,
    /// Before that nobody is replaced for being too big.
    too_big_from: Duration,
    /// Before that the generation is not replaced.
    renewal_from: Duration,
    next: Duration,
}

/// The worker that was told to leave last, until there is another in its place.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    id: ProcessId,
    end_at: Option<Duration>,
    /// Whether its successor is there already.
    has_successor: bool,
    kill_at: Option<Duration>,
}

impl Rules {
    /// How long a worker has to part from its clients.
    fn time_to_part(&self, worker: &Sample) -> Duration {
        let spread = leaving::spread(worker.streams, self.grace, Occasion::Handover);
        leaving::time_to_part(worker.streams, spread, self.grace).max(LEAVES.min(self.grace / 2))
    }
}

impl Limits {
    /// A watch that looks at once.
    #[must_use]
    pub const fn new(rules: Rules, now: Duration) -> Self {
        Self { rules, growing: None, leaving: None, too_big_from: now, renewal_from: now, next: now }
    }

    /// A watch over the generation that follows. What needs time to pass goes on: the next one may be as big again.
    #[must_use]
    pub fn following(&self, rules: Rules, now: Duration) -> Self {
        Self { too_big_from: self.too_big_from, renewal_from: self.renewal_from, ..Self::new(rules, now) }
    }

    /// Whether nobody is being replaced.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.growing.is_none() && self.leaving.is_none()
    }

    /// Whether it matters how much memory is left.
    #[must_use]
    pub const fn may_grow(&self) -> bool {
        self.rules.resizes && self.is_idle()
    }

    /// When to look again.
    #[must_use]
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// Looks at the workers, of which so many should be ready. While another one is being ended for being hung, nobody
    /// is told to leave. `room` is how much memory a worker more may take.
    pub fn look(
        &mut self,
        now: Duration,
        planned: usize,
        workers: &[Sample],
        one_is_hung: bool,
        room: u64,
    ) -> Option<Order> {
        let ready = workers.iter().filter(|worker| worker.is_ready).count();
        if let Some(leaving) = &mut self.leaving {
            self.next = now + STEP;
            if workers.iter().any(|worker| worker.id == leaving.id) {
                let order = if leaving.has_successor { Order::Shrink } else { Order::End };
                let end = leaving.end_at.take_if(|at| *at <= now).map(|_| order(leaving.id));
                return end.or_else(|| leaving.kill_at.take_if(|at| *at <= now).map(|_| Order::Kill(leaving.id)));
            }
            if ready < planned {
                return None;
            }
            self.leaving = None;
        }
        if let Some((id, excess)) = self.growing {
            self.next = now + STEP;
            if ready < planned {
                return None;
            }
            self.growing = None;
            // If it has ended by itself, it has a successor all the same: the next one to leave makes up for that.
            let worker = workers.iter().find(|worker| worker.id == id).copied().or_else(|| Self::oldest(workers))?;
            return Some(self.dismiss(now, worker, excess, true));
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
        // Which worker the main process ends is not ours to choose: whose turn it is by age or requests can wait.
        let oldest = Self::oldest(workers).filter(|oldest| oldest.id == worker.id || excess != Excess::Rss);
        if let Some(oldest) = oldest.filter(|oldest| self.rules.resizes && oldest.rss <= room) {
            self.growing = Some((oldest.id, excess));
            self.next = now + STEP;
            return Some(Order::Grow(oldest, excess));
        }
        Some(self.dismiss(now, worker, excess, false))
    }

    fn dismiss(&mut self, now: Duration, worker: Sample, excess: Excess, has_successor: bool) -> Order {
        let end_at = Some(now + self.rules.time_to_part(&worker));
        self.leaving = Some(Leaving { id: worker.id, end_at, has_successor, kill_at: Some(now + self.rules.grace) });
        self.next = now + STEP;
        if has_successor { Order::Withdraw(worker, excess) } else { Order::Dismiss(worker, excess) }
    }

    /// The worker that was started first.
    fn oldest(workers: &[Sample]) -> Option<Sample> {
        workers.iter().min_by_key(|worker| (worker.id.start, worker.id.pid)).copied()
    }

    /// The worker that is most in need of being replaced: the oldest, else the biggest.
    fn worst(&self, now: Duration, workers: &[Sample]) -> Option<(Sample, Excess)> {
        let settled = || workers.iter().filter(|worker| worker.is_ready && worker.age >= self.rules.pace);
        let too_old = settled().filter(|worker| self.rules.age.is_some_and(|limit| worker.age >= limit));
        let too_big = settled().filter(|worker| self.rules.rss.is_some_and(|limit| worker.rss > limit));
        let oldest = too_old.max_by_key(|worker| worker.age).map(|worker| (*worker, Excess::Age));
        let spent = settled().find(|worker| worker.is_spent).map(|worker| (*worker, Excess::Requests));
        oldest.or(spent).or_else(|| {
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
        let Some(_) = self.rules.age else { return now + IDLE };
        let left = |worker: &Sample| Some(self.rules.age?.max(self.rules.pace).saturating_sub(worker.age));
        let first = workers.iter().filter_map(left).min().unwrap_or(self.rules.interval);
        // One whose time has come waits for the others to be ready.
        now + if first.is_zero() { self.rules.interval } else { first }
    }
}

#[cfg(test)]
mod tests;
