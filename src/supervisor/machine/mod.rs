//! The supervisor's state machine. Pure: events and the time go in, actions come out.
//!
//! A generation is one server, its main process and all its descendants, started from one plan. Every transition is
//! "start a generation, wait until it is ready, stop the old one": the first start, a reload, and the replacement of a
//! main process that died while its workers keep serving. There are at most two generations: one that serves, and one
//! that is starting or stopping. Property tests simulate years of operation in a second.
//!
//! A generation stops by a timetable ([`stop_sequence`](crate::run::stop_sequence)): it lingers while new clients
//! already go to its successor, then its main process gets TERM, then the remaining processes get TERM, then KILL, all
//! within the stop budget. The end of the launcher is the same timetable for everything at once.
//!
//! If the memory has no room for two generations, the new one begins with one worker (`stepwise`).
//!
//! # State diagram
//!
//! ```text
//!  launcher     running ─▶ delaying ─▶ ending ─▶ done
//!  generation   starting ─▶ serving ◀─▶ lingering ─▶ leaving ─▶ gone
//!  reload       planning ─▶ planned ─▶ incoming ─▶ stepping ─▶ proving
//! ```
//!
//! The table lists every possible change. `tests/walk` makes them at random, and fails if it sees a change that is not
//! in the table, or never sees one that is.
//!
//! | what | from | to | when |
//! |---|---|---|---|
//! | launcher | running | delaying | a stop was requested, and the server keeps serving for a while, or its workers part from their clients |
//! | launcher | running | ending | a stop was requested, or the launcher gives up |
//! | launcher | delaying | ending | the delay is over, another signal came, or nothing serves any more |
//! | launcher | ending | done | there are no processes left, or none that can be killed |
//! | generation | none | starting | a start is due, there is no third generation, and there is enough memory |
//! | generation | starting | serving | it is ready |
//! | generation | starting | leaving | it was not ready in time, its workers kept dying, a stop was requested, or its main process ended |
//! | generation | starting | gone | it could not be started, or all its processes ended |
//! | generation | serving | lingering | another generation has taken over |
//! | generation | serving | leaving | it has no workers left |
//! | generation | serving | gone | all its processes ended |
//! | generation | lingering | serving | the other generation failed, and this one is taken back |
//! | generation | lingering | leaving | clients that had connected have had time to send their request |
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
pub mod disconnecting;
mod dismissal;
pub mod draining;
pub mod event;
mod failure;
pub mod generation;
mod handover;
pub mod memory_budget;
pub mod note;
pub mod outcome;
pub mod plan_facts;
pub mod reload;
pub mod resize;
mod shutdown;
mod start;
mod stepwise;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
pub mod worker_moves;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::run::stop_sequence::StopSequence;
use action::Action;
use backoff::Restarts;
use disconnecting::Disconnecting;
use dismissal::Dismissal;
use event::Event;
use generation::{Generation, Main, Stage};
use handover::Handover;
use outcome::Outcome;
use plan_facts::{Choice, PlanFacts};
use reload::{PendingReload, Reload};
use resize::Resize;
use turn::Turn;

/// A stop signal that follows another within this time is the same request, sent twice (by a terminal and a parent).
const SAME_WISH: Duration = Duration::from_millis(100);

/// The complete state of the supervisor's decisions.
#[derive(Debug)]
pub struct State {
    phase: Phase,
    generations: Vec<Generation>,
    next_id: GenerationId,
    plans: Vec<PlanFacts>,
    /// The start that is due, now or after a backoff.
    pending: Option<Pending>,
    restarts: Restarts,
    /// Whether the memory is being measured before a start.
    measuring: bool,
    reload: Option<Reload>,
    /// The only generation is getting the workers that it lacks.
    resize: Option<Resize>,
    /// Workers whose main process is about to be asked for one fewer.
    dismissals: Vec<Dismissal>,
    /// The last time that one generation took over from another.
    handover: Option<Handover>,
    /// Requests that arrived during a reload: one more reload answers all of them.
    queued: Option<PendingReload>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// A stop was requested, and the server still serves.
    Delaying {
        since: Instant,
        until: Instant,
        deadline: Instant,
        /// What is known of the workers, once they close their connections.
        disconnecting: Option<Disconnecting>,
        /// How the main process that served has ended; its workers may still serve.
        last: Option<Outcome>,
        interrupted: bool,
    },
    /// Everything has been asked to stop.
    Ending {
        since: Instant,
        leave: StopSequence,
        status: Option<u8>,
        last: Option<Outcome>,
        interrupted: bool,
    },
    Done,
}

/// A start to come.
#[derive(Debug, Clone, Copy)]
struct Pending {
    at: Instant,
    plan: PlanId,
    /// Not before this while workers without a main process serve.
    survivors_until: Option<Instant>,
}

impl Pending {
    fn new(at: Instant, plan: PlanId) -> Self {
        Self { at, plan, survivors_until: None }
    }
}

