//! One generation takes over from another, which is taken back if the new one fails while that is possible.

use std::time::Duration;

use super::action::Action;
use super::draining::LINGER;
use super::event::Presence;
use super::generation::Stage;
use super::note::Note;
use super::outcome::Outcome;
use super::resize::Resize;
use super::turn::Turn;
use super::{Phase, State};
use crate::ids::{GenerationId, PlanId};

/// A generation that has taken over from another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handover {
    pub(super) old: GenerationId,
    pub(super) new: GenerationId,
    pub(super) is_reload: bool,
    /// The workers that the old generation had, and how many of them it had given up before.
    pub(super) taken: Taken,
}

/// The workers that one generation has given up to make room for another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    pub(super) left: u32,
    pub(super) taken: u32,
}

/// A generation that served and has failed.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) id: GenerationId,
    pub(super) plan: PlanId,
    pub(super) outcome: Outcome,
    pub(super) ready_for: Option<Duration>,
    pub(super) why: Option<String>,
}

impl State {
    /// New clients go to this generation, and the other one stops.
    pub(super) fn take_over(&mut self, id: GenerationId, taken: Taken, turn: &mut Turn) {
        turn.push(Action::Steer { generation: id });
        let is_reload = self.reload.as_ref().is_some_and(|reload| reload.is_for(id));
        let old: Vec<GenerationId> =
            self.generations.iter().filter(|g| g.is_serving() && g.id != id).map(|g| g.id).collect();
        for old in old {
            turn.log(Note::Draining { generation: old, replaced_by: id });
            self.linger(old, turn);
            self.handover = Some(Handover { old, new: id, is_reload, taken });
        }
        self.begin_proving(id, turn);
    }

    /// Records whether a generation has workers that answer.
    pub(super) fn presence(&mut self, id: GenerationId, presence: Presence, turn: &mut Turn) {
        let running = matches!(self.phase, Phase::Running);
        if presence == Presence::Lost && self.find(id).is_some_and(|found| found.is_starting()) {
            return self.keeps_dying(id, turn);
        }
        let Some(generation) = self.find(id).filter(|found| running && found.is_serving()) else { return };
        let answered = generation.answers;
        generation.answers = presence == Presence::Answering;
        match presence {
            Presence::Answering if !answered => turn.log(Note::Answering { generation: id }),
            Presence::Silent if answered => turn.log(Note::Silent { generation: id }),
            Presence::Answering | Presence::Silent => {}
            Presence::Lost => self.lost_workers(id, turn),
        }
    }

    /// A generation has no workers and gets none: it has failed, although its main process may still run.
    fn lost_workers(&mut self, id: GenerationId, turn: &mut Turn) {
        let Some(generation) = self.find(id) else { return };
        let Stage::Serving { since } = generation.stage else { return };
        let (plan, why) = (generation.plan, generation.why.clone());
        let ready_for = Some(turn.now.duration_since(since));
        turn.log(Note::NoWorkers { generation: id });
        self.lost(&Loss { id, plan, outcome: Outcome::NoWorkers, ready_for, why }, turn);
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let deadline = turn.now + self.plan(Some(plan)).policy.stop_timeout;
        let staying =
            self.generations.iter().find(|other| other.is_serving() && other.id != id).map(|other| other.id);
        if let Some(generation) = self.find(id) {
            generation.leave(deadline, staying, turn);
        }
    }

    /// A generation that served has failed.
    pub(super) fn lost(&mut self, loss: &Loss, turn: &mut Turn) {
        if self.lost_while_stepping(loss.id, loss.outcome, turn) {
            return;
        }
        let how = loss.outcome.because(loss.why.as_deref());
        let why = format!("the new generation failed after it was ready: {how}");
        let handover = self.handover.filter(|handover| handover.new == loss.id);
        let old = handover.and_then(|handover| Some((handover, self.find(handover.old)?.plan)));
        let is_proving = self.reload.as_ref().is_some_and(|reload| reload.is_for(loss.id));
        let Some((handover, old_plan)) = old else {
            if is_proving {
                self.reload_failed(&why, turn);
            }
            return self.failed(loss.plan, loss.outcome, loss.ready_for, turn);
        };
        if handover.is_reload && old_plan != loss.plan {
            // It was ready once, but its plan is not one to go back to.
            self.plans.iter_mut().filter(|facts| facts.id == loss.plan).for_each(|facts| facts.proven = false);
        }
        let is_back = self.take_back(handover, turn);
        if is_proving {
            self.reload_failed(&why, turn);
        } else if handover.is_reload {
            turn.log(Note::ReloadFailed { why, serves: self.serving().is_some() });
        }
        let plan = if handover.is_reload || is_back { old_plan } else { loss.plan };
        if is_back && self.is_intact() {
            if !handover.is_reload {
                self.stays_small(loss.outcome, turn);
            }
            return;
        }
        self.failed(plan, loss.outcome, loss.ready_for, turn);
    }

    /// The generation that was replaced serves again, if it has not been asked to stop yet.
    fn take_back(&mut self, Handover { old, new, taken, .. }: Handover, turn: &mut Turn) -> bool {
        let Some(generation) = self.find(old) else { return false };
        let Stage::Lingering { since, .. } = generation.stage else { return false };
        generation.stage = Stage::Serving { since };
        let Taken { left, taken } = taken;
        let patience = self.facts_of(old).map_or(LINGER, |facts| facts.policy.startup_timeout);
        self.resize = (taken > 0).then(|| Resize::new(old, left, left + taken, patience));
        self.pending = None;
        self.handover = None;
        self.linger(new, turn);
        turn.extend([Action::Keep { generation: old }, Action::Steer { generation: old }]);
        turn.log(Note::TakenBack { generation: old, failed: new });
        true
    }
}
