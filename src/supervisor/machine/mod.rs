//! The supervisor's state machine. Pure: events and the time go in, actions come out.
//!
//! A generation is one server, its main process and all its descendants, started from one plan. Every transition is
//! "start a generation, wait until it is ready, retire the old one": the first start, a reload, and the replacement of a
//! main process that died while its workers keep serving. There are at most two generations: one that serves, and one
//! that comes or goes. Property tests run through years of its life in a second.
//!
//! A generation retires by a timetable ([`stop_sequence`](crate::run::stop_sequence)): it lingers while new clients are
//! already sent to its successor, then its main process gets TERM, then what is left gets TERM, then KILL, all within the
//! stop budget. The end of the launcher is the same timetable for everything at once.
//!
//! If the memory does not suffice for two generations, the new one begins with one worker (`stepwise`).

pub mod action;
pub mod backoff;
pub mod event;
mod failure;
pub mod generation;
mod handover;
pub mod leaving;
pub mod memory_budget;
pub mod note;
pub mod outcome;
pub mod plan_facts;
mod reload;
pub mod replacement;
pub mod resize;
mod shutdown;
mod stepwise;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::run::stop_sequence::{StopSequence, StopStep};
use action::Action;
use backoff::Restarts;
use event::Event;
use generation::{Generation, Main, Stage, Startup};
use handover::{Handover, Taken};
use leaving::Parting;
use note::Note;
use outcome::Outcome;
use plan_facts::{Choice, PlanFacts};
use reload::{PendingReload, Reload, ReloadStage};
use resize::Resize;
use turn::Turn;

/// How long a generation that never got ready has to go; it has no requests to finish.
const DISCARD_WITHIN: Duration = Duration::from_secs(2);
/// How long the old generation goes on when new clients are sent to the new one: time for those to be heard who
/// have connected already and not asked yet, over a slow network and with a TLS handshake before the request. Both
/// servers close such connections when they are told to stop.
pub const LINGER: Duration = Duration::from_secs(1);
/// A stop signal that follows another by less is the same pending, told twice (a terminal and a parent both do).
const SAME_WISH: Duration = Duration::from_millis(100);

/// Everything the supervisor remembers.
#[derive(Debug)]
pub struct State {
    phase: Phase,
    generations: Vec<Generation>,
    next_id: GenerationId,
    plans: Vec<PlanFacts>,
    /// The start that is due, now or after a backoff.
    pending: Option<Pending>,
    restarts: Restarts,
    /// Whether it is being found out what the memory has room for, before a start.
    measuring: bool,
    reload: Option<Reload>,
    /// The only generation there is getting the workers that it lacks.
    resize: Option<Resize>,
    /// The last time that one generation took over from another.
    handover: Option<Handover>,
    /// What was asked for while a reload was under way: one more, for all of them.
    queued: Option<PendingReload>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// Told to stop, and still serving.
    Delaying {
        since: Instant,
        until: Instant,
        deadline: Instant,
        /// What is known of the workers, once they part from their clients.
        parting: Option<Parting>,
    },
    /// Everything has been told to leave.
    Ending {
        since: Instant,
        leave: StopSequence,
        status: Option<u8>,
        last: Option<Outcome>,
    },
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    at: Instant,
    plan: PlanId,
}

/// A generation to be started now.
#[derive(Debug, Clone, Copy)]
struct Start {
    plan: PlanId,
    is_reload: bool,
}

impl State {
    /// The state in which the first generation is about to be started.
    #[must_use]
    pub fn new(plan: PlanFacts, seed: u64, now: Instant) -> Self {
        Self {
            phase: Phase::Running,
            generations: Vec::new(),
            next_id: GenerationId(1),
            pending: Some(Pending { at: now, plan: plan.id }),
            plans: vec![plan],
            restarts: Restarts::new(seed),
            measuring: false,
            reload: None,
            resize: None,
            handover: None,
            queued: None,
        }
    }

