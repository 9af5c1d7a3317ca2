//! The requests of all workers together, including workers that have ended. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Pid;

use crate::control::protocol::Requests;
use crate::guard::scoreboard::Slot;
use crate::guard::scoreboard::durations::Durations;
use crate::ids::GenerationId;

/// The sum over all workers so far. It never decreases: what a worker last reported is kept when its slot of the
/// scoreboard has another owner, and when its generation has ended.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Totals {
    past: Total,
    /// By generation, process, and when it took its slot.
    present: BTreeMap<(GenerationId, Pid, Duration), Total>,
}

/// The requests of one or more workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Total {
    pub(in crate::supervisor) requests: Requests,
    /// How long they took.
    pub(in crate::supervisor) durations: Durations,
}

impl Totals {
    /// Adds the contents of a generation's scoreboard.
    pub(in crate::supervisor) fn note(&mut self, generation: GenerationId, slots: &[(Slot, Durations)]) {
        let is_there = |id: &(GenerationId, Pid, Duration)| {
            slots.iter().any(|(slot, _)| (slot.pid, slot.claimed) == (id.1, id.2))
        };
        self.settle(|id| id.0 == generation && !is_there(id));
        for (slot, durations) in slots {
            let requests = Requests { served: slot.served, rejected: slot.rejected };
            let known = self.present.entry((generation, slot.pid, slot.claimed)).or_default();
            // Another worker may have taken the slot between the two readings.
            *known = Total { requests, durations: durations.later(&known.durations) };
        }
    }

    /// A generation and its scoreboard no longer exist.
    pub(in crate::supervisor) fn forget(&mut self, generation: GenerationId) {
        self.settle(|id| id.0 == generation);
    }

    pub(in crate::supervisor) fn total(&self) -> Total {
        self.present.values().fold(self.past, |all, one| sum(&all, one))
    }

    fn settle(&mut self, is_past: impl Fn(&(GenerationId, Pid, Duration)) -> bool) {
        let past = &mut self.past;
        self.present.retain(|id, total| {
            let is_past = is_past(id);
            if is_past {
                *past = sum(past, total);
            }
            !is_past
        });
    }
}

fn sum(one: &Total, other: &Total) -> Total {
    let requests = Requests {
        served: one.requests.served.saturating_add(other.requests.served),
        rejected: one.requests.rejected.saturating_add(other.requests.rejected),
    };
    Total { requests, durations: one.durations.and(&other.durations) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::scoreboard::State;

    /// Each served request took the time of the same bucket.
    fn slot(pid: i32, claimed: u64, served: u64, rejected: u64) -> (Slot, Durations) {
        let claimed = Duration::from_secs(claimed);
        let mut durations = Durations { sum: Duration::from_secs(served), ..Durations::default() };
        durations.buckets[9] = served;
        (Slot { claimed, served, rejected, ..Slot::blank(Pid::from_raw(pid), State::Ready) }, durations)
    }

    #[track_caller]
    fn assert_total(totals: &Totals, served: u64, rejected: u64) {
        let Total { requests, durations } = totals.total();
        assert_eq!(requests, Requests { served, rejected });
        assert_eq!((durations.buckets[9], durations.count(), durations.sum.as_secs()), (served, served, served));
    }

    #[test]
    fn what_the_dead_did_is_not_forgotten_and_nothing_counts_twice() {
        let mut totals = Totals::default();
        totals.note(GenerationId(1), &[slot(5, 10, 100, 1), slot(6, 10, 50, 0)]);
        totals.note(GenerationId(1), &[slot(5, 10, 110, 2), slot(6, 10, 50, 0)]);
        assert_total(&totals, 160, 2);
        // A worker has the slot of an earlier one, even with the same pid.
        totals.note(GenerationId(1), &[slot(5, 20, 1, 0), slot(6, 10, 50, 0)]);
        assert_total(&totals, 161, 2);
        totals.note(GenerationId(2), &[slot(7, 30, 9, 9)]);
        totals.forget(GenerationId(1));
        assert_total(&totals, 170, 11);
        assert_eq!(totals.present.len(), 1);
    }

    #[test]
    fn durations_of_a_slot_that_changes_hands_meanwhile_do_not_go_back() {
        let mut totals = Totals::default();
        totals.note(GenerationId(1), &[slot(5, 10, 100, 1)]);
        let (read_before, _) = slot(5, 10, 100, 1);
        totals.note(GenerationId(1), &[(read_before, Durations::default())]);
        assert_total(&totals, 100, 1);
    }
}
