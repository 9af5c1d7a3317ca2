//! When to look for a worker that should appear soon. Pure.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(20);
/// Most replacements are there in this time. One that ends before it is found is not counted.
const EAGER_FOR: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(1);
/// Longer than either server takes between a worker's end and the start of the next. What comes later is found
/// when something else happens.
const FOR: Duration = Duration::from_secs(30);

/// A search: looks that come less and less often, for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// How many workers there should be.
    wanted: usize,
    next: Instant,
    interval: Duration,
    eager_until: Instant,
    until: Instant,
}

impl Search {
    /// A search that looks at once.
    #[must_use]
    pub fn new(wanted: usize, now: Instant) -> Self {
        Self { wanted, next: now, interval: FIRST, eager_until: now + EAGER_FOR, until: now + FOR }
    }

    /// When to look.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// A look found so many: the search that goes on, if one does.
    #[must_use]
    pub fn found(self, count: usize, now: Instant) -> Option<Self> {
        if count >= self.wanted || now >= self.until {
            return None;
        }
        let interval = if now < self.eager_until { FIRST } else { (self.interval * 2).min(LONGEST) };
        Some(Self { next: now + interval, interval, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_success_and_otherwise_soon() {
        let start = Instant::now();
        assert_eq!(Search::new(2, start).found(2, start), None);
        let mut search = Some(Search::new(2, start));
        let (mut looks, mut now) = (0, start);
        while let Some(current) = search {
            assert!(current.next() >= now && current.next() <= now + LONGEST);
            now = current.next();
            search = current.found(1, now);
            looks += 1;
        }
        assert!(looks < 90 && now < start + FOR + LONGEST, "{looks} looks in {:?}", now - start);
    }
}