    /// The generations there are.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The generation that serves.
    #[must_use]
    pub fn serving(&self) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.is_serving())
    }

    /// Whether new requests are welcome: something serves and answers, and no stop was asked for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.serving().is_some_and(|serving| serving.answers)
    }

    /// Whether the end has come, so that only its completion is waited for.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether one whole generation serves, and nothing is on its way that would replace it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let nothing_comes = self.reload.is_none() && self.queued.is_none() && self.resize.is_none();
        self.is_ready() && self.is_intact() && self.generations.len() == 1 && nothing_comes && self.pending.is_none()
    }

    /// The phase in a word.
    #[must_use]
    pub fn phase_word(&self) -> &'static str {
        match self.phase {
            Phase::Running if self.serving().is_some() => "serving",
            Phase::Running if self.generations.iter().any(Generation::is_starting) => "starting",
            Phase::Running => "waiting",
            _ => "stopping",
        }
    }

    /// Failures that are still forgiven, and failures in all.
    #[must_use]
    pub fn restarts(&self, now: Instant) -> (u32, u64) {
        (self.restarts.left(now, self.policy()), self.restarts.total())
    }

    /// When something is due, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let leaving = |generation: &Generation| match &generation.stage {
            Stage::Starting { deadline } => Some(*deadline),
            Stage::Serving { .. } => None,
            Stage::Lingering { until, .. } => Some(*until),
            Stage::Leaving(leave) => leave.next(),
        };
        match &self.phase {
            Phase::Running => {
                let pending = self.pending.filter(|_| self.has_place() && self.resize.is_none()).map(|p| p.at);
                self.generations
                    .iter()
                    .filter_map(leaving)
                    .chain(pending)
                    .chain(self.next_step())
                    .chain(self.proven_at())
                    .min()
            }
            Phase::Delaying { until, .. } => self.generations.iter().filter_map(leaving).chain([*until]).min(),
            Phase::Ending { leave, .. } => leave.next(),
            Phase::Done => None,
        }
    }

    /// Takes one event and says what is to be done about it, in order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let turn = &mut Turn::new(now);
        match event {
            Event::Stop => self.stop(turn),
            Event::Quit => self.quit(turn),
            Event::Reload { request, server, workers } => self.ask_reload(request, server, workers, turn),
            Event::Renew => self.renew(),
            Event::Forward(signal) => turn.extend(self.forward(signal)),
            Event::Measured { room, workers } => self.measured(room, workers, turn),
            Event::Counted { generation, workers } => self.seen(generation, workers, turn),
            Event::Planned(plan) => self.planned(plan, turn),
            Event::Spawned { generation, pid } => self.spawned(generation, pid, turn),
            Event::SpawnFailed { generation, failure, why } => self.spawn_failed(generation, failure, &why, turn),
            Event::Leaving { generation, streams, spread } => self.leaving(generation, streams, spread, turn),
            Event::Ready { generation } => self.ready(generation, turn),
            Event::Workers { generation, presence } => self.presence(generation, presence, turn),
            Event::FailureReported { generation, why } => {
                if let Some(generation) = self.find(generation) {
                    generation.why = Some(why);
                }
            }
            Event::Exited { pid, outcome, survivors } => self.exited(pid, outcome, survivors, turn),
            Event::GenerationEmpty { generation } => self.emptied(generation, turn),
            Event::NoChildren => self.alone(turn),
            Event::Tick => {}
        }
        self.deadlines(turn);
        self.advance(turn);
        self.prepare_leaving(std::mem::take(&mut turn.actions))
    }

    /// Whoever is told to leave while another generation serves closes its listening sockets: that is prepared for.
    fn prepare_leaving(&self, actions: Vec<Action>) -> Vec<Action> {
        let Some(staying) = self.serving().map(|serving| serving.id) else { return actions };
        let leaves = |action: &Action| matches!(action, Action::Signal { generation, signal: Signal::SIGTERM } if *generation != staying);
        let prepared =
            |action: Action| leaves(&action).then_some(Action::PrepareLeave { staying }).into_iter().chain([action]);
        actions.into_iter().flat_map(prepared).collect()
    }

    /// The policy of the plan that is in force.
    pub(super) fn policy(&self) -> &Policy {
        &self.plan_in_force().policy
    }

    /// What was chosen for the plan that is in force.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.plan_in_force().choice
    }

    fn plan_in_force(&self) -> &PlanFacts {
        let plan = self.serving().or_else(|| self.generations.last()).map(|generation| generation.plan);
        self.plan(plan.or_else(|| self.pending.map(|pending| pending.plan)))
    }

    /// The plan with that number, or the newest one.
    fn plan(&self, id: Option<PlanId>) -> &PlanFacts {
        let found = self.plans.iter().find(|plan| Some(plan.id) == id);
        found.unwrap_or_else(|| &self.plans[self.plans.len() - 1])
    }

    fn find(&mut self, id: GenerationId) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.id == id)
    }

    /// Whether one more generation may be started: there is at most one, and it is not itself on trial.
    fn has_place(&self) -> bool {
        self.generations.len() < 2 && !self.generations.iter().any(Generation::is_starting)
    }

    /// A generation that is only starting has nobody to serve out.
    fn discard_incoming(&mut self, turn: &mut Turn) {
        for generation in self.generations.iter_mut().filter(|generation| generation.is_starting()) {
            generation.stage = Stage::Leaving(StopSequence::new(turn.now, turn.now + DISCARD_WITHIN));
            if matches!(generation.main, Main::Alive(_)) {
                turn.signal(generation.id, Signal::SIGTERM);
            }
        }
    }

    fn forward(&mut self, signal: Signal) -> Option<Action> {
        let workers = match signal {
            Signal::SIGTTIN => 1,
            Signal::SIGTTOU => -1,
            _ => 0,
        };
        if workers != 0 && self.adjust_steps(workers) {
            return None;
        }
        let generation = self.serving().or_else(|| self.generations.last())?;
        matches!(generation.main, Main::Alive(_)).then_some(Action::Signal { generation: generation.id, signal })
    }

    fn spawned(&mut self, id: GenerationId, pid: Pid, turn: &mut Turn) {
        let ending = !matches!(self.phase, Phase::Running);
        let Some(generation) = self.find(id).filter(|generation| generation.main == Main::Spawning) else { return };
        generation.main = Main::Alive(pid);
        let plan = generation.plan;
        if ending {
            turn.signal(id, Signal::SIGTERM);
        } else if generation.is_starting() {
            let deadline = turn.now + self.plan(Some(plan)).policy.startup_timeout;
            if let Some(generation) = self.find(id) {
                generation.stage = Stage::Starting { deadline };
            }
        }
    }

    fn ready(&mut self, id: GenerationId, turn: &mut Turn) {
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

    fn emptied(&mut self, id: GenerationId, turn: &mut Turn) {
        let before = self.generations.len();
        self.generations.retain(|generation| generation.id != id || generation.main != Main::Gone);
        if self.generations.len() < before {
            turn.log(Note::Gone { generation: id });
        }
    }

    /// What the passing of time brings.
    fn deadlines(&mut self, turn: &mut Turn) {
        if let Phase::Delaying { since, until, deadline, parting } = self.phase
            && until <= turn.now
        {
            match parting {
                None => self.part(since, deadline, turn),
                Some(_) => self.end(deadline, None, turn),
            }
        }
        if matches!(self.phase, Phase::Ending { .. }) {
            return self.end_deadlines(turn);
        }
        self.linger_deadlines(turn);
        self.leave_deadlines(turn);
        self.prove_deadline(turn);
        self.startup_deadlines(turn);
    }

    fn leave_deadlines(&mut self, turn: &mut Turn) {
        let mut abandoned = Vec::new();
        for generation in &mut self.generations {
            let Stage::Leaving(leave) = &mut generation.stage else { continue };
            while let Some(step) = leave.due(turn.now) {
                let id = generation.id;
                match step {
                    StopStep::Ask => turn.signal(id, Signal::SIGTERM),
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

    /// Starts what is due and possible.
    fn advance(&mut self, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.catch_up(turn.now);
        self.step_deadlines(turn);
        if self.reload.is_none()
            && self.resize.is_none()
            && let Some(pending) = self.queued.take()
        {
            turn.log(Note::Reloading);
            let choice = self.choice().with_server(pending.server);
            turn.push(Action::Replan { choice, workers: pending.workers });
            self.reload =
                Some(Reload { requests: pending.requests, stage: ReloadStage::Planning, is_renewal: false });
        }
        if self.measuring {
            return;
        }
        let Some(start) = self.due_start(turn.now) else { return };
        match self.serving() {
            // What follows a generation with one worker has the place of the old one, which is gone.
            Some(serving) if start.is_reload || !self.is_small() => {
                turn.push(Action::Measure { generation: serving.id });
                self.measuring = true;
            }
            _ => self.start(start, Startup::Full, None, turn),
        }
    }

    /// The start that is due and possible.
    fn due_start(&self, now: Instant) -> Option<Start> {
        if !self.has_place() || self.resize.is_some() {
            return None;
        }
        let planned = match &self.reload {
            Some(Reload { stage: ReloadStage::Planned(plan), .. }) => Some(Start { plan: *plan, is_reload: true }),
            _ => None,
        };
        let pending = self.pending.filter(|pending| pending.at <= now);
        planned.or_else(|| pending.map(|pending| Start { plan: pending.plan, is_reload: false }))
    }

    /// Starts a generation; `stepwise` is how many workers the one has that it is to replace step by step.
    fn start(&mut self, Start { plan, is_reload }: Start, startup: Startup, stepwise: Option<u32>, turn: &mut Turn) {
        self.pending = None;
        let generation = self.next_id;
        self.next_id = generation.next();
        if let Some(reload) = self.reload.as_mut().filter(|_| is_reload) {
            reload.stage = ReloadStage::Incoming { generation, stepwise };
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
        // A release that takes more memory than was thought must not take the running one down.
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
}
