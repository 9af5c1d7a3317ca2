//! Replacing a generation if the memory has no room for two.
//!
//! Before a generation is started next to one that serves, the memory is measured: on every level of the cgroup path
//! that has a limit, what is free (including unused page cache) is compared with what the old generation uses, and with
//! what a generation of one worker would use ([`memory_budget`](super::memory_budget)). If a whole generation does not
//! fit, the new one begins with one worker, and nothing is taken from the old one before that worker is ready. If not
//! even that fits, a reload is refused, because otherwise the kernel would kill something. Since the estimate may be
//! wrong (a release may be larger than its predecessor), the OOM killer prefers every new generation until it is ready.
//!
//! - If the server can change its number of workers and both generations share a port: worker by worker ([`StepwiseReplacement`]).
//! - Otherwise the new generation takes over with its one worker. When the old one has ended, it gets the others: by
//!   TTIN if the server supports that ([`Resize`]), else by one more handover, to a full generation of the same plan. If
//!   that fails it is retried forever, because the service is available.
//!
//! The second way would be simpler, but a single worker would have to carry the whole load while the old generation
//! finishes its last requests and the new one boots, half a minute or more for a large application.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::action::Action;
use super::draining::LINGER;
use super::generation::{Generation, Main, Startup};
use super::handover::Taken;
use super::memory_budget::Room;
use super::note::Note;
use super::outcome::Outcome;
use super::plan_facts::PlanFacts;
use super::reload::{Reload, ReloadStage, Takeover};
use super::resize::{Change, Resize};
use super::turn::Turn;
use super::worker_moves::{Headcount, Move, Pace, StepwiseReplacement};
use super::{Pending, Phase, State};
use crate::ids::GenerationId;

impl State {
    /// The generations whose workers are to be counted at intervals.
    #[must_use]
    pub fn counted(&self) -> Vec<GenerationId> {
        if !matches!(self.phase, Phase::Running) {
            return Vec::new();
        }
        let steps = self.steps().map(|steps| [steps.old, steps.new]);
        steps.into_iter().flatten().chain(self.resize.as_ref().map(|resize| resize.generation)).collect()
    }

    fn steps(&self) -> Option<&StepwiseReplacement> {
        match &self.reload {
            Some(Reload { stage: ReloadStage::Stepping(steps), .. }) => Some(steps),
            _ => None,
        }
    }

    fn steps_mut(&mut self) -> Option<&mut StepwiseReplacement> {
        match &mut self.reload {
            Some(Reload { stage: ReloadStage::Stepping(steps), .. }) => Some(steps),
            _ => None,
        }
    }

    /// When a step is due.
    pub(super) fn next_step(&self) -> Option<Instant> {
        let resize = self.resize.as_ref().filter(|_| self.generations.len() == 1).and_then(Resize::next);
        self.steps().and_then(StepwiseReplacement::next).into_iter().chain(resize).min()
    }

    /// Whether the serving generation is complete except for the workers that it is getting.
    pub(super) fn is_small(&self) -> bool {
        self.is_intact() && self.serving().is_some_and(|serving| serving.startup == Startup::OneWorker)
    }

    pub(super) fn facts_of(&self, generation: GenerationId) -> Option<&PlanFacts> {
        let generation = self.generations.iter().find(|found| found.id == generation)?;
        Some(self.plan(Some(generation.plan)))
    }

