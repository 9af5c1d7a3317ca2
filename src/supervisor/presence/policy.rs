//! When a generation without workers that answer is no longer ready, and when it has failed. Pure: the input is the
//! state of the workers and the time.
//!
//! Workers that exist and are silent are the watchdog's task, and those that start have the startup timeout. This is
//! about workers that do not exist, or that die again and again before they are ready. The latter is also a failure of a
//! generation that has never been ready; how long it takes until it has workers does not matter then.

use std::time::Duration;

use crate::supervisor::machine::event::Presence;

/// Without a ready worker for this long, the generation is not ready.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Without a worker that is ready or starting for this long, it has failed.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// This many deaths of workers in a row, none of which became ready, are a failure.
const FEWEST_DEATHS: u64 = 5;
/// The interval between two checks while there is no ready worker.
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

/// The watch over one generation. Times are relative to any fixed moment.
#[derive(Debug)]
pub struct Watch {
    /// Whether the generation has been ready.
    serves: bool,
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
        Self { serves: true, said: Presence::Answering, ready_at: now, alive_at: now, deaths: 0, next: None }
    }

    /// The generation was just started.
    #[must_use]
    pub const fn of_start(now: Duration) -> Self {
        Self { serves: false, ..Self::new(now) }
    }

    /// When to check again even if nothing happens; none while a worker is ready.
    #[must_use]
    pub const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Checks the workers, and returns what has changed.
    pub fn look(&mut self, now: Duration, sample: Sample) -> Option<Presence> {
        if sample.ready > 0 {
            (self.ready_at, self.deaths, self.next) = (now, sample.deaths, None);
        } else {
            // Nothing can follow from the mere absence of workers while the generation starts.
            self.next = (self.serves || sample.deaths > self.deaths).then_some(now + INTERVAL);
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
            // The state machine has been informed, and decides.
            Presence::Lost => Presence::Lost,
            _ if keeps_dying && silent_for >= SILENT_AFTER => Presence::Lost,
            said if !self.serves => said,
            _ if now.saturating_sub(self.alive_at) >= LOST_AFTER => Presence::Lost,
            _ if silent_for >= SILENT_AFTER => Presence::Silent,
            _ => Presence::Answering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Duration = Duration::from_hours(1);

    fn sample(ready: usize, alive: usize, deaths: u64) -> Sample {
        Sample { ready, alive, deaths, planned: 2 }
    }

    /// The results, each with the second in which it came.
    fn said(samples: impl Fn(u32) -> Sample) -> Vec<(u32, Presence)> {
        said_by(Watch::new(START), samples)
    }

    fn said_by(mut watch: Watch, samples: impl Fn(u32) -> Sample) -> Vec<(u32, Presence)> {
        (0..40).filter_map(|at| Some((at, watch.look(START + SECOND * at, samples(at))?))).collect()
    }

    #[test]
    fn a_ready_worker_is_enough_and_no_further_check_is_needed() {
        let mut watch = Watch::new(START);
        assert_eq!((watch.look(START, sample(1, 1, 7)), watch.next()), (None, None));
        assert_eq!(said(|_| sample(1, 2, 0)), []);
    }

    #[test]
    fn without_a_ready_worker_it_looks_again_soon() {
        let mut watch = Watch::new(START);
        watch.look(START, sample(0, 0, 0));
        assert_eq!(watch.next(), Some(START + INTERVAL));
        let mut start = Watch::of_start(START);
        start.look(START, sample(0, 1, 1));
        assert_eq!(start.next(), Some(START + INTERVAL), "one has died already");
    }

    #[test]
    fn without_any_worker_it_is_not_ready_after_5_s_and_has_failed_after_10() {
        let found = said(|at| if at == 0 { sample(2, 2, 0) } else { sample(0, 0, 2) });
        assert_eq!(found, [(5, Presence::Silent), (10, Presence::Lost)]);
    }

    #[test]
    fn one_that_comes_after_the_failure_was_reported_changes_nothing() {
        let found = said(|at| sample(usize::from(at == 0 || at > 12), usize::from(at == 0 || at > 12), 2));
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

    #[test]
    fn a_start_fails_only_when_workers_keep_dying() {
        let start = || Watch::of_start(START);
        assert_eq!(said_by(start(), |_| sample(0, 0, 0)), [], "the main process imports the app");
        assert_eq!(said_by(start(), |_| sample(0, 2, 4)), [], "those that live now have the startup timeout");
        assert_eq!(said_by(start(), |_| sample(0, 0, 100)), [(5, Presence::Lost)]);
        assert_eq!(said_by(start(), |at| sample(0, 0, u64::from(at / 3))), [(15, Presence::Lost)]);
        assert_eq!(said_by(start(), |at| sample(1, 1, u64::from(at))), [], "one is ready");
        let mut watch = start();
        watch.look(START, sample(0, 0, 0));
        assert_eq!(watch.next(), None, "no check is needed before a worker comes or goes");
    }

    proptest! {
        /// Whatever the workers do: as many as that must die without one that was ready, and 5 s must pass.
        #[test]
        fn a_start_never_fails_early_and_always_fails_in_the_end(
            planned in 1..20u32,
            steps in prop::collection::vec((0..3000u64, 0..4u64, prop::bool::weighted(0.1)), 1..60),
        ) {
            let most = FEWEST_DEATHS.max(2 * u64::from(planned));
            let (mut watch, mut now, mut deaths) = (Watch::of_start(START), START, 0);
            let (mut ready_at, mut deaths_then) = (START, 0);
            for (millis, died, ready) in steps {
                now += Duration::from_millis(millis);
                deaths += died;
                let said = watch.look(now, Sample { ready: ready.into(), alive: 1, deaths, planned });
                if ready {
                    (ready_at, deaths_then) = (now, deaths);
                }
                let is_due = deaths - deaths_then >= most && now.saturating_sub(ready_at) >= SILENT_AFTER;
                prop_assert_eq!(said, is_due.then_some(Presence::Lost));
                if is_due {
                    return Ok(());
                }
            }
        }
    }
}
