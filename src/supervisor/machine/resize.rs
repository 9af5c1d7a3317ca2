//! One generation gets more or fewer workers, one by one.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::worker_moves::Headcount;
use crate::ids::GenerationId;

/// The change of a generation to another number of workers, one by one.
#[derive(Debug)]
pub struct Resize {
    /// Its number.
    pub generation: GenerationId,
    workers: u32,
    target: u32,
    patience: Duration,
    /// The last step, and when it counts as done even if it is not seen to be.
    asked: Option<(Change, Instant)>,
}

/// One worker more or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// One more.
    Grow,
    /// One fewer.
    Shrink,
}

impl Resize {
    /// From `workers` to `target`; each step is waited for at most `patience`.
    #[must_use]
    pub const fn new(generation: GenerationId, workers: u32, target: u32, patience: Duration) -> Self {
        Self { generation, workers, target, patience, asked: None }
    }

    /// The number of workers in the end.
    #[must_use]
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// A change of the number of workers was requested.
    pub fn adjust(&mut self, workers: i32) {
        self.target = self.target.saturating_add_signed(workers).max(1);
    }

    /// When something is due even if nothing is seen before.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.asked.map(|(_, until)| until)
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.asked.is_none() && self.workers == self.target
    }

    /// Records the number of workers.
    pub fn seen(&mut self, seen: Headcount) {
        let is_done = |change| match change {
            Change::Grow => seen.accepting >= self.workers,
            Change::Shrink => seen.accepting <= self.workers,
        };
        self.asked = self.asked.filter(|(change, _)| !is_done(*change));
    }

    /// The next step, if the last one is done or its time is over.
    pub fn due(&mut self, now: Instant) -> Option<Change> {
        if self.asked.is_some_and(|(_, until)| until > now) {
            return None;
        }
        let change = match self.workers.cmp(&self.target) {
            Ordering::Less => Some(Change::Grow),
            Ordering::Equal => None,
            Ordering::Greater => Some(Change::Shrink),
        };
        match change {
            Some(Change::Grow) => self.workers += 1,
            Some(Change::Shrink) => self.workers -= 1,
            None => {}
        }
        self.asked = change.map(|change| (change, now + self.patience));
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn resizing_ends_at_the_target_and_asks_for_one_at_a_time(from in 1..20_u32, to in 1..20_u32, prompt in any::<bool>()) {
            let (mut resize, mut now) = (Resize::new(GenerationId(1), from, to, SECOND), crate::test_time::start());
            let mut workers = from;
            while !resize.is_done() {
                match resize.due(now) {
                    Some(Change::Grow) => workers += 1,
                    Some(Change::Shrink) => workers -= 1,
                    None if resize.is_done() => break,
                    None => prop_assert!(false, "neither done nor going on"),
                }
                prop_assert_eq!(resize.due(now), None, "requested two at once");
                if prompt { resize.seen(Headcount { alive: workers, accepting: workers }); } else { now += SECOND; }
            }
            prop_assert_eq!(workers, to);
        }
    }
}
