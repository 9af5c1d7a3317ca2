//! How often something is looked at that nobody tells of.

use std::time::{Duration, Instant};

/// The shortest interval, and the longest.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Again and again, and a little less often each time: an app that takes seconds to import is not looked at every few
/// milliseconds.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// Due at that time, and then at growing intervals.
    pub(super) const fn new(first: Instant) -> Self {
        Self { next: first, interval: INTERVALS.0 }
    }

    /// When it is due next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is due; if so, the next time is later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + self.interval;
            self.interval = (self.interval * 5 / 4).min(INTERVALS.1);
        }
        is_due
    }
}
