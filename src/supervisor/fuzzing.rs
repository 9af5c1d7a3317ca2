//! What is fuzzed here: what workers report. Any process of a generation can write anything into the memory that it
//! shares with us, and the application may do so by mistake.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::backpressure::policy::{Bounds, Limiter};
use super::machine::disconnecting::{self, Occasion};
use super::observers::totals::Totals;
use super::{backpressure, dealing};
use crate::guard::scoreboard::{Scoreboard, TEXT};
use crate::ids::{GenerationId, ProcessId};

const BOUNDS: Bounds = Bounds { least: 2, start: 16, most: 1000 };
/// This many bytes are one report of one worker.
const REPORT: usize = 128;

/// Reports, one after another, each with the decisions that follow. No limit leaves its bounds, and nothing is
/// remembered of a worker that is not there any more.
pub(crate) fn reports(bytes: &[u8]) {
    let board = Scoreboard::new(1, 1).expect("memory for a scoreboard");
    let mut limiter = Limiter::new(BOUNDS);
    let mut totals = Totals::default();
    let mut now = Duration::from_secs(1);
    for (turn, report) in bytes.chunks(REPORT).take(64).enumerate() {
        now += Duration::from_millis(250);
        board.overwrite([0, 1, 2, usize::MAX][turn % 4], report);
        let slots = board.slots();
        let pids: BTreeSet<i32> = slots.iter().map(|slot| slot.pid.as_raw()).collect();
        assert!(pids.len() == slots.len() && pids.iter().all(|pid| *pid > 0));
        let failure = board.failure().unwrap_or_default();
        assert!(failure.len() <= 3 * TEXT && !failure.contains(char::is_control));
        let id = |pid| ProcessId { pid, start: 1 };
        let samples: Vec<_> = slots.iter().map(|slot| (id(slot.pid), backpressure::sample(slot))).collect();
        let limits = limiter.look(&samples, now);
        assert_eq!(limits.len(), samples.len());
        for (worker, limit) in limits {
            assert!((BOUNDS.least..=BOUNDS.most).contains(&limit), "{limit}: {}", limiter.because(worker));
        }
        // The loop waits until then.
        let next = limiter.next().map(|at| at.saturating_sub(now));
        assert!(
            next.is_none_or(|wait| wait <= Duration::from_hours(2) && Instant::now().checked_add(wait).is_some())
        );
        totals.note(GenerationId(1), &board.durations());
        let budget = Duration::from_secs(25);
        for slot in &slots {
            let spread = disconnecting::spread(slot.streams, budget, Occasion::Handover);
            assert!(disconnecting::time_to_disconnect(slot.streams, spread, budget) <= budget);
        }
        let dealt: Vec<_> = slots.iter().filter_map(dealing::sample).collect();
        let withheld = dealing::policy::withheld(4, &dealt, now);
        assert!(withheld.len() < 4 && withheld.iter().all(|socket| *socket < 4));
        let _ = slots.iter().filter_map(dealing::standing).count();
        let _ = totals.total();
    }
}
