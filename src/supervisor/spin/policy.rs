//! When a worker spins: it uses a processor, or waits for one, for a long time although it has nothing to do. Pure.
//!
//! A worker that has nothing to do and uses a processor says so, and repeats that at a regular interval as long as it is
//! true. What the kernel has counted from one of these times to the next must be more than [`SHARE`] of that time, and so
//! must be all of it together.
//!
//! All times are on the clock of the scoreboard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ProcessId;

/// The share of the time, in percent, for which a worker that spins is runnable.
const SHARE: u128 = 80;
/// A worker that is silent for more than this part of the interval, in percent, has worked meanwhile.
const LATE: u32 = 175;

/// How long a worker may spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Before that is a fault.
    pub after: Duration,
    /// The interval at which it says so.
    pub interval: Duration,
}

/// A worker that says that it has nothing to do and uses a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its identity.
    pub id: ProcessId,
    /// How long its threads have used a processor or waited for one, since its start.
    pub runnable: Duration,
}

/// A worker that spins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub id: ProcessId,
    /// For how long.
    pub since: Duration,
    /// Of which it was runnable.
    pub runnable: Duration,
}

/// The watch over the workers of the serving generation.
#[derive(Debug)]
pub struct Spinning {
    rules: Rules,
    suspects: BTreeMap<ProcessId, Suspect>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    first: Look,
    last: Look,
    is_reported: bool,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    runnable: Duration,
}

impl Spinning {
    /// A watch that has seen nothing.
    #[must_use]
    pub const fn new(rules: Rules) -> Self {
        Self { rules, suspects: BTreeMap::new() }
    }

    /// Whether no worker is suspected.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.suspects.is_empty()
    }

    /// The workers that spin, whether that was reported before or not.
    pub fn reported(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.suspects.iter().filter(|(_, suspect)| suspect.is_reported).map(|(id, _)| *id)
    }

    /// Takes all workers that say it now, and returns those that have just been found to spin.
    pub fn look(&mut self, now: Duration, samples: &[Sample]) -> Vec<Verdict> {
        self.suspects.retain(|id, _| samples.iter().any(|sample| sample.id == *id));
        samples.iter().filter_map(|sample| self.judge(now, sample)).collect()
    }

    fn judge(&mut self, now: Duration, sample: &Sample) -> Option<Verdict> {
        let look = Look { at: now, runnable: sample.runnable };
        let fresh = Suspect { first: look, last: look, is_reported: false };
        let suspect = self.suspects.entry(sample.id).or_insert(fresh);
        // The kernel counts in steps.
        if now.saturating_sub(suspect.last.at) < self.rules.interval / 4 {
            return None;
        }
        let is_late = now.saturating_sub(suspect.last.at) > self.rules.interval * LATE / 100;
        if is_late || !look.has_spun_since(&suspect.last) {
            *suspect = fresh;
            return None;
        }
        suspect.last = look;
        let since = now.saturating_sub(suspect.first.at);
        if suspect.is_reported || since < self.rules.after || !look.has_spun_since(&suspect.first) {
            return None;
        }
        suspect.is_reported = true;
        let runnable = look.runnable.saturating_sub(suspect.first.runnable);
        Some(Verdict { id: sample.id, since, runnable })
    }
}

impl Look {
    /// Whether the worker was runnable for most of the time from a look to this one.
    fn has_spun_since(&self, before: &Self) -> bool {
        let runnable = self.runnable.saturating_sub(before.runnable);
        runnable.as_nanos() * 100 >= SHARE * self.at.saturating_sub(before.at).as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    const RULES: Rules = Rules { after: Duration::from_mins(1), interval: Duration::from_secs(5) };

    /// Looks at these seconds, each with how long a worker had been runnable; the seconds at which it is found to spin.
    fn found(looks: &[(u64, u64)]) -> Vec<u64> {
        let mut spinning = Spinning::new(RULES);
        let id = ProcessId { pid: Pid::from_raw(7), start: 1 };
        let mut look = |(at, runnable): &(u64, u64)| {
            let sample = Sample { id, runnable: Duration::from_secs(*runnable) };
            spinning.look(Duration::from_secs(*at), &[sample]).iter().map(|_| *at).next()
        };
        looks.iter().filter_map(&mut look).collect()
    }

    fn every_five(seconds: impl Iterator<Item = u64>, runnable: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
        seconds.filter(|at| at % 5 == 0).map(|at| (at, runnable(at))).collect()
    }

    #[test]
    fn it_is_found_once_when_its_time_is_over() {
        assert_eq!(found(&every_five(100..300, |at| at)), [160]);
        assert_eq!(found(&every_five(100..300, |at| at * 9 / 10)), [160], "it waits for a processor now and then");
        assert!(found(&every_five(100..300, |at| at * 7 / 10)).is_empty());
    }

    #[test]
    fn work_in_between_begins_the_time_anew() {
        let silent = every_five((100..150).chain(160..300), |at| at);
        assert_eq!(found(&silent), [220]);
        let slow = every_five(100..300, |at| at - u64::from(at >= 150) * 5);
        assert_eq!(found(&slow), [210], "it did nothing for five seconds");
    }

    #[test]
    fn a_look_before_the_kernel_can_have_counted_anything_does_not_clear_it() {
        let looks: Vec<_> = (100..300).step_by(5).flat_map(|at| [(at, at), (at + 1, at)]).collect();
        assert_eq!(found(&looks), [160]);
    }

    #[test]
    fn it_is_found_again_after_it_was_cured() {
        let looks = [every_five(100..200, |at| at), every_five(300..400, |at| at)].concat();
        assert_eq!(found(&looks), [160, 360]);
    }

    #[test]
    fn several_at_once_are_found_and_one_that_ended_is_forgotten() {
        let mut spinning = Spinning::new(RULES);
        let sample = |pid, at| {
            let id = ProcessId { pid: Pid::from_raw(pid), start: 1 };
            Sample { id, runnable: Duration::from_secs(at) }
        };
        let mut verdicts = Vec::new();
        for at in (0..=60).step_by(5) {
            verdicts = spinning.look(Duration::from_secs(at), &[sample(7, at), sample(8, at)]);
        }
        assert_eq!(verdicts.len(), 2);
        assert_eq!((verdicts[0].since, verdicts[0].runnable), (RULES.after, RULES.after));
        assert!(!spinning.is_idle() && spinning.reported().count() == 2);
        spinning.look(Duration::from_secs(61), &[]);
        assert!(spinning.is_idle() && spinning.reported().count() == 0);
    }
}
