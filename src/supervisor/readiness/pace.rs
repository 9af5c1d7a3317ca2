//! How often something is checked that does not report changes.

use std::time::{Duration, Instant};

/// The shortest interval, and the longest.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Repeated checks at growing intervals: an app that takes seconds to import is not checked every few milliseconds.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// The first check is due at this time.
    pub(super) const fn new(first: Instant) -> Self {
        Self { next: first, interval: INTERVALS.0 }
    }

    /// When the next check is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Makes a check due.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.next = now;
    }

    /// Whether a check is due, which is then put off to the next time.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + self.interval;
            self.interval = (self.interval * 5 / 4).min(INTERVALS.1);
        }
        is_due
    }
}
