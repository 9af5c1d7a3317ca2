//! How workers that leave part from clients who keep something open: connections, event streams, web sockets.
//!
//! The workers are told first ([`Action::Retire`]), and see to it themselves: their answers say `Connection: close`,
//! and what is open is closed bit by bit, because otherwise all clients would reconnect at once. Only then does the
//! main process get TERM, at which servers close what is idle, and cut what is not, without asking.

use std::time::{Duration, Instant};

use super::action::Action;
use super::generation::{Generation, Main, Stage};
use super::turn::Turn;
use super::{Phase, State};
use crate::ids::GenerationId;

/// Clients of so many streams may come back in a second.
const PER_SECOND: u32 = 100;
/// Streams are closed over this time at least.
const LEAST_SPREAD: Duration = Duration::from_secs(1);
/// At a stop there is nobody to come back to.
const SPREAD_AT_STOP: Duration = Duration::from_millis(400);
/// What is kept back of the budget for requests that go on when the streams are closed.
const KEPT_BACK: Duration = Duration::from_secs(2);
/// From telling a worker until it has noticed, and from the last stream until it has reached its client.
const NOTICE: Duration = Duration::from_millis(500);

/// Why workers leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Others serve in their place.
    Handover,
    /// Everything ends.
    Stop,
}

/// Workers that are told to leave before everything ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parting {
    /// Generations of which it is not known yet what they have open.
    unheard: usize,
    /// Whether one has streams.
    has_streams: bool,
}

/// The time over which so many streams are closed, of the time that there is until their workers must be gone.
#[must_use]
pub fn spread(streams: u32, within: Duration, occasion: Occasion) -> Duration {
    match occasion {
        Occasion::Handover => {
            let wanted = Duration::from_secs(streams.into()) / PER_SECOND;
            wanted.max(LEAST_SPREAD).min(within.saturating_sub(KEPT_BACK).max(within / 3))
        }
        Occasion::Stop => SPREAD_AT_STOP.min(within / 4),
    }
}

/// How long workers with this many streams go on until they are told to end.
#[must_use]
pub fn time_to_part(streams: u32, spread: Duration, within: Duration) -> Duration {
    if streams == 0 {
        Duration::ZERO
    } else {
        (spread + NOTICE).min(within.saturating_sub(KEPT_BACK).max(within / 2))
    }
}

impl State {
    /// Workers were told to leave, and had this many streams.
    pub(super) fn leaving(&mut self, id: GenerationId, streams: u32, spread: Duration, turn: &mut Turn) {
        let now = turn.now;
        if let Phase::Delaying { until, deadline, parting: Some(parting), .. } = &mut self.phase {
            parting.unheard = parting.unheard.saturating_sub(1);
            parting.has_streams |= streams > 0;
            let deadline = *deadline;
            *until = (*until).max(now + time_to_part(streams, spread, deadline.saturating_duration_since(now)));
            if parting.unheard == 0 && !parting.has_streams {
                self.end(deadline, None, turn);
            }
            return;
        }
        if let Some(Generation { stage: Stage::Lingering { until, deadline, .. }, .. }) = self.find(id) {
            *until = (*until).max(now + time_to_part(streams, spread, deadline.saturating_duration_since(now)));
        }
    }

    /// Everything is to end: first the workers part from their clients.
    pub(super) fn part(&mut self, since: Instant, deadline: Instant, turn: &mut Turn) {
        let serves = |found: &&Generation| match &found.stage {
            Stage::Serving { .. } | Stage::Lingering { .. } => found.main != Main::Spawning,
            Stage::Starting { .. } | Stage::Leaving(_) => false,
        };
        let within = deadline.saturating_duration_since(turn.now);
        let told: Vec<GenerationId> = self.generations.iter().filter(serves).map(|found| found.id).collect();
        if told.is_empty() {
            return self.end(deadline, None, turn);
        }
        let parting = Some(Parting { unheard: told.len(), has_streams: false });
        // It is known at once what they have open; this is for the case that it is not.
        let until = turn.now + time_to_part(1, spread(1, within, Occasion::Stop), within);
        self.phase = Phase::Delaying { since, until, deadline, parting };
        turn.extend(told.into_iter().map(|generation| Action::Retire {
            generation,
            within,
            occasion: Occasion::Stop,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(25);

    #[test]
    fn the_clients_of_many_streams_come_back_a_hundred_in_a_second_and_within_the_budget() {
        let seconds = |streams, budget| spread(streams, Duration::from_secs(budget), Occasion::Handover).as_secs();
        assert_eq!(seconds(1, 25), 1);
        assert_eq!(seconds(1200, 25), 12);
        assert_eq!(seconds(10_000, 25), 23);
        assert_eq!(seconds(10_000, 3), 1);
        assert!(spread(10_000, BUDGET, Occasion::Stop) < Duration::from_secs(1));
    }

    #[test]
    fn term_comes_when_the_streams_are_closed_and_leaves_time_for_requests() {
        assert_eq!(time_to_part(0, BUDGET, BUDGET), Duration::ZERO);
        let spread = spread(10_000, BUDGET, Occasion::Handover);
        assert_eq!(time_to_part(10_000, spread, BUDGET), Duration::from_secs(23));
        assert_eq!(time_to_part(1, LEAST_SPREAD, BUDGET), Duration::from_millis(1500));
    }
}
