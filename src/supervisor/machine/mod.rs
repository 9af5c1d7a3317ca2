//! The supervisor's state machine. Pure: events and the time go in, actions come out.
//!
//! A generation is one server, its main process and all its descendants, started from one plan. Every transition is
//! "start a generation, wait until it is ready, retire the old one": the first start, a reload, and the replacement of
//! a main process that died while its workers keep serving. There are at most two generations: one that serves, and one
//! that comes or goes. Property tests run through years of its life in a second.
//!
//! A generation retires by a timetable ([`stop_sequence`](crate::run::stop_sequence)): it lingers while new clients are
//! already sent to its successor, then its main process gets TERM, then what is left gets TERM, then KILL, all within
//! the stop budget. The end of the launcher is the same timetable for everything at once.
//!
//! If the memory does not suffice for two generations, the new one begins with one worker (`stepwise`).
//!
//! # State diagram
//!
//! ```text
//!  launcher     running ─▶ delaying ─▶ ending ─▶ done
//!  generation   starting ─▶ serving ◀─▶ lingering ─▶ leaving ─▶ gone
//!  reload       planning ─▶ planned ─▶ incoming ─▶ stepping ─▶ proving
//! ```
//!
//! The table lists every possible change. `tests/walk` goes through them at random, and fails if it sees a change that
//! is not in the table, or never sees one that is.
//!
//! | what | from | to | when |
//! |---|---|---|---|
//! | launcher | running | delaying | a stop was requested, and the server keeps serving for a while, or its workers part from their clients |
//! | launcher | running | ending | a stop was requested, or the launcher gives up |
//! | launcher | delaying | ending | the delay is over, another signal came, or nothing serves any more |
//! | launcher | ending | done | there are no processes left, or none that can be killed |
//! | generation | none | starting | a start is due, there is no third generation, and there is enough memory |
//! | generation | starting | serving | it is ready |
//! | generation | starting | leaving | it was not ready in time, a stop was requested, or its main process ended |
//! | generation | starting | gone | it could not be started, or all its processes ended |
//! | generation | serving | lingering | another generation has taken over |
//! | generation | serving | leaving | it has no workers left |
//! | generation | serving | gone | all its processes ended |
//! | generation | lingering | serving | the other generation failed, and this one is taken back |
//! | generation | lingering | leaving | those who had connected have had time to send their request |
//! | generation | lingering | gone | all its processes ended |
//! | generation | leaving | gone | all its processes ended, or the kernel does not end them |
//! | reload | none | planning | a reload was requested |
//! | reload | none | planned | the only worker is past a limit: its plan is started again |
//! | reload | planning | planned | the new settings are valid |
//! | reload | planning | none | the new settings are not valid, or a stop was requested |
//! | reload | planned | incoming | the new generation is started |
//! | reload | planned | none | there is not enough memory, or a stop was requested |
//! | reload | incoming | stepping | it is ready with one worker, and replaces the old one worker by worker |
//! | reload | incoming | proving | it is ready, and has taken over |
//! | reload | incoming | none | it failed, or a stop was requested |
//! | reload | stepping | proving | it has all its workers, and has taken over |
//! | reload | stepping | none | it failed, or a stop was requested |
//! | reload | proving | none | it has been ready for a while, or has failed, or a stop was requested |

pub mod action;
pub mod backoff;
pub mod draining;
pub mod event;
mod failure;
pub mod generation;
mod handover;
pub mod leaving;
pub mod memory_budget;
pub mod note;
pub mod outcome;
pub mod plan_facts;
pub mod reload;
pub mod replacement;
pub mod resize;
mod shutdown;
mod start;
mod stepwise;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::run::stop_sequence::StopSequence;
use action::Action;
use backoff::Restarts;
use event::Event;
use generation::{Generation, Main, Stage};
use handover::Handover;
use leaving::Parting;
use outcome::Outcome;
use plan_facts::{Choice, PlanFacts};
use reload::{PendingReload, Reload};
use resize::Resize;
use turn::Turn;

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
            Stage::Starting { deadline } => Some(*deadline).filter(|_| generation.main != Main::Spawning),
            Stage::Serving { .. } => None,
            Stage::Lingering { until, .. } => Some(*until),
            Stage::Leaving(leave) => leave.next(),
        };
        match &self.phase {
            Phase::Running => {
                let may_start = self.has_place() && self.resize.is_none() && !self.measuring;
                let pending = self.pending.filter(|_| may_start).map(|pending| pending.at);
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
        std::mem::take(&mut turn.actions)
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
}
