//! One worker fewer: its clients are told first.
//!
//! The main process ends the oldest worker on SIGTTOU, which then cuts its streams, or waits for them for the whole grace.
//! So that worker is asked to leave first ([`Action::RetireOldest`]), and the signal comes when its streams are closed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::State;
use super::action::Action;
use super::disconnecting::time_to_disconnect;
use super::draining::LINGER;
use super::generation::{Generation, Main};
use super::turn::Turn;
use crate::ids::GenerationId;

/// A worker that was asked to leave, and that its main process will be asked to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dismissal {
    generation: GenerationId,
    /// None until it is known how long its streams take.
    at: Option<Instant>,
}

impl State {
    /// Ends the oldest worker of a generation.
    pub(super) fn dismiss_oldest(&mut self, generation: GenerationId, turn: &mut Turn) {
        let within = self.time_to_finish(generation);
        self.dismissals.push(Dismissal { generation, at: None });
        turn.push(Action::RetireOldest { generation, within });
    }

    /// The worker was asked to leave, and had this many streams.
    pub(super) fn worker_leaving(&mut self, id: GenerationId, streams: u32, spread: Duration, turn: &Turn) {
        let at = turn.now + time_to_disconnect(streams, spread, self.time_to_finish(id));
        let asked = self.dismissals.iter_mut().find(|asked| asked.generation == id && asked.at.is_none());
        if let Some(asked) = asked {
            asked.at = Some(at);
        }
    }

    fn time_to_finish(&self, generation: GenerationId) -> Duration {
        self.facts_of(generation).map_or(LINGER, |facts| facts.policy.stop_timeout)
    }

    /// How many of the oldest workers of a generation were asked to leave, and will be ended soon.
    #[must_use]
    pub fn dismissed(&self, generation: GenerationId) -> usize {
        let is_one = |asked: &&Dismissal| asked.generation == generation && asked.at.is_some();
        self.dismissals.iter().filter(is_one).count()
    }

    /// When the next main process is asked to end a worker.
    pub(super) fn next_dismissal(&self) -> Option<Instant> {
        self.dismissals.iter().filter_map(|dismissal| dismissal.at).min()
    }

    pub(super) fn dismissal_deadlines(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let due: Vec<Dismissal> = self.dismissals.extract_if(.., |it| it.at.is_some_and(|at| at <= now)).collect();
        for Dismissal { generation, .. } in due {
            let is_it = |found: &Generation| found.id == generation && found.is_serving();
            // One that has been replaced in the meantime ends as a whole.
            if self.generations.iter().any(|found| is_it(found) && matches!(found.main, Main::Alive(_))) {
                turn.signal(generation, Signal::SIGTTOU);
            }
        }
    }
}