    /// The memory was measured: the start that waited for this continues.
    pub(super) fn measured(&mut self, room: Room, workers: Option<u32>, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) || !std::mem::take(&mut self.measuring) {
            return;
        }
        let Some(start) = self.due_start(turn.now) else { return };
        let Some(old) = self.serving() else { return self.start(start, Startup::Full, Takeover::AtOnce, turn) };
        let shortage = match room {
            Room::Whole => return self.start(start, Startup::Full, Takeover::AtOnce, turn),
            Room::Nothing(shortage) if start.is_reload && self.is_intact() => {
                return self.reload_failed(&shortage.refusal(), turn);
            }
            Room::OneWorker(shortage) | Room::Nothing(shortage) => shortage,
        };
        let new = self.plan(Some(start.plan));
        let can_step = start.is_reload && self.is_intact() && new.shareable && self.plan(Some(old.plan)).shareable;
        let takeover = match workers {
            Some(workers @ 1..) if can_step => Takeover::Stepwise { workers },
            _ => Takeover::AtOnce,
        };
        let startup = if new.workers > 1 { Startup::OneWorker } else { Startup::Full };
        turn.log(Note::ShortOfMemory { shortage, takeover });
        self.start(start, startup, takeover, turn);
    }

    /// A generation is ready, and replaces the other one step by step if it was started for that.
    pub(super) fn begin_steps(&mut self, id: GenerationId, turn: &mut Turn) -> bool {
        let Some(Reload { stage: ReloadStage::Incoming { generation, takeover }, .. }) = self.reload else {
            return false;
        };
        let Takeover::Stepwise { workers: had } = takeover else { return false };
        let intact = |other: &&Generation| other.id != id && other.is_serving() && !other.is_orphaned();
        let Some(old) = self.generations.iter().find(intact).filter(|_| generation == id) else { return false };
        let Some(new) = self.facts_of(id) else { return false };
        let drain = self.plan(Some(old.plan)).policy.stop_timeout;
        let pace = Pace { linger: LINGER, drain, boot: new.policy.startup_timeout };
        let (steps, moves) = StepwiseReplacement::start((old.id, had), (id, 1), new.workers, pace, turn.now);
        if let Some(reload) = &mut self.reload {
            reload.stage = ReloadStage::Stepping(steps);
        }
        self.carry_on(moves, turn);
        true
    }

    /// Records the number of workers of a generation.
    pub(super) fn seen(&mut self, generation: GenerationId, workers: Headcount, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        if let Some(steps) = self.steps_mut() {
            let moves = steps.seen(generation, workers, turn.now);
            self.carry_on(moves, turn);
        }
        if let Some(resize) = self.resize.as_mut().filter(|resize| resize.generation == generation) {
            resize.seen(workers);
        }
    }

    /// What is due because time has passed.
    pub(super) fn step_deadlines(&mut self, turn: &mut Turn) {
        if let Some(steps) = self.steps_mut() {
            let moves = steps.due(turn.now);
            self.carry_on(moves, turn);
        }
        let alone = self.generations.len() == 1;
        let Some(resize) = &mut self.resize else { return };
        let (id, target) = (resize.generation, resize.target());
        let serving = |found: &&mut Generation| found.id == id && found.is_serving() && found.main != Main::Gone;
        let Some(generation) = self.generations.iter_mut().find(serving) else {
            self.resize = None;
            return;
        };
        if !alone {
            return;
        }
        match resize.due(turn.now) {
            Some(Change::Grow) => turn.signal(id, Signal::SIGTTIN),
            Some(Change::Shrink) => self.dismiss_oldest(id, turn),
            None if resize.is_done() => {
                generation.startup = Startup::Full;
                self.resize = None;
                turn.log(Note::Complete { generation: id, workers: target });
            }
            None => {}
        }
    }

    /// Gives a generation with one worker the others.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let handing_over =
            self.reload.as_ref().is_some_and(|reload| matches!(reload.stage, ReloadStage::Stepping(_)))
                || self.generations.iter().any(Generation::is_starting);
        if handing_over || !self.is_small() {
            return;
        }
        let Some((id, plan)) = self.serving().map(|serving| (serving.id, serving.plan)) else { return };
        let facts = self.plan(Some(plan));
        if facts.resizable {
            let (workers, patience) = (facts.workers, facts.policy.startup_timeout);
            self.resize.get_or_insert_with(|| Resize::new(id, 1, workers, patience));
        } else {
            self.pending.get_or_insert(Pending::new(now, plan));
        }
    }

    /// The generation that was to follow the one with one worker failed: that one continues to serve.
    pub(super) fn stays_small(&mut self, outcome: Outcome, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let Some(plan) = self.serving().map(|serving| serving.plan) else { return };
        let policy = self.plan(Some(plan)).policy.clone();
        let wait = self.restarts.refused(&policy);
        turn.log(Note::StaysSmall { why: outcome.to_string(), wait });
        self.pending = Some(Pending::new(turn.now + wait, plan));
    }

    /// TTIN and TTOU from outside while workers are moved: they change the target.
    pub(super) fn adjust_steps(&mut self, workers: i32) -> bool {
        if let Some(steps) = self.steps_mut() {
            steps.adjust(workers);
            return true;
        }
        if let Some(resize) = &mut self.resize {
            resize.adjust(workers);
            return true;
        }
        if let Some(Reload { stage: ReloadStage::Incoming { takeover, .. }, .. }) = &mut self.reload
            && let Takeover::Stepwise { workers: had } = takeover
        {
            *had = had.saturating_add_signed(workers).max(1);
        }
        false
    }

    /// A main process that served has ended. If it was one of two, the other continues.
    pub(super) fn lost_while_stepping(&mut self, id: GenerationId, outcome: Outcome, turn: &mut Turn) -> bool {
        let Some((old, new)) = self.steps().map(|steps| (steps.old, steps.new)) else { return false };
        if id == new {
            self.abort_steps(&format!("the new generation failed: {outcome}"), turn);
        } else if id == old {
            self.settle(turn);
        }
        true
    }

    fn carry_on(&mut self, moves: Vec<Move>, turn: &mut Turn) {
        for step in moves {
            let Some(steps) = self.steps() else { return };
            let (old, new) = (steps.old, steps.new);
            match step {
                Move::SteerToNew => {
                    let within = self.facts_of(old).map_or(LINGER, |facts| facts.policy.stop_timeout);
                    let retire = Action::RetireOldest { generation: old, within };
                    turn.extend([Action::Steer { generation: new }, retire]);
                }
                Move::Take => turn.signal(old, Signal::SIGTTOU),
                Move::Share { old: old_workers, new: new_workers } => {
                    turn.push(Action::Share { parts: [(old, old_workers), (new, new_workers)] });
                }
                Move::Hurry => turn.push(Action::KillDraining { generation: old }),
                Move::Give => {
                    let (old_workers, new_workers) = steps.workers();
                    turn.log(Note::Step { old, old_workers, new, new_workers });
                    turn.signal(new, Signal::SIGTTIN);
                }
                Move::Settle => self.settle(turn),
                Move::Abort => {
                    let why = "a worker of the new generation was not ready in time";
                    self.abort_steps(why, turn);
                }
            }
        }
    }

    /// The new generation serves alone from now on, and gets the workers that it lacks when the old one has ended.
    fn settle(&mut self, turn: &mut Turn) {
        let Some(steps) = self.steps() else { return };
        let ((left, workers), taken) = (steps.workers(), steps.taken());
        let (new, goal) = (steps.new, steps.goal());
        let patience = self.facts_of(new).map_or(LINGER, |facts| facts.policy.startup_timeout);
        self.resize = Some(Resize::new(new, workers, goal, patience));
        let taken = Taken { left, taken };
        self.take_over(new, taken, turn);
    }

    /// The old generation serves alone as before, and gets its workers back when the new one has ended.
    fn abort_steps(&mut self, why: &str, turn: &mut Turn) {
        let Some(steps) = self.steps() else { return };
        let (old, new, left, taken) = (steps.old, steps.new, steps.workers().0, steps.taken());
        let patience = self.facts_of(old).map_or(LINGER, |facts| facts.policy.startup_timeout);
        // It was ready once, but its plan is not one to go back to.
        let kept = self.facts_of(old).map(|facts| facts.id);
        self.plans.iter_mut().filter(|facts| Some(facts.id) > kept).for_each(|facts| facts.proven = false);
        self.resize = (taken > 0).then(|| Resize::new(old, left, left + taken, patience));
        turn.extend([Action::Keep { generation: old }, Action::Steer { generation: old }]);
        self.linger(new, turn);
        turn.log(Note::StepsFailed { generation: new, given_back: taken });
        self.reload_failed(why, turn);
    }
}
