//! How a generation is stopped: it lingers, is asked to stop, and is killed in the end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::State;
use super::action::Action;
use super::disconnecting::Occasion;
use super::generation::{Generation, Main, Stage};
use super::note::Note;
use super::turn::Turn;
use crate::ids::GenerationId;
use crate::run::stop_sequence::{StopSequence, StopStep};

/// How long a generation that never became ready may take to stop; it has no requests to finish.
pub(super) const DISCARD_WITHIN: Duration = Duration::from_secs(2);
/// How long the old generation continues after new clients are sent to the new one. Clients that have connected already
/// need this time to send their request, over a slow network and after a TLS handshake; both servers close such
/// connections when they are asked to stop.
pub(super) const LINGER: Duration = Duration::from_secs(1);

impl State {
    /// Lets a generation answer clients that have connected already, before it is asked to stop.
    pub(super) fn linger(&mut self, id: GenerationId, turn: &mut Turn) {
        let Some(plan) = self.find(id).map(|generation| generation.plan) else { return };
        let budget = self.plan(Some(plan)).policy.stop_timeout;
        let Some(generation) = self.find(id) else { return };
        if let Stage::Serving { since } = generation.stage {
            let until = turn.now + LINGER.min(budget / 2);
            generation.stage = Stage::Lingering { since, until, deadline: turn.now + budget };
            turn.push(Action::Retire { generation: id, within: budget, occasion: Occasion::Handover });
        }
    }

    /// Asks generations to stop that have lingered for long enough.
    pub(super) fn linger_deadlines(&mut self, turn: &mut Turn) {
        let staying = self.serving().map(|serving| serving.id);
        for generation in &mut self.generations {
            let Stage::Lingering { until, deadline, .. } = generation.stage else { continue };
            if until > turn.now {
                continue;
            }
            generation.leave(deadline, staying, turn);
        }
    }

    pub(super) fn leave_deadlines(&mut self, turn: &mut Turn) {
        let mut abandoned = Vec::new();
        let staying = self.serving().map(|serving| serving.id);
        for generation in &mut self.generations {
            let Stage::Leaving(leave) = &mut generation.stage else { continue };
            while let Some(step) = leave.due(turn.now) {
                let id = generation.id;
                match step {
                    StopStep::Ask => turn.ask_to_leave(id, staying),
                    StopStep::AskRest => turn.push(Action::SignalRest { generation: id, signal: Signal::SIGTERM }),
                    StopStep::Kill => turn.extend([Action::Log(Note::Killing), Action::Kill { generation: id }]),
                    StopStep::Abandon => abandoned.push(id),
                }
            }
        }
        if !abandoned.is_empty() {
            turn.log(Note::Abandoned);
            self.generations.retain(|generation| !abandoned.contains(&generation.id));
        }
    }

    /// Stops a generation that is still starting, which has no requests to finish.
    pub(super) fn discard_incoming(&mut self, turn: &mut Turn) {
        let staying = self.serving().map(|serving| serving.id);
        for generation in self.generations.iter_mut().filter(|generation| generation.is_starting()) {
            generation.stage = Stage::Leaving(StopSequence::new(turn.now, turn.now + DISCARD_WITHIN));
            if matches!(generation.main, Main::Alive(_)) {
                turn.ask_to_leave(generation.id, staying);
            }
        }
    }

    pub(super) fn emptied(&mut self, id: GenerationId, turn: &mut Turn) {
        let before = self.generations.len();
        self.generations.retain(|generation| generation.id != id || generation.main != Main::Gone);
        if self.generations.len() < before {
            turn.log(Note::Gone { generation: id });
        }
    }
}

impl Generation {
    /// Asks it to stop while another one may stay; it must have ended at `deadline`.
    pub(super) fn leave(&mut self, deadline: Instant, staying: Option<GenerationId>, turn: &mut Turn) {
        if self.main == Main::Gone {
            self.stage = Stage::Leaving(StopSequence::orphaned(turn.now, deadline));
        } else {
            self.stage = Stage::Leaving(StopSequence::new(turn.now, deadline));
            turn.ask_to_leave(self.id, staying);
        }
    }
}
