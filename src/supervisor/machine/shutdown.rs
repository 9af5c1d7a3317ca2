//! The end of the launcher: on request, or because it gives up.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::action::Action;
use super::draining::DISCARD_WITHIN;
use super::generation::{Main, Stage};
use super::note::Note;
use super::outcome::Outcome;
use super::turn::Turn;
use super::{Phase, SAME_WISH, State};
use crate::run::stop_sequence::{StopSequence, StopStep};

impl State {
    pub(super) fn stop(&mut self, turn: &mut Turn) {
        match &mut self.phase {
            Phase::Running => {
                let policy = self.policy().clone();
                let delay = if self.serving().is_some() { policy.stop_delay } else { Duration::ZERO };
                let deadline = turn.now + policy.stop_timeout;
                turn.log(Note::Stopping { delay, budget: policy.stop_timeout });
                self.refuse_reloads("the launcher is stopping", turn);
                self.pending = None;
                self.discard_incoming(turn);
                if delay.is_zero() {
                    self.disconnect_clients(turn.now, deadline, turn);
                } else {
                    let (since, until) = (turn.now, turn.now + delay);
                    self.phase = Phase::Delaying {
                        since,
                        until,
                        deadline,
                        disconnecting: None,
                        last: None,
                        interrupted: false,
                    };
                }
            }
            Phase::Delaying { since, deadline, disconnecting, .. } => {
                let (repeated, deadline) = (turn.now.duration_since(*since) < SAME_WISH, *deadline);
                let (since, waits_for_term) = (*since, disconnecting.is_none());
                if !repeated {
                    turn.log(Note::Hurrying);
                    if waits_for_term {
                        self.disconnect_clients(since, deadline, turn);
                    } else {
                        self.end_now(deadline, turn);
                    }
                }
            }
            Phase::Ending { since, leave, .. } => {
                if turn.now.duration_since(*since) >= SAME_WISH {
                    turn.log(Note::Hurrying);
                    leave.hurry(turn.now);
                }
            }
            Phase::Done => {}
        }
    }

    /// The terminal has told the processes of the servers too, in no particular order. How these end is then no
    /// sign of a fault: Granian's main process ends with 1 if it notices the end of a worker before its own signal.
    pub(super) fn interrupt(&mut self, turn: &mut Turn) {
        self.stop(turn);
        if let Phase::Delaying { interrupted, .. } | Phase::Ending { interrupted, .. } = &mut self.phase {
            *interrupted = true;
        }
    }

    pub(super) const fn is_interrupted(&self) -> bool {
        matches!(self.phase, Phase::Delaying { interrupted: true, .. } | Phase::Ending { interrupted: true, .. })
    }

    /// How the main process that served has ended, if it has since the stop began.
    pub(super) const fn last(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Delaying { last, .. } | Phase::Ending { last, .. } => last,
            Phase::Running | Phase::Done => None,
        }
    }

    pub(super) fn quit(&mut self, turn: &mut Turn) {
        if let Phase::Ending { leave, .. } = &mut self.phase {
            turn.log(Note::Hurrying);
            return leave.hurry(turn.now);
        }
        // Not with QUIT: uvicorn's workers under Gunicorn ignore it, so we would wait for nothing.
        let left = match self.phase {
            Phase::Delaying { deadline, .. } => deadline.saturating_duration_since(turn.now),
            _ => self.policy().stop_timeout,
        };
        let budget = left.min(DISCARD_WITHIN);
        turn.log(Note::Stopping { delay: Duration::ZERO, budget });
        self.refuse_reloads("the launcher is stopping", turn);
        self.end(turn.now + budget, None, turn);
    }

    /// Asks everything to stop. `status` is our exit status, if that is decided already.
    pub(super) fn end(&mut self, deadline: Instant, status: Option<u8>, turn: &mut Turn) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Done) {
            return;
        }
        self.pending = None;
        // First, because this checks which workers wait for clients, before they are asked to stop.
        turn.push(Action::RefuseClients);
        let mut leave = StopSequence::new(turn.now, deadline);
        for generation in &self.generations {
            let is_asked = matches!(&generation.stage, Stage::Leaving(leave) if leave.is_asked());
            if matches!(generation.main, Main::Alive(_)) && !is_asked {
                turn.signal(generation.id, Signal::SIGTERM);
            }
        }
        if !self.generations.iter().any(|generation| matches!(generation.main, Main::Alive(_))) {
            leave.ask_rest(turn.now);
        }
        let (last, interrupted) = (self.last(), self.is_interrupted());
        self.phase = Phase::Ending { since: turn.now, leave, status, last, interrupted };
    }

    /// Kills everything without waiting.
    fn end_now(&mut self, deadline: Instant, turn: &mut Turn) {
        self.end(deadline, None, turn);
        if let Phase::Ending { leave, .. } = &mut self.phase {
            leave.hurry(turn.now);
        }
    }

    pub(super) fn alone(&mut self, turn: &mut Turn) {
        self.generations.retain(|generation| generation.main != Main::Gone);
        match &self.phase {
            Phase::Ending { .. } => self.finish(turn),
            Phase::Delaying { deadline, .. } if self.generations.is_empty() => {
                self.end(*deadline, None, turn);
                self.finish(turn);
            }
            _ => {}
        }
    }

    /// Nothing is left, or nothing that could be ended: the exit status shows the real cause.
    pub(super) fn finish(&mut self, turn: &mut Turn) {
        let Phase::Ending { leave, status, last, .. } = &self.phase else { return };
        let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].map(|signal| Outcome::Signaled(signal as i32));
        let status = status.unwrap_or_else(|| match last {
            _ if leave.killed() => Outcome::Signaled(Signal::SIGTERM as i32).status(),
            None => 0,
            Some(_) if self.is_interrupted() => 0,
            Some(outcome) if asked.contains(outcome) => 0,
            Some(outcome) => outcome.status(),
        });
        self.phase = Phase::Done;
        self.generations.clear();
        turn.log(Note::Stopped { status });
        turn.push(Action::Exit(status));
    }

    /// What is due when everything has been asked to stop.
    pub(super) fn end_deadlines(&mut self, turn: &mut Turn) {
        let Phase::Ending { leave, .. } = &mut self.phase else { return };
        let mut abandoned = false;
        while let Some(step) = leave.due(turn.now) {
            match step {
                // They were asked when the end began.
                StopStep::Ask => {}
                StopStep::AskRest => turn.push(Action::SignalStrays(Signal::SIGTERM)),
                StopStep::Kill => turn.extend([Action::Log(Note::Killing), Action::KillAll]),
                StopStep::Abandon => abandoned = true,
            }
        }
        if abandoned {
            turn.log(Note::Abandoned);
            self.finish(turn);
        }
    }
}
