//! How workers that leave close what their clients keep open: connections, event streams, web sockets.
//!
//! The workers are asked first ([`Action::Retire`]), and do it themselves: their responses say `Connection: close`, and
//! open streams are closed one after the other, because otherwise all clients would reconnect at once. Only then does
//! the main process get TERM, at which servers close idle connections and cut all others.

use std::time::{Duration, Instant};

use super::action::Action;
use super::generation::{Generation, Main, Stage};
use super::turn::Turn;
use super::{Phase, State};
use crate::ids::GenerationId;

/// The number of streams whose clients may reconnect per second.
const PER_SECOND: u32 = 100;
/// Streams are closed over this time at least.
const LEAST_SPREAD: Duration = Duration::from_secs(1);
/// At a stop there is no other generation to reconnect to.
const SPREAD_AT_STOP: Duration = Duration::from_millis(400);
/// The part of the budget that is reserved for requests that continue after the streams are closed.
const KEPT_BACK: Duration = Duration::from_secs(2);
/// The time until a worker has noticed that it is to leave, and the time until the end of the last stream has reached
/// its client.
const NOTICE: Duration = Duration::from_millis(500);

/// Why workers leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Others serve in their place.
    Handover,
    /// Everything ends.
    Stop,
}

/// Workers that are asked to leave before everything ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disconnecting {
    /// Generations whose number of open streams is not known yet.
    unanswered: usize,
    /// Whether one has streams.
    has_streams: bool,
}

/// The time over which this many streams are closed, out of the time by which their workers must have ended.
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

/// How long workers with this many streams continue before they are asked to end.
#[must_use]
pub fn time_to_disconnect(streams: u32, spread: Duration, within: Duration) -> Duration {
    if streams == 0 {
        Duration::ZERO
    } else {
        (spread + NOTICE).min(within.saturating_sub(KEPT_BACK).max(within / 2))
    }
}

impl State {
    /// Workers were asked to leave, and had this many streams.
    pub(super) fn leaving(&mut self, id: GenerationId, streams: u32, spread: Duration, turn: &mut Turn) {
        let now = turn.now;
        if let Phase::Delaying { until, deadline, disconnecting: Some(disconnecting), .. } = &mut self.phase {
            disconnecting.unanswered = disconnecting.unanswered.saturating_sub(1);
            disconnecting.has_streams |= streams > 0;
            let deadline = *deadline;
            *until = (*until).max(now + time_to_disconnect(streams, spread, deadline.saturating_duration_since(now)));
            if disconnecting.unanswered == 0 && !disconnecting.has_streams {
                self.end(deadline, None, turn);
            }
            return;
        }
        if let Some(Generation { stage: Stage::Lingering { until, deadline, .. }, .. }) = self.find(id) {
            *until = (*until).max(now + time_to_disconnect(streams, spread, deadline.saturating_duration_since(now)));
        }
    }

    /// Everything is to end: first the workers close their streams.
    pub(super) fn disconnect_clients(&mut self, since: Instant, deadline: Instant, turn: &mut Turn) {
        let serves = |found: &&Generation| match &found.stage {
            Stage::Serving { .. } | Stage::Lingering { .. } => found.main != Main::Spawning,
            Stage::Starting { .. } | Stage::Leaving(_) => false,
        };
        let within = deadline.saturating_duration_since(turn.now);
        let asked: Vec<GenerationId> = self.generations.iter().filter(serves).map(|found| found.id).collect();
        if asked.is_empty() {
            return self.end(deadline, None, turn);
        }
        let disconnecting = Some(Disconnecting { unanswered: asked.len(), has_streams: false });
        // The number of streams is normally known at once; this limits the wait if it is not.
        let until = turn.now + time_to_disconnect(1, spread(1, within, Occasion::Stop), within);
        let (last, interrupted) = (self.last(), self.is_interrupted());
        self.phase = Phase::Delaying { since, until, deadline, disconnecting, last, interrupted };
        turn.extend(asked.into_iter().map(|generation| Action::Retire {
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
        assert_eq!(spread(1, Duration::from_secs(1), Occasion::Stop), Duration::from_millis(250));
    }

    #[test]
    fn term_comes_when_the_streams_are_closed_and_leaves_time_for_requests() {
        assert_eq!(time_to_disconnect(0, BUDGET, BUDGET), Duration::ZERO);
        let spread = spread(10_000, BUDGET, Occasion::Handover);
        assert_eq!(time_to_disconnect(10_000, spread, BUDGET), Duration::from_secs(23));
        assert_eq!(time_to_disconnect(1, LEAST_SPREAD, BUDGET), Duration::from_millis(1500));
    }
}
