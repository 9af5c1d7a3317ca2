//! Starting a generation: when it is due, with what it is started, and that it is ready.

use std::time::Instant;

use nix::unistd::Pid;

use super::action::Action;
use super::generation::{Generation, Main, Stage, Startup};
use super::handover::Taken;
use super::note::Note;
use super::reload::{Reload, ReloadStage, Takeover};
use super::turn::Turn;
use super::{Pending, Phase, State};
use crate::ids::{GenerationId, PlanId};

/// A generation to be started now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) plan: PlanId,
    pub(super) is_reload: bool,
}

impl State {
    /// Whether one more generation may be started: there is at most one, and it has proved itself.
    pub(super) fn has_place(&self) -> bool {
        self.generations.len() < 2 && !self.generations.iter().any(Generation::is_starting)
    }

    /// Starts what is due and possible.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.catch_up(turn.now);
        self.step_deadlines(turn);
        self.begin_queued_reload(turn);
        if self.measuring {
            return;
        }
        let Some(start) = self.due_start(turn.now) else { return };
        match self.serving() {
            // A generation that follows one with a single worker takes the place of the old one, which has ended.
            Some(serving) if start.is_reload || !self.is_small() => {
                turn.push(Action::Measure { generation: serving.id });
                self.measuring = true;
            }
            _ => self.start(start, Startup::Full, Takeover::AtOnce, turn),
        }
    }

    /// The start that is due and possible.
    pub(super) fn due_start(&self, now: Instant) -> Option<Start> {
        if !self.has_place() || self.resize.is_some() {
            return None;
        }
        let planned = match &self.reload {
            Some(Reload { stage: ReloadStage::Planned(plan), .. }) => Some(Start { plan: *plan, is_reload: true }),
            _ => None,
        };
        let pending = self.pending.filter(|pending| self.due(pending) <= now);
        planned.or_else(|| pending.map(|pending| Start { plan: pending.plan, is_reload: false }))
    }

    /// When the pending start is due.
    pub(super) fn due(&self, pending: &Pending) -> Instant {
        let has_survivors = self.serving().is_some_and(Generation::is_orphaned);
        pending.survivors_until.filter(|_| has_survivors).map_or(pending.at, |until| until.max(pending.at))
    }

    /// Starts a generation. `takeover` only matters for a reload.
    pub(super) fn start(
        &mut self,
        Start { plan, is_reload }: Start,
        startup: Startup,
        takeover: Takeover,
        turn: &mut Turn,
    ) {
        self.pending = None;
        let generation = self.next_id;
        self.next_id = generation.next();
        if let Some(reload) = self.reload.as_mut().filter(|_| is_reload) {
            reload.stage = ReloadStage::Incoming { generation, takeover };
        }
        let deadline = turn.now + self.plan(Some(plan)).policy.startup_timeout;
        self.generations.push(Generation {
            id: generation,
            plan,
            startup,
            main: Main::Spawning,
            stage: Stage::Starting { deadline },
            answers: true,
            why: None,
        });
        self.forget_plans();
        // A release that takes more memory than expected must not bring the running one down.
        let on_trial = self.serving().is_some();
        turn.push(Action::Spawn { generation, plan, startup, on_trial });
    }

    /// Keeps the plans that are in use, and the last one that is known to work.
    fn forget_plans(&mut self) {
        let proven = self.plans.iter().rev().find(|plan| plan.proven).map(|plan| plan.id);
        let newest = self.plans.last().map(|plan| plan.id);
        let generations = &self.generations;
        self.plans.retain(|plan| {
            Some(plan.id) == proven || Some(plan.id) == newest || generations.iter().any(|used| used.plan == plan.id)
        });
    }

    /// The plans that may still be needed.
    pub fn plans(&self) -> impl Iterator<Item = PlanId> {
        self.plans.iter().map(|plan| plan.id)
    }

    pub(super) fn spawned(&mut self, id: GenerationId, pid: Pid, turn: &mut Turn) {
        let ending = !matches!(self.phase, Phase::Running);
        let staying = self.serving().filter(|_| !self.is_ending()).map(|serving| serving.id);
        let Some(generation) = self.find(id).filter(|generation| generation.main == Main::Spawning) else { return };
        generation.main = Main::Alive(pid);
        let plan = generation.plan;
        if ending {
            turn.ask_to_leave(id, staying);
        } else if generation.is_starting() {
            let deadline = turn.now + self.plan(Some(plan)).policy.startup_timeout;
            if let Some(generation) = self.find(id) {
                generation.stage = Stage::Starting { deadline };
            }
        }
    }

    pub(super) fn ready(&mut self, id: GenerationId, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let Some(generation) = self.find(id).filter(|found| found.is_starting() && found.main != Main::Gone) else {
            return;
        };
        generation.stage = Stage::Serving { since: turn.now };
        let plan = generation.plan;
        for facts in self.plans.iter_mut().filter(|facts| facts.id == plan) {
            facts.proven = true;
        }
        self.restarts.ready();
        self.pending = None;
        turn.push(Action::EndTrial { generation: id });
        turn.log(Note::Ready { generation: id });
        if self.begin_steps(id, turn) {
            return;
        }
        self.take_over(id, Taken::default(), turn);
    }
}
