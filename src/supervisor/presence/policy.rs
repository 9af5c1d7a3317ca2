//! When a generation without workers that answer is no longer ready, and when it has failed. Pure: what was seen of the
//! workers and the time go in.
//!
//! Workers that exist and are silent belong to the watchdog, and those that start have the startup timeout. Here it is
//! about workers that are not there, or that die again and again before they are ready.

use std::time::Duration;

use crate::supervisor::machine::event::Presence;

/// Without a ready worker for this long, the generation is not ready.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Without a worker that is ready or starting for this long, it has failed.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// The fewest deaths of workers in a row, none of which got ready, that are a failure.
const FEWEST_DEATHS: u64 = 5;
/// Between two looks while there is no ready worker.
const INTERVAL: Duration = Duration::from_millis(250);

/// The workers of a generation at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Those that are ready.
    pub ready: usize,
    /// All of them.
    pub alive: usize,
    /// Those that have died since the generation was started.
    pub deaths: u64,
    /// How many there should be.
    pub planned: u32,
}

/// The watch over one generation. Times are since any fixed moment.
#[derive(Debug)]
pub struct Watch {
    said: Presence,
    /// When a worker was ready last.
    ready_at: Duration,
    /// When there was a worker last.
    alive_at: Duration,
    /// The deaths that there had been when a worker was ready last.
    deaths: u64,
    next: Option<Duration>,
}

impl Watch {
    /// The generation has just become ready.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self { said: Presence::Answering, ready_at: now, alive_at: now, deaths: 0, next: None }
    }

    /// When to look again although nothing happened; none while a worker is ready.
    #[must_use]
    pub const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Looks at the workers, and says what has changed.
    pub fn look(&mut self, now: Duration, sample: Sample) -> Option<Presence> {
        if sample.ready > 0 {
            (self.ready_at, self.deaths, self.next) = (now, sample.deaths, None);
        } else {
            self.next = Some(now + INTERVAL);
        }
        if sample.alive > 0 {
            self.alive_at = now;
        }
        let presence = self.presence(now, sample);
        (std::mem::replace(&mut self.said, presence) != presence).then_some(presence)
    }

    fn presence(&self, now: Duration, sample: Sample) -> Presence {
        let silent_for = now.saturating_sub(self.ready_at);
        let most_deaths = FEWEST_DEATHS.max(2 * u64::from(sample.planned));
        let keeps_dying = sample.deaths.saturating_sub(self.deaths) >= most_deaths;
        match self.said {
            // The state machine has been told, and decides.
            Presence::Lost => Presence::Lost,
            _ if now.saturating_sub(self.alive_at) >= LOST_AFTER => Presence::Lost,
            _ if silent_for >= SILENT_AFTER && keeps_dying => Presence::Lost,
            _ if silent_for >= SILENT_AFTER => Presence::Silent,
            Presence::Silent if sample.ready == 0 => Presence::Silent,
            _ => Presence::Answering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Duration = Duration::from_hours(1);

    fn sample(ready: usize, alive: usize, deaths: u64) -> Sample {
        Sample { ready, alive, deaths, planned: 2 }
    }

    /// What is said, with the second in which it is.
    fn said(samples: impl Fn(u32) -> Sample) -> Vec<(u32, Presence)> {
        let mut watch = Watch::new(START);
        (0..40).filter_map(|at| Some((at, watch.look(START + SECOND * at, samples(at))?))).collect()
    }

    #[test]
    fn a_ready_worker_is_enough_and_nobody_has_to_look_again() {
        let mut watch = Watch::new(START);
        assert_eq!((watch.look(START, sample(1, 1, 7)), watch.next()), (None, None));
        assert_eq!(said(|_| sample(1, 2, 0)), []);
    }

    #[test]
    fn without_any_worker_it_is_not_ready_after_5_s_and_has_failed_after_10() {
        let found = said(|at| if at == 0 { sample(2, 2, 0) } else { sample(0, 0, 2) });
        assert_eq!(found, [(5, Presence::Silent), (10, Presence::Lost)]);
    }

    #[test]
    fn workers_that_start_have_all_the_time_that_the_startup_timeout_gives_them() {
        assert_eq!(said(|at| sample(0, usize::from(at > 0), 1)), [(5, Presence::Silent)]);
    }

    #[test]
    fn one_that_gets_ready_makes_it_ready_again() {
        let found = said(|at| sample(usize::from(at == 0 || at >= 8), 1, 1));
        assert_eq!(found, [(5, Presence::Silent), (8, Presence::Answering)]);
    }

    #[test]
    fn workers_that_keep_dying_before_they_are_ready_are_a_failure() {
        assert_eq!(said(|at| sample(0, 1, u64::from(at))), [(5, Presence::Lost)]);
        // A few deaths with ready workers in between are not.
        assert_eq!(said(|at| sample(usize::from(at % 3 == 0), 1, u64::from(at))), []);
    }
}
