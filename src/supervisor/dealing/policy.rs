//! Which workers of a generation get new clients. Pure: the input is the scoreboard's contents and the time.

use std::collections::BTreeSet;
use std::time::Duration;

/// A worker whose event loop has not run for this long gets no new clients. Heartbeats are four times as frequent, and
/// may be late on a busy machine.
pub const SILENT: Duration = Duration::from_secs(1);

/// A worker with a listening socket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The index, from 0, of its socket among those of its generation.
    pub listener: usize,
    /// How it is.
    pub condition: Condition,
}

/// What decides whether a worker gets new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Whether its app has started.
    pub is_ready: bool,
    /// Whether it was asked to leave.
    pub is_leaving: bool,
    /// When its event loop last ran, on the scoreboard's clock.
    pub heartbeat: Duration,
    /// Requests in progress.
    pub in_flight: u32,
    /// How many requests it may have in progress.
    pub limit: Option<u32>,
}

/// Whether a worker gets new clients, and if not, why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It gets new clients.
    Dealt,
    /// It has as many requests as allowed.
    Full,
    /// Its event loop does not run.
    Silent,
    /// It is leaving.
    Leaving,
    /// Its app has not started yet.
    Starting,
}

impl Standing {
    /// The status in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dealt => "dealt",
            Self::Full => "full",
            Self::Silent => "silent",
            Self::Leaving => "leaving",
            Self::Starting => "starting",
        }
    }
}

/// Whether a worker gets new clients.
#[must_use]
pub fn standing(worker: &Condition, now: Duration) -> Standing {
    if worker.is_leaving {
        Standing::Leaving
    } else if !worker.is_ready {
        Standing::Starting
    } else if now.saturating_sub(worker.heartbeat) > SILENT {
        Standing::Silent
    } else if worker.limit.is_some_and(|limit| worker.in_flight >= limit) {
        Standing::Full
    } else {
        Standing::Dealt
    }
}

/// The sockets that get no new clients, out of this number. If all responsive workers are full, all of these get clients,
/// which they refuse at once. If no worker responds, no socket is withheld: clients wait until a worker recovers.
#[must_use]
pub fn withheld(sockets: usize, workers: &[Sample], now: Duration) -> BTreeSet<usize> {
    let best = |socket: usize| {
        workers.iter().filter(|worker| worker.listener == socket).map(|worker| standing(&worker.condition, now)).min()
    };
    let standings: Vec<Option<Standing>> = (0..sockets).map(best).collect();
    let up_to = |worst: Standing| {
        let is_open = |found: &Option<Standing>| found.is_some_and(|found| found <= worst);
        standings.iter().any(is_open).then(|| (0..sockets).filter(|socket| !is_open(&standings[*socket])).collect())
    };
    up_to(Standing::Dealt).or_else(|| up_to(Standing::Full)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(100);

    const WELL: Condition =
        Condition { is_ready: true, is_leaving: false, heartbeat: NOW, in_flight: 0, limit: Some(16) };

    fn worker(listener: usize) -> Sample {
        with(listener, WELL)
    }

    fn with(listener: usize, condition: Condition) -> Sample {
        Sample { listener, condition }
    }

    #[test]
    fn only_those_that_can_take_clients_get_them() {
        let workers = [
            worker(0),
            with(1, Condition { in_flight: 16, ..WELL }),
            with(2, Condition { heartbeat: NOW.saturating_sub(SILENT + Duration::from_millis(1)), ..WELL }),
            with(3, Condition { is_ready: false, ..WELL }),
            with(4, Condition { is_leaving: true, ..WELL }),
        ];
        assert_eq!(withheld(6, &workers, NOW), BTreeSet::from([1, 2, 3, 4, 5]), "no worker has the last one");
    }

    #[test]
    fn when_all_are_full_all_refuse_and_when_none_answers_all_may_come_back() {
        let full = |listener| with(listener, Condition { in_flight: 16, ..WELL });
        let silent = |listener| with(listener, Condition { heartbeat: Duration::ZERO, ..WELL });
        assert_eq!(withheld(3, &[full(0), full(1), silent(2)], NOW), BTreeSet::from([2]));
        assert_eq!(withheld(2, &[silent(0), silent(1)], NOW), BTreeSet::new());
        assert_eq!(withheld(2, &[], NOW), BTreeSet::new());
    }

    #[test]
    fn a_successor_has_the_socket_of_the_worker_that_leaves() {
        let leaving = with(0, Condition { is_leaving: true, ..WELL });
        assert_eq!(withheld(2, &[leaving, worker(0), worker(1)], NOW), BTreeSet::new());
    }

    #[test]
    fn the_status_tells_them_apart() {
        use Standing::{Dealt, Full, Leaving, Silent, Starting};
        let words = [Dealt, Full, Silent, Leaving, Starting].map(Standing::word);
        assert_eq!(BTreeSet::from(words).len(), 5, "{words:?}");
    }

    fn any_worker() -> impl Strategy<Value = Sample> {
        (0usize..4, any::<bool>(), any::<bool>(), 95u64..=100, 0u32..20).prop_map(
            |(listener, is_ready, is_leaving, heartbeat, in_flight)| {
                let heartbeat = Duration::from_secs(heartbeat);
                with(listener, Condition { is_ready, is_leaving, heartbeat, in_flight, ..WELL })
            },
        )
    }

    proptest! {
        #[test]
        fn some_worker_always_gets_clients_and_none_is_worse_than_those_left_out(
            workers in proptest::collection::vec(any_worker(), 0..8),
        ) {
            let withheld = withheld(4, &workers, NOW);
            prop_assert!(withheld.len() < 4);
            let best = |socket: usize| {
                workers.iter().filter(|worker| worker.listener == socket).map(|worker| standing(&worker.condition, NOW)).min()
            };
            if withheld.is_empty() {
                return Ok(());
            }
            let open = (0..4).filter(|socket| !withheld.contains(socket)).filter_map(best).max();
            let closed = withheld.iter().filter_map(|socket| best(*socket)).min();
            prop_assert!(open.is_some() && closed.is_none_or(|closed| open < Some(closed)));
        }
    }
}
