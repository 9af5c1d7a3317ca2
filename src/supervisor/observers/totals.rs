//! What all workers together did with requests, those that are gone included. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Pid;

use crate::control::protocol::Requests;
use crate::guard::scoreboard::Slot;
use crate::ids::GenerationId;

/// The sum over all workers there ever were. It never goes down: what a worker said last stays when its slot of the
/// scoreboard has another owner, and when its generation is gone.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Totals {
    past: Requests,
    /// By generation, process, and when it took its slot.
    present: BTreeMap<(GenerationId, Pid, Duration), Requests>,
}

impl Totals {
    /// Takes note of what is on the scoreboard of a generation.
    pub(in crate::supervisor) fn note(&mut self, generation: GenerationId, slots: &[Slot]) {
        self.settle(|id| id.0 == generation && !slots.iter().any(|slot| (slot.pid, slot.claimed) == (id.1, id.2)));
        for slot in slots {
            let requests = Requests { served: slot.served, rejected: slot.rejected };
            self.present.insert((generation, slot.pid, slot.claimed), requests);
        }
    }

    /// A generation is gone with its scoreboard.
    pub(in crate::supervisor) fn forget(&mut self, generation: GenerationId) {
        self.settle(|id| id.0 == generation);
    }

    pub(in crate::supervisor) fn total(&self) -> Requests {
        self.present.values().fold(self.past, sum)
    }

    fn settle(&mut self, is_past: impl Fn(&(GenerationId, Pid, Duration)) -> bool) {
        let past = &mut self.past;
        self.present.retain(|id, requests| {
            let is_past = is_past(id);
            if is_past {
                *past = sum(*past, requests);
            }
            !is_past
        });
    }
}

fn sum(one: Requests, other: &Requests) -> Requests {
    Requests { served: one.served + other.served, rejected: one.rejected + other.rejected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::scoreboard::State;

    fn slot(pid: i32, claimed: u64, served: u64, rejected: u64) -> Slot {
        let claimed = Duration::from_secs(claimed);
        Slot { claimed, served, rejected, ..Slot::blank(Pid::from_raw(pid), State::Ready) }
    }

    #[test]
    fn what_the_dead_did_is_not_forgotten_and_nothing_counts_twice() {
        let mut totals = Totals::default();
        totals.note(GenerationId(1), &[slot(5, 10, 100, 1), slot(6, 10, 50, 0)]);
        totals.note(GenerationId(1), &[slot(5, 10, 110, 2), slot(6, 10, 50, 0)]);
        assert_eq!(totals.total(), Requests { served: 160, rejected: 2 });
        // One has the slot of another, even with the same number.
        totals.note(GenerationId(1), &[slot(5, 20, 1, 0), slot(6, 10, 50, 0)]);
        assert_eq!(totals.total(), Requests { served: 161, rejected: 2 });
        totals.note(GenerationId(2), &[slot(7, 30, 9, 9)]);
        totals.forget(GenerationId(1));
        assert_eq!(totals.total(), Requests { served: 170, rejected: 11 });
        assert_eq!(totals.present.len(), 1);
    }
}
