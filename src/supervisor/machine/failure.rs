//! What follows when a generation fails.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::{DISCARD_WITHIN, Pending, Phase, State};
use crate::ids::{GenerationId, PlanId};
use crate::run::stop_sequence::StopSequence;
use crate::settings::value::Restart;
use crate::supervisor::machine::backoff::Verdict;
use crate::supervisor::machine::generation::{Action, Cause, Generation, Main, Note, Outcome, Stage};

impl State {
    pub(super) fn spawn_failed(
        &mut self,
        id: GenerationId,
        outcome: Option<Outcome>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(plan) = self.find(id).filter(|found| found.main == Main::Spawning).map(|found| found.plan) else {
            return;
        };
        self.generations.retain(|generation| generation.id != id);
        if let Some(outcome) = outcome {
            return self.boot_failed(id, plan, outcome, None, now, actions);
        }
        if self.reload.as_ref().is_some_and(|reload| reload.is_for(id)) {
            self.reload_failed("the system could not start another process", actions);
            if self.is_intact() {
                return;
            }
        }
        let plan = self.fallback(plan);
        if matches!(self.phase, Phase::Running) {
            let policy = self.plan(Some(plan)).policy.clone();
            let wait = self.restarts.refused(&policy);
            actions.push(Action::Log(Note::NoRoom { wait }));
            self.pending = Some(Pending { at: now + wait, plan });
        }
    }

    pub(super) fn exited(
        &mut self,
        pid: Pid,
        outcome: Outcome,
        survivors: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(generation) = self.generations.iter_mut().find(|found| found.main == Main::Alive(pid)) else {
            return;
        };
        let (id, plan, was_starting) = (generation.id, generation.plan, generation.is_starting());
        let why = generation.why.clone();
        let ready_for = match generation.stage {
            Stage::Serving { since } => Some(now.duration_since(since)),
            _ => None,
        };
        generation.main = Main::Gone;
        let mut leaving = false;
        match &mut generation.stage {
            Stage::Leaving(leave) => {
                leave.main_gone(now);
                leaving = true;
            }
            Stage::Starting { .. } => {
                let mut leave = StopSequence::new(now, now + DISCARD_WITHIN);
                leave.main_gone(now);
                generation.stage = Stage::Leaving(leave);
            }
            Stage::Serving { .. } => {}
        }
        if !survivors {
            self.generations.retain(|generation| generation.id != id);
            if leaving {
                actions.push(Action::Log(Note::Gone { generation: id }));
            }
        }
        if let Phase::Ending { leave, last, .. } = &mut self.phase {
            if !leaving || last.is_none() {
                *last = Some(outcome);
            }
            if !self.generations.iter().any(|generation| matches!(generation.main, Main::Alive(_))) {
                leave.main_gone(now);
            }
            return;
        }
        if leaving {
            return;
        }
        actions.push(Action::Log(Note::MainExited {
            generation: id,
            outcome,
            ready_for,
            survivors,
            why: why.clone(),
        }));
        if let Phase::Delaying { deadline, .. } = self.phase {
            if self.serving().is_none() {
                self.end(now, deadline, None, actions);
                if let Phase::Ending { last, .. } = &mut self.phase {
                    *last = Some(outcome);
                }
            }
        } else if was_starting {
            self.boot_failed(id, plan, outcome, why.as_deref(), now, actions);
        } else if !self.lost_while_stepping(id, outcome, now, actions) {
            self.failed(plan, outcome, ready_for, now, actions);
        }
    }

    /// A generation failed before it was ready.
    pub(super) fn boot_failed(
        &mut self,
        id: GenerationId,
        plan: PlanId,
        outcome: Outcome,
        why: Option<&str>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if self.reload.as_ref().is_some_and(|reload| reload.is_for(id)) {
            let how = outcome.because(why);
            self.reload_failed(&format!("the new generation failed to start: {how}"), actions);
            if self.is_intact() {
                return;
            }
        } else if self.is_small() {
            return self.stays_small(outcome, now, actions);
        }
        self.failed(self.fallback(plan), outcome, None, now, actions);
    }

    /// Whether something serves that has all its parts.
    pub(super) fn is_intact(&self) -> bool {
        self.serving().is_some_and(|generation| !generation.is_orphaned())
    }

    /// The plan to go back to when `plan` failed while what served before fell apart: what is known to work.
    pub(super) fn fallback(&self, plan: PlanId) -> PlanId {
        let proven = || self.plans.iter().rev().find(|plan| plan.proven).map(|plan| plan.id);
        self.serving().map(|generation| generation.plan).or_else(proven).unwrap_or(plan)
    }

    /// The server failed, and it is decided what follows.
    pub(super) fn failed(
        &mut self,
        plan: PlanId,
        outcome: Outcome,
        ready_for: Option<Duration>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let facts = self.plan(Some(plan)).clone();
        let policy = &facts.policy;
        let clean = outcome == Outcome::Exited(0) && ready_for.is_some();
        let cannot_boot = ready_for.is_none()
            && match outcome {
                Outcome::Exited(status) => status == 0 || facts.boot_statuses.contains(&status),
                Outcome::Signaled(_) => false,
                Outcome::NotReady | Outcome::NotStarted(_) => true,
            };
        if policy.restart == Restart::No || (clean && policy.restart == Restart::OnFailure) {
            return self.give_up(outcome, ready_for, Cause::Ended, now, actions);
        }
        if cannot_boot && !facts.proven && policy.restart != Restart::Always {
            return self.give_up(outcome, ready_for, Cause::BootFailed, now, actions);
        }
        let verdict = self.restarts.failure(now, ready_for, policy);
        if self.generations.iter().any(Generation::is_starting) {
            // A replacement is on its way already.
            return;
        }
        match verdict {
            Verdict::GiveUp => self.give_up(outcome, ready_for, Cause::TooManyFailures, now, actions),
            Verdict::Respawn(wait) => {
                let restarts_left = self.restarts.left(now, policy);
                actions.push(Action::Log(Note::Respawning { wait, restarts_left }));
                self.pending = Some(Pending { at: now + wait, plan });
            }
        }
    }

    pub(super) fn give_up(
        &mut self,
        outcome: Outcome,
        ready_for: Option<Duration>,
        cause: Cause,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        // A server that ends at once without an error has not done what it was started for.
        let status = match outcome {
            Outcome::Exited(0) if ready_for.is_none() => Outcome::NotReady.status(),
            outcome => outcome.status(),
        };
        let failures = self.restarts.total().max(1);
        actions.push(Action::Log(Note::GivingUp { status, cause, failures }));
        self.refuse_reloads("the launcher gives up", actions);
        let deadline = now + self.policy().stop_timeout;
        self.end(now, deadline, Some(status), actions);
    }

    pub(super) fn startup_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let late = |generation: &&Generation| matches!(generation.stage, Stage::Starting { deadline } if deadline <= now && generation.main != Main::Spawning);
        let Some(Generation { id, plan, why, .. }) = self.generations.iter().find(late).cloned() else { return };
        let timeout = self.plan(Some(plan)).policy.startup_timeout;
        actions.push(Action::Log(Note::NotReadyInTime { generation: id, timeout }));
        self.discard_incoming(now, actions);
        self.boot_failed(id, plan, Outcome::NotReady, why.as_deref(), now, actions);
    }
}
