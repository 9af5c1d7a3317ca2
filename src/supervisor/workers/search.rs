//! When to search for a worker that should appear soon. Pure.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(20);
/// Most replacements appear within this time. One that ends before it is found is not counted.
const EAGER_FOR: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(1);
/// While a generation starts, its main process may take any time until it has workers, and these may end soon.
const LONGEST_AT_START: Duration = Duration::from_millis(250);
/// Longer than either server takes between a worker's end and the start of the next. Workers that come later are found
/// when something else happens.
const FOR: Duration = Duration::from_secs(30);

/// A search: checks at growing intervals, for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// How many workers there should be.
    wanted: usize,
    next: Instant,
    interval: Duration,
    longest: Duration,
    eager_until: Instant,
    /// None if it ends only with success.
    until: Option<Instant>,
}

impl Search {
    /// A search whose first check is due at once.
    #[must_use]
    pub fn new(wanted: usize, now: Instant) -> Self {
        let (eager_until, until) = (now + EAGER_FOR, Some(now + FOR));
        Self { wanted, next: now, interval: FIRST, longest: LONGEST, eager_until, until }
    }

    /// A search for the first workers of a generation.
    #[must_use]
    pub fn at_start(wanted: usize, now: Instant) -> Self {
        Self { longest: LONGEST_AT_START, eager_until: now, until: None, ..Self::new(wanted, now) }
    }

    /// When to check.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// A check found this many: returns the search that continues, if one does. Those that are not certain to be workers are
    /// looked at again.
    #[must_use]
    pub fn found(self, count: usize, are_certain: bool, now: Instant) -> Option<Self> {
        let are_there = count >= self.wanted;
        if are_there && are_certain || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let is_eager = now < self.eager_until && !are_there;
        let interval = if is_eager { FIRST } else { (self.interval * 2).min(self.longest) };
        Some(Self { next: now + interval, interval, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_workers_are_looked_for_until_they_are_there() {
        let start = Instant::now();
        let mut search = Search::at_start(2, start);
        for _ in 0..1000 {
            let now = search.next();
            search = search.found(1, true, now).unwrap();
            assert!(search.next() > now && search.next() <= now + LONGEST_AT_START);
        }
        assert_eq!(search.found(2, true, search.next()), None);
    }

    #[test]
    fn those_that_are_not_certain_are_looked_at_again_and_less_and_less_often() {
        let start = Instant::now();
        let first = Search::new(2, start).found(2, false, start).unwrap();
        let second = first.found(2, false, first.next()).unwrap();
        assert_eq!(second.next() - first.next(), 2 * (first.next() - start));
        assert_eq!(second.found(2, true, second.next()), None);
    }

    #[test]
    fn it_ends_with_success_and_otherwise_soon() {
        let start = Instant::now();
        assert_eq!(Search::new(2, start).found(2, true, start), None);
        let mut search = Some(Search::new(2, start));
        let (mut looks, mut now) = (0, start);
        while let Some(current) = search {
            assert!(current.next() >= now && current.next() <= now + LONGEST);
            now = current.next();
            search = current.found(1, true, now);
            looks += 1;
        }
        assert!(looks < 90 && now < start + FOR + LONGEST, "{looks} looks in {:?}", now - start);
    }
}