impl State {
    /// The state in which the first generation is about to be started.
    #[must_use]
    pub fn new(plan: PlanFacts, seed: u64, now: Instant) -> Self {
        Self {
            phase: Phase::Running,
            generations: Vec::new(),
            next_id: GenerationId(1),
            pending: Some(Pending::new(now, plan.id)),
            plans: vec![plan],
            restarts: Restarts::new(seed),
            measuring: false,
            reload: None,
            resize: None,
            dismissals: Vec::new(),
            handover: None,
            queued: None,
        }
    }

    /// The current generations.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The generation that serves.
    #[must_use]
    pub fn serving(&self) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.is_serving())
    }

    /// Whether new requests are welcome: a generation serves and answers, and no stop was requested.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.serving().is_some_and(|serving| serving.answers)
    }

    /// Whether everything is being stopped, and only the end is waited for.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether one whole generation serves, and no replacement is in progress.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let nothing_comes = self.reload.is_none() && self.queued.is_none() && self.resize.is_none();
        self.is_ready() && self.is_intact() && self.generations.len() == 1 && nothing_comes && self.pending.is_none()
    }

    /// The phase in one word.
    #[must_use]
    pub fn phase_word(&self) -> &'static str {
        match self.phase {
            Phase::Running if self.serving().is_some() => "serving",
            Phase::Running if self.generations.iter().any(Generation::is_starting) => "starting",
            Phase::Running => "waiting",
            _ => "stopping",
        }
    }

    /// How many failures are still allowed, and the number of failures so far.
    #[must_use]
    pub fn restarts(&self, now: Instant) -> (u32, u64) {
        (self.restarts.left(now, self.policy()), self.restarts.total())
    }

    /// When something is due even if nothing happens before.
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
                let pending = self.pending.filter(|_| may_start).map(|pending| self.due(&pending));
                self.generations
                    .iter()
                    .filter_map(leaving)
                    .chain(pending)
                    .chain(self.next_step())
                    .chain(self.next_dismissal())
                    .chain(self.proven_at())
                    .min()
            }
            Phase::Delaying { until, .. } => {
                let others = self.next_dismissal().into_iter().chain([*until]);
                self.generations.iter().filter_map(leaving).chain(others).min()
            }
            Phase::Ending { leave, .. } => leave.next(),
            Phase::Done => None,
        }
    }

    /// Takes one event and returns what is to be done about it, in order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let turn = &mut Turn::new(now);
        match event {
            Event::Stop => self.stop(turn),
            Event::Interrupt => self.interrupt(turn),
            Event::Quit => self.quit(turn),
            Event::Reload { request, server, workers } => self.ask_reload(request, server, workers, turn),
            Event::Renew => self.renew(),
            Event::Forward(signal) => self.forward(signal, turn),
            Event::Measured { room, workers } => self.measured(room, workers, turn),
            Event::Counted { generation, workers } => self.seen(generation, workers, turn),
            Event::Planned(plan) => self.planned(plan, turn),
            Event::Spawned { generation, pid } => self.spawned(generation, pid, turn),
            Event::SpawnFailed { generation, failure, why } => self.spawn_failed(generation, failure, &why, turn),
            Event::Leaving { generation, streams, spread } => self.leaving(generation, streams, spread, turn),
            Event::WorkerLeaving { generation, streams, spread } => {
                self.worker_leaving(generation, streams, spread, turn);
            }
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

    /// The policy of the plan that applies.
    pub(super) fn policy(&self) -> &Policy {
        &self.plan_in_force().policy
    }

    /// What was chosen at run time for the plan that applies.
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

    fn forward(&mut self, signal: Signal, turn: &mut Turn) {
        let workers = match signal {
            Signal::SIGTTIN => 1,
            Signal::SIGTTOU => -1,
            _ => 0,
        };
        if workers != 0 && self.adjust_steps(workers) {
            return;
        }
        let Some(generation) = self.serving().or_else(|| self.generations.last()) else { return };
        let id = generation.id;
        match generation.main {
            Main::Alive(_) if signal == Signal::SIGTTOU && generation.is_serving() => self.dismiss_oldest(id, turn),
            Main::Alive(_) => turn.signal(id, signal),
            Main::Spawning | Main::Gone => {}
        }
    }

    /// What is due because time has passed.
    fn deadlines(&mut self, turn: &mut Turn) {
        if let Phase::Delaying { since, until, deadline, disconnecting, .. } = self.phase
            && until <= turn.now
        {
            match disconnecting {
                None => self.disconnect_clients(since, deadline, turn),
                Some(_) => self.end(deadline, None, turn),
            }
        }
        if matches!(self.phase, Phase::Ending { .. }) {
            return self.end_deadlines(turn);
        }
        self.dismissal_deadlines(turn);
        self.linger_deadlines(turn);
        self.leave_deadlines(turn);
        self.prove_deadline(turn);
        self.startup_deadlines(turn);
    }
}
