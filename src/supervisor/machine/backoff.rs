//! When a failed server is started again, and when the launcher gives up. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::plan::Policy;

/// A run that was ready for this long counts as healthy: the next failure starts the backoff from the beginning.
pub const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// The memory of past failures.
#[derive(Debug, Clone)]
pub struct Restarts {
    /// When the failures of the window happened.
    failures: VecDeque<Instant>,
    /// Failures since a generation was last ready.
    without_ready: u32,
    /// Respawns since the last healthy run: the exponent of the backoff.
    streak: u32,
    /// All failures.
    total: u64,
    /// For the jitter, which prevents many replicas from restarting in step.
    random: u64,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this long.
    Respawn(Duration),
    /// That was one failure too many.
    GiveUp,
}

impl Restarts {
    /// No failures yet. The seed decides the jitter.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { failures: VecDeque::new(), without_ready: 0, streak: 0, total: 0, random: seed | 1 }
    }

    /// Records a failure. `ready_for` is how long the generation had been ready, if it ever was.
    pub fn failure(&mut self, now: Instant, ready_for: Option<Duration>, policy: &Policy) -> Verdict {
        self.total += 1;
        self.failures.push_back(now);
        self.expire(now, policy);
        self.without_ready = if ready_for.is_some() { 0 } else { self.without_ready + 1 };
        if self.failures.len() > policy.restart_limit as usize || self.without_ready > policy.restart_limit {
            return Verdict::GiveUp;
        }
        if ready_for.is_some_and(|ready_for| ready_for >= HEALTHY_AFTER) {
            self.streak = 0;
        }
        let immediate = self.streak == 0 && ready_for.is_some();
        Verdict::Respawn(if immediate { self.skip() } else { self.wait(policy) })
    }

    /// How long to wait when the system could not start a process: this is not a failure of the server.
    pub fn refused(&mut self, policy: &Policy) -> Duration {
        self.wait(policy)
    }

    /// A generation is ready.
    pub const fn ready(&mut self) {
        self.without_ready = 0;
    }

    /// How many more failures are allowed at this moment.
    #[must_use]
    pub fn left(&self, now: Instant, policy: &Policy) -> u32 {
        let recent = self.failures.iter().filter(|then| now.duration_since(**then) <= policy.restart_window).count();
        let counted = u32::try_from(recent).unwrap_or(u32::MAX).max(self.without_ready);
        policy.restart_limit.saturating_sub(counted)
    }

    /// All failures since the start.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    fn expire(&mut self, now: Instant, policy: &Policy) {
        while self.failures.front().is_some_and(|then| now.duration_since(*then) > policy.restart_window) {
            self.failures.pop_front();
        }
    }

    const fn skip(&mut self) -> Duration {
        self.streak += 1;
        Duration::ZERO
    }

    /// Doubles with each respawn, up to the maximum, minus a random part of at most a quarter.
    fn wait(&mut self, policy: &Policy) -> Duration {
        let exponent = self.streak.saturating_sub(1).min(20);
        self.streak = self.streak.saturating_add(1);
        let full = policy.backoff_initial.saturating_mul(1 << exponent).min(policy.backoff_max);
        // xorshift64: it only needs to differ between two processes.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(1.0 - f64::from(u32::try_from(self.random % 1000).unwrap_or(0)) / 4000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::machine::tests::harness::policy;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(restarts: &mut Restarts, start: Instant, ready_for: Option<Duration>, count: u32) -> Vec<Verdict> {
        (0..count).map(|n| restarts.failure(start + SECOND * n, ready_for, &policy())).collect()
    }

    #[test]
    fn the_first_respawn_after_a_healthy_run_is_immediate_and_then_the_wait_doubles() {
        let verdicts = waits(&mut Restarts::new(7), crate::test_time::start(), Some(SECOND), 5);
        assert_eq!(verdicts[0], Verdict::Respawn(Duration::ZERO));
        for (verdict, full) in verdicts[1..].iter().zip([0.5, 1.0, 2.0, 4.0]) {
            let Verdict::Respawn(wait) = verdict else { panic!("gave up: {verdicts:?}") };
            let wait = wait.as_secs_f64();
            assert!(wait <= full && wait >= 0.75 * full, "{wait} for {full}");
        }
    }

    #[test]
    fn one_failure_more_than_the_limit_in_the_window_ends_it() {
        let verdicts = waits(&mut Restarts::new(1), crate::test_time::start(), Some(SECOND), 6);
        assert_eq!(verdicts.iter().position(|verdict| *verdict == Verdict::GiveUp), Some(5));
    }

    #[test]
    fn failures_that_the_window_has_left_behind_do_not_count() {
        let (mut restarts, start) = (Restarts::new(1), crate::test_time::start());
        for hour in 0..100 {
            let verdict = restarts.failure(start + SECOND * 3600 * hour, Some(SECOND * 3000), &policy());
            assert_eq!(verdict, Verdict::Respawn(Duration::ZERO));
        }
        assert_eq!(restarts.total(), 100);
    }

    #[test]
    fn a_plan_that_is_never_ready_is_given_up_however_slowly_it_fails() {
        let (mut restarts, start) = (Restarts::new(1), crate::test_time::start());
        let mut verdicts = (0..6).map(|hour| restarts.failure(start + SECOND * 3600 * hour, None, &policy()));
        assert_eq!(verdicts.position(|verdict| verdict == Verdict::GiveUp), Some(5));
    }

    #[test]
    fn a_plan_that_gets_ready_may_fail_as_often_again() {
        let (mut restarts, start) = (Restarts::new(1), crate::test_time::start());
        let hours = |hour| start + SECOND * 3600 * hour;
        for hour in 0..5 {
            restarts.failure(hours(hour), None, &policy());
        }
        assert_eq!(restarts.left(hours(4), &policy()), 0);
        restarts.ready();
        assert_eq!(restarts.left(hours(4), &policy()), 4);
        assert!(matches!(restarts.failure(hours(5), None, &policy()), Verdict::Respawn(_)));
    }

    #[test]
    fn what_is_left_are_the_failures_that_the_window_still_allows() {
        let (mut restarts, start) = (Restarts::new(1), crate::test_time::start());
        waits(&mut restarts, start, Some(SECOND), 2);
        assert_eq!(restarts.left(start + SECOND, &policy()), 3);
        assert_eq!(restarts.left(start + SECOND * 601, &policy()), 4);
        assert_eq!(restarts.left(start + SECOND * 602, &policy()), 5);
    }

    #[test]
    fn replicas_do_not_wait_equally_long() {
        let policy = Policy { backoff_initial: SECOND * 30, ..policy() };
        let mut waits = std::collections::BTreeSet::new();
        for seed in 0..10 {
            let mut restarts = Restarts::new(1000 * seed);
            waits.extend((0..10).map(|_| restarts.refused(&policy)));
        }
        assert!(waits.len() > 80, "{waits:?}");
    }

    #[test]
    fn a_minute_of_readiness_resets_the_wait() {
        let (mut restarts, start) = (Restarts::new(1), crate::test_time::start());
        waits(&mut restarts, start, Some(SECOND), 4);
        let later = start + SECOND * 700;
        assert_eq!(restarts.failure(later, Some(HEALTHY_AFTER), &policy()), Verdict::Respawn(Duration::ZERO));
    }
}
