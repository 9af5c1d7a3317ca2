//! What each worker has counted, in the part of the scoreboard behind the slots.

use std::time::Duration;

use super::durations::{BUCKETS, Counts, Durations, Window};
use super::{SLOT, Scoreboard, Slot};

/// The space for what the owner of a slot has counted: at its last heartbeat, and about ten seconds before.
pub(super) const SIZE: usize = 768;

/// Offsets in it, in bytes. All fields have eight.
mod offset {
    pub const LATEST: usize = 0;
    pub const EARLIER: usize = 384;
    /// In each of these.
    pub const AT: usize = 0;
    pub const SERVED: usize = 8;
    pub const REJECTED: usize = 16;
    pub const SUM: usize = 24;
    pub const BUCKETS: usize = 32;
}

const _: () = assert!(offset::EARLIER + offset::BUCKETS + 8 * BUCKETS <= SIZE);

impl Scoreboard {
    /// The reports of all processes that ever took a slot, each with how long its requests took.
    #[must_use]
    pub fn durations(&self) -> Vec<(Slot, Durations)> {
        let durations = |slot: &Slot| self.read_counts(slot, offset::LATEST).durations;
        self.slots().into_iter().map(|slot| (slot, durations(&slot))).collect()
    }

    /// What happened in a worker in the last ten seconds.
    #[must_use]
    pub fn window(&self, slot: &Slot, now: Duration) -> Window {
        let [latest, earlier] = [offset::LATEST, offset::EARLIER].map(|from| self.read_counts(slot, from));
        Window::new(&latest, &earlier, now)
    }

    fn read_counts(&self, slot: &Slot, from: usize) -> Counts {
        let long = |field| self.memory.long(self.counts(slot.index) + from + field);
        Counts {
            at: Duration::from_nanos(long(offset::AT)),
            served: long(offset::SERVED),
            rejected: long(offset::REJECTED),
            durations: Durations {
                sum: Duration::from_nanos(long(offset::SUM)),
                buckets: std::array::from_fn(|bucket| long(offset::BUCKETS + 8 * bucket)),
            },
        }
    }

    /// Where the counts of a slot are.
    pub(super) const fn counts(&self, index: usize) -> usize {
        SLOT * (self.slots + 1) + SIZE * index
    }
}
