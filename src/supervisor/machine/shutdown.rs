//! The end of everything: asked for, or because it was given up.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{DISCARD_WITHIN, Phase, SAME_WISH, State};
use crate::run::stop_sequence::{Step, StopSequence};
use crate::supervisor::machine::generation::{Action, Main, Note, Outcome, Stage};

impl State {
    pub(super) fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Running => {
                let policy = self.policy().clone();
                let delay = if self.serving().is_some() { policy.stop_delay } else { Duration::ZERO };
                let deadline = now + policy.stop_timeout;
                actions.push(Action::Log(Note::Stopping { delay, budget: policy.stop_timeout }));
                self.refuse_reloads("the launcher is stopping", actions);
                self.pending = None;
                self.discard_incoming(now, actions);
                if delay.is_zero() {
                    self.end(now, deadline, None, actions);
                } else {
                    self.phase = Phase::Delaying { since: now, until: now + delay, deadline };
                }
            }
            Phase::Delaying { since, deadline, .. } => {
                let (repeated, deadline) = (now.duration_since(*since) < SAME_WISH, *deadline);
                if !repeated {
                    actions.push(Action::Log(Note::Hurrying));
                    self.end(now, deadline, None, actions);
                }
            }
            Phase::Ending { since, leave, .. } => {
                if now.duration_since(*since) >= SAME_WISH {
                    actions.push(Action::Log(Note::Hurrying));
                    leave.hurry(now);
                }
            }
            Phase::Done => {}
        }
    }

    pub(super) fn quit(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Phase::Ending { leave, .. } = &mut self.phase {
            actions.push(Action::Log(Note::Hurrying));
            return leave.hurry(now);
        }
        // Not by QUIT, which uvicorn's workers under Gunicorn do not act upon: they would be waited for in vain.
        let budget = self.policy().stop_timeout.min(DISCARD_WITHIN);
        actions.push(Action::Log(Note::Stopping { delay: Duration::ZERO, budget }));
        self.refuse_reloads("the launcher is stopping", actions);
        self.end(now, now + budget, None, actions);
    }

    /// Tells everything to leave. `status` is what we exit with, if that is decided already.
    pub(super) fn end(&mut self, now: Instant, deadline: Instant, status: Option<u8>, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Done) {
            return;
        }
        self.pending = None;
        let mut leave = StopSequence::new(now, deadline);
        for generation in &self.generations {
            let is_asked = matches!(&generation.stage, Stage::Leaving(leave) if leave.is_asked());
            if matches!(generation.main, Main::Alive(_)) && !is_asked {
                actions.push(Action::Signal { generation: generation.id, signal: Signal::SIGTERM });
            }
        }
        if !self.generations.iter().any(|generation| matches!(generation.main, Main::Alive(_))) {
            leave.main_gone(now);
        }
        self.phase = Phase::Ending { since: now, leave, status, last: None };
    }

    pub(super) fn alone(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.generations.retain(|generation| generation.main != Main::Gone);
        match &self.phase {
            Phase::Ending { .. } => self.finish(actions),
            Phase::Delaying { deadline, .. } if self.generations.is_empty() => {
                self.end(now, *deadline, None, actions);
                self.finish(actions);
            }
            _ => {}
        }
    }

    /// Nothing is left, or nothing that could be ended: the exit status is the real cause.
    pub(super) fn finish(&mut self, actions: &mut Vec<Action>) {
        let Phase::Ending { leave, status, last, .. } = &self.phase else { return };
        let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].map(|signal| Outcome::Signaled(signal as i32));
        let status = status.unwrap_or_else(|| match last {
            _ if leave.killed() => Outcome::Signaled(Signal::SIGTERM as i32).status(),
            None => 0,
            Some(outcome) if asked.contains(outcome) => 0,
            Some(outcome) => outcome.status(),
        });
        self.phase = Phase::Done;
        self.generations.clear();
        actions.push(Action::Log(Note::Stopped { status }));
        actions.push(Action::Exit(status));
    }

    /// What the passing of time brings when everything has been told to leave.
    pub(super) fn end_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Ending { leave, .. } = &mut self.phase else { return };
        let mut abandoned = false;
        while let Some(step) = leave.due(now) {
            match step {
                // They were told when the end began.
                Step::Ask => {}
                Step::AskRest => actions.push(Action::SignalStrays(Signal::SIGTERM)),
                Step::Kill => actions.extend([Action::Log(Note::Killing), Action::KillAll]),
                Step::Abandon => abandoned = true,
            }
        }
        if abandoned {
            actions.push(Action::Log(Note::Abandoned));
            self.finish(actions);
        }
    }
}
