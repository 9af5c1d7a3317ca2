//! What follows when a generation fails.

use std::time::Duration;

use nix::unistd::Pid;

use super::backoff::Verdict;
use super::draining::DISCARD_WITHIN;
use super::generation::{Generation, Main, Stage};
use super::handover::Loss;
use super::note::{Cause, Note};
use super::outcome::{Outcome, SpawnFailure};
use super::turn::Turn;
use super::{Pending, Phase, State};
use crate::ids::{GenerationId, PlanId};
use crate::run::stop_sequence::StopSequence;
use crate::settings::value::Restart;

/// Workers that outlive their main process by less than this were ended together with it. Then the next generation
/// serves the clients that wait in their listening socket; if it were started while they still run, it would not get
/// that socket.
const SURVIVORS_PROVE: Duration = Duration::from_millis(50);

impl State {
    pub(super) fn spawn_failed(&mut self, id: GenerationId, failure: SpawnFailure, why: &str, turn: &mut Turn) {
        let is_running = matches!(self.phase, Phase::Running);
        let Some(found) = self.find(id).filter(|found| found.may_fail_to_start()) else { return };
        let plan = found.plan;
        if let Main::Alive(pid) = found.main
            && !(is_running && found.is_starting())
        {
            // It is no longer needed, so this is a normal end.
            return self.exited(pid, Outcome::Exited(0), false, turn);
        }
        self.generations.retain(|generation| generation.id != id);
        match failure {
            SpawnFailure::Program(status) => {
                return self.boot_failed(id, plan, Outcome::NotStarted(status), Some(why), turn);
            }
            SpawnFailure::Refused => return self.boot_failed(id, plan, Outcome::Refused, Some(why), turn),
            SpawnFailure::NoRoom => {}
        }
        if self.reload.as_ref().is_some_and(|reload| reload.is_for(id)) {
            self.reload_failed(&format!("the system cannot start another process: {why}"), turn);
            if self.is_intact() {
                return;
            }
        }
        let plan = self.fallback(plan);
        if matches!(self.phase, Phase::Running) {
            let policy = self.plan(Some(plan)).policy.clone();
            let wait = self.restarts.refused(&policy);
            turn.log(Note::NoRoom { wait });
            self.pending = Some(Pending::new(turn.now + wait, plan));
        }
    }

    pub(super) fn exited(&mut self, pid: Pid, outcome: Outcome, survivors: bool, turn: &mut Turn) {
        let Some(generation) = self.generations.iter_mut().find(|found| found.main == Main::Alive(pid)) else {
            return;
        };
        let (id, plan, was_starting) = (generation.id, generation.plan, generation.is_starting());
        let why = generation.why.clone();
        let ready_for = match generation.stage {
            Stage::Serving { since } => Some(turn.now.duration_since(since)),
            _ => None,
        };
        generation.main = Main::Gone;
        let mut leaving = false;
        match &mut generation.stage {
            Stage::Leaving(leave) => {
                leave.main_ended(turn.now);
                leaving = true;
            }
            Stage::Starting { .. } => {
                let mut leave = StopSequence::new(turn.now, turn.now + DISCARD_WITHIN);
                leave.main_ended(turn.now);
                generation.stage = Stage::Leaving(leave);
            }
            Stage::Lingering { .. } => leaving = true,
            Stage::Serving { .. } => {}
        }
        if !survivors {
            self.generations.retain(|generation| generation.id != id);
            if leaving {
                turn.log(Note::Gone { generation: id });
            }
        }
        if let Phase::Ending { leave, last, .. } = &mut self.phase {
            if !leaving || last.is_none() {
                *last = Some(outcome);
            }
            let others = || self.generations.iter().filter(|generation| generation.id != id);
            if others().count() == 0 {
                leave.main_ended(turn.now);
            } else if !others().any(|generation| matches!(generation.main, Main::Alive(_))) {
                leave.ask_rest(turn.now);
            }
            return;
        }
        if leaving {
            return;
        }
        turn.log(Note::MainExited { generation: id, outcome, ready_for, survivors, why: why.clone() });
        if let Phase::Delaying { deadline, last, .. } = &mut self.phase {
            *last = Some(outcome);
            let deadline = *deadline;
            if self.serving().is_none() {
                self.end(deadline, None, turn);
            }
        } else if was_starting {
            self.boot_failed(id, plan, outcome, why.as_deref(), turn);
        } else {
            self.lost(&Loss { id, plan, outcome, ready_for, why }, turn);
        }
    }

