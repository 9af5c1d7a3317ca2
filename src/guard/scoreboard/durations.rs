//! How long requests take, as the workers count it, and what follows from two such counts. Pure.

use std::time::Duration;

/// The upper bounds of the buckets in seconds, those of `latency.py`. One more bucket has what took longer.
pub const BOUNDS: [f64; 37] = [
    0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02,
    0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0,
    70.0, 100.0,
];

/// The number of buckets.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// After this time without a heartbeat nothing is known about what happened last.
const WINDOW: Duration = Duration::from_secs(10);

/// How long requests took, in buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// The sum.
    pub sum: Duration,
    /// How many there are in each bucket: longer than the bound before, and at most the bucket's own.
    pub buckets: [u64; BUCKETS],
}

impl Default for Durations {
    fn default() -> Self {
        Self { sum: Duration::ZERO, buckets: [0; BUCKETS] }
    }
}

impl Durations {
    /// The number of requests.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Those of two workers together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add, Duration::saturating_add)
    }

    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub, Duration::saturating_sub)
    }

    /// The later of two readings, field by field, because counts only grow.
    #[must_use]
    pub fn later(&self, other: &Self) -> Self {
        self.zip(other, Ord::max, Ord::max)
    }

    fn zip(&self, other: &Self, of_counts: fn(u64, u64) -> u64, of_sums: fn(Duration, Duration) -> Duration) -> Self {
        let buckets = std::array::from_fn(|index| of_counts(self.buckets[index], other.buckets[index]));
        Self { sum: of_sums(self.sum, other.sum), buckets }
    }

    /// The time that this part of the requests, from 0 to 1, took at most: within its bucket in proportion, as
    /// Prometheus estimates it; the last bound if it took longer. None without requests.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "it is an estimate")]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = part * Some(self.count()).filter(|count| *count > 0)? as f64;
        let mut below = 0.0;
        for (index, count) in self.buckets.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let Some(bound) = BOUNDS.get(index) else { break };
                let from = index.checked_sub(1).map_or(0.0, |before| BOUNDS[before]);
                return Some(from + (bound - from) * (wanted - below) / count);
            }
            below += count;
        }
        BOUNDS.last().copied()
    }
}

/// What a worker has counted since it took its slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// When, on the scoreboard's clock.
    pub at: Duration,
    /// Requests that it has finished.
    pub served: u64,
    /// Requests that it refused.
    pub rejected: u64,
    /// Those that count against its limit: without event streams, web sockets, the health path and exempt ones.
    pub durations: Durations,
}

/// What happened in the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Window {
    /// How long it was exactly.
    pub length: Duration,
    /// Requests that were finished, per second.
    pub served: f64,
    /// Requests that were refused, per second.
    pub rejected: f64,
    /// How long requests took that ended.
    pub durations: Durations,
}

impl Window {
    /// From what a worker has counted, and what it had counted about ten seconds before.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "in a few seconds they are few")]
    pub fn new(latest: &Counts, earlier: &Counts, now: Duration) -> Self {
        let length = now.saturating_sub(earlier.at);
        if length.is_zero() || now.saturating_sub(latest.at) > WINDOW {
            return Self { length: length.min(WINDOW), ..Self::default() };
        }
        let rate = |latest: u64, earlier: u64| latest.saturating_sub(earlier) as f64 / length.as_secs_f64();
        Self {
            length,
            served: rate(latest.served, earlier.served),
            rejected: rate(latest.rejected, earlier.rejected),
            durations: latest.durations.since(&earlier.durations),
        }
    }

    /// Those of two workers together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            length: self.length.max(other.length),
            served: self.served + other.served,
            rejected: self.rejected + other.rejected,
            durations: self.durations.and(&other.durations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(counts: &[(usize, u64)]) -> Durations {
        let mut durations = Durations::default();
        for (bucket, count) in counts {
            durations.buckets[*bucket] = *count;
        }
        durations
    }

    fn assert_near(found: Option<f64>, wanted: f64) {
        assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-9), "{found:?} is not {wanted}");
    }

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        assert_eq!(Durations::default().quantile(0.5), None);
        // 20 to 30 ms.
        let same = durations(&[(15, 100)]);
        assert_near(same.quantile(0.5), 0.025);
        assert_near(same.quantile(0.99), 0.0299);
        assert_near(same.quantile(1.0), 0.03);
        // 98 of at most 100 µs, 2 of 5 to 7 s.
        let mixed = durations(&[(0, 98), (29, 2)]);
        assert_near(mixed.quantile(0.98), 0.0001);
        assert_near(mixed.quantile(0.99), 6.0);
        assert_near(durations(&[(BUCKETS - 1, 1)]).quantile(0.5), 100.0);
    }

    #[test]
    fn rates_are_those_of_the_time_until_now() {
        let at = Duration::from_secs;
        let earlier = Counts { at: at(90), served: 100, rejected: 7, durations: durations(&[(3, 40)]) };
        let latest = Counts { at: at(99), served: 120, rejected: 8, durations: durations(&[(3, 41), (9, 8)]) };
        let window = Window::new(&latest, &earlier, at(100));
        assert_eq!((window.length, window.served, window.rejected), (at(10), 2.0, 0.1));
        assert_eq!(window.durations, durations(&[(3, 1), (9, 8)]));
        // Its event loop is blocked: nothing ended.
        let window = Window::new(&latest, &earlier, at(110));
        assert_eq!((window.length, window.served, window.durations.count()), (at(10), 0.0, 0));
        assert_eq!(Window::new(&Counts::default(), &Counts::default(), at(0)), Window::default());
    }

    #[test]
    fn of_two_readings_the_later_one_counts() {
        let (one, two) = (durations(&[(1, 5), (2, 1)]), durations(&[(1, 4), (2, 2)]));
        assert_eq!(one.later(&two), durations(&[(1, 5), (2, 2)]));
        assert_eq!(one.and(&two).count(), 12);
    }
}