    /// A generation failed before it was ready.
    pub(super) fn boot_failed(
        &mut self,
        id: GenerationId,
        plan: PlanId,
        outcome: Outcome,
        why: Option<&str>,
        turn: &mut Turn,
    ) {
        if self.reload.as_ref().is_some_and(|reload| reload.is_for(id)) {
            let how = outcome.because(why);
            self.reload_failed(&format!("the new generation failed to start: {how}"), turn);
            if self.is_intact() {
                return;
            }
        } else if self.is_small() {
            return self.stays_small(outcome, turn);
        }
        self.failed(self.fallback(plan), outcome, None, turn);
    }

    /// Whether a generation serves and still has its main process.
    pub(super) fn is_intact(&self) -> bool {
        self.serving().is_some_and(|generation| !generation.is_orphaned())
    }

    /// The plan to go back to if `plan` failed and the generation that served before is not intact: one that works.
    pub(super) fn fallback(&self, plan: PlanId) -> PlanId {
        let proven = || self.plans.iter().rev().find(|plan| plan.proven).map(|plan| plan.id);
        let serving = self.serving().map(|generation| generation.plan);
        serving.filter(|plan| self.plan(Some(*plan)).proven).or_else(proven).unwrap_or(plan)
    }

    /// The server failed: decides what follows.
    pub(super) fn failed(&mut self, plan: PlanId, outcome: Outcome, ready_for: Option<Duration>, turn: &mut Turn) {
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
                Outcome::NotReady
                | Outcome::NotStarted(_)
                | Outcome::Refused
                | Outcome::NoWorkers
                | Outcome::KeepsDying => true,
            };
        if policy.restart == Restart::No || (clean && policy.restart == Restart::OnFailure) {
            return self.give_up(outcome, ready_for, Cause::Ended, turn);
        }
        // The serving generation is not stopped because its successor fails.
        let serves = self.serving().is_some_and(|serving| serving.answers);
        if cannot_boot && !facts.proven && policy.restart != Restart::Always && !serves {
            return self.give_up(outcome, ready_for, Cause::BootFailed, turn);
        }
        let verdict = self.restarts.failure(turn.now, ready_for, policy);
        if self.generations.iter().any(Generation::is_starting) {
            // A replacement is on its way already.
            return;
        }
        match verdict {
            Verdict::GiveUp if serves => {
                let wait = self.restarts.refused(policy);
                turn.log(Note::SurvivorsServe { why: outcome.to_string(), wait });
                self.pending = Some(Pending::new(turn.now + wait, plan));
            }
            Verdict::GiveUp => self.give_up(outcome, ready_for, Cause::TooManyFailures, turn),
            Verdict::Respawn(wait) => {
                let restarts_left = self.restarts.left(turn.now, policy);
                turn.log(Note::Respawning { wait, restarts_left });
                let survivors_until = Some(turn.now + SURVIVORS_PROVE);
                self.pending = Some(Pending { survivors_until, ..Pending::new(turn.now + wait, plan) });
            }
        }
    }

    pub(super) fn give_up(&mut self, outcome: Outcome, ready_for: Option<Duration>, cause: Cause, turn: &mut Turn) {
        // A server that ends at once without an error is not doing its job.
        let status = match outcome {
            Outcome::Exited(0) if ready_for.is_none() => Outcome::NotReady.status(),
            outcome => outcome.status(),
        };
        let failures = self.restarts.total().max(1);
        turn.log(Note::GivingUp { status, cause, failures });
        self.refuse_reloads("the launcher is giving up", turn);
        let deadline = turn.now + self.policy().stop_timeout;
        self.end(deadline, Some(status), turn);
    }

    /// The workers of a starting generation die again and again before they are ready.
    pub(super) fn keeps_dying(&mut self, id: GenerationId, turn: &mut Turn) {
        let Some(Generation { plan, why, main: Main::Alive(_), .. }) = self.find(id).cloned() else { return };
        turn.log(Note::KeepsDying { generation: id });
        self.discard_incoming(turn);
        self.boot_failed(id, plan, Outcome::KeepsDying, why.as_deref(), turn);
    }

    pub(super) fn startup_deadlines(&mut self, turn: &mut Turn) {
        let late = |generation: &&Generation| matches!(generation.stage, Stage::Starting { deadline } if deadline <= turn.now && generation.main != Main::Spawning);
        let Some(Generation { id, plan, why, .. }) = self.generations.iter().find(late).cloned() else { return };
        let timeout = self.plan(Some(plan)).policy.startup_timeout;
        turn.log(Note::NotReadyInTime { generation: id, timeout });
        self.discard_incoming(turn);
        self.boot_failed(id, plan, Outcome::NotReady, why.as_deref(), turn);
    }
}
