//! Making plans again, beside the loop: settings are read, perhaps over the network, a key may have to be derived from
//! a passphrase, and a server whose version is not visible is run to print it.
//!
//! Each question gets exactly one answer. If a plan takes too long, that is the answer, and a later result is dropped.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::background::{Job, Progress};
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::machine::plan_facts::{Choice, PlanFacts};
use super::{World, facts};
use crate::ids::PlanId;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::report::redact;
use crate::settings::changes;
use crate::settings::value::show_span;
use crate::sys::secrets::hide_memory;

/// Makes a plan again, for a reload: for this server if one is named, with this change in the number of workers.
pub type Replan = dyn Fn(Choice, i32) -> Result<(Plan, Choice), Vec<Problem>> + Send + Sync;

/// No plan takes longer, unless a file system hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// The plan that a reload waits for.
pub(super) struct Planning {
    replan: Arc<Replan>,
    question: Option<Question>,
}

/// A plan that is being made.
#[derive(Debug)]
struct Question {
    job: Job<NewPlan>,
    /// When we stop waiting for it; none if we have.
    until: Option<Instant>,
}

type NewPlan = Result<(Plan, Choice), String>;

impl Planning {
    pub(super) const fn new(replan: Arc<Replan>) -> Self {
        Self { replan, question: None }
    }

    /// How plans are made, for other components that need one.
    pub(super) fn replan(&self) -> Arc<Replan> {
        Arc::clone(&self.replan)
    }

    /// Begins to make one, or returns why not.
    fn ask(&mut self, choice: Choice, workers: i32, now: Instant) -> Result<(), String> {
        if self.question.is_some() {
            return Err("the settings are still being read for an earlier reload: does a file system hang?".into());
        }
        let replan = self.replan();
        let job = Job::start("plan", move || replan(choice, workers).map_err(|problems| joined(&problems)));
        self.question = Some(Question { job, until: Some(now + PATIENCE) });
        Ok(())
    }

    /// The answer, when there is one and it is still waited for.
    fn answer(&mut self, now: Instant) -> Option<NewPlan> {
        let question = self.question.as_mut()?;
        let is_awaited = question.until.is_some();
        let answer = match question.job.progress() {
            Progress::Done(answer) => answer,
            Progress::Failed => Err("the settings could not be read: this is a bug, please report it".into()),
            Progress::Working => {
                question.until.filter(|until| *until <= now)?;
                question.until = None;
                return Some(Err(format!(
                    "reading the settings has taken longer than {}: does a file system hang?",
                    show_span(PATIENCE)
                )));
            }
        };
        self.question = None;
        is_awaited.then_some(answer)
    }
}

/// All problems in one line.
pub(super) fn joined(problems: &[Problem]) -> String {
    problems.iter().map(|problem| redact::message(&problem.to_string())).collect::<Vec<_>>().join("; ")
}

impl fmt::Debug for Planning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planning").field("question", &self.question).finish_non_exhaustive()
    }
}

/// Informs the state machine when the plan that it requested is ready.
#[derive(Debug)]
pub(super) struct Planned;

impl Component for Planned {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        if let Some(question) = &world.planning.question {
            question.job.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
            waits.until(question.until);
        }
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let answer = world.planning.answer(Instant::now());
        answer.into_iter().map(|answer| world.planned(answer).into()).collect()
    }
}

impl World {
    /// Begins to make a plan. The answer comes later, unless it is immediate.
    pub(super) fn make_plan_again(&mut self, choice: Choice, workers: i32) -> Option<Event> {
        self.planning.ask(choice, workers, Instant::now()).err().map(|why| Event::Planned(Err(why)))
    }

    fn planned(&mut self, answer: NewPlan) -> Event {
        let planned = answer.map(|(plan, choice)| {
            let id = self.plans.keys().last().map_or(PlanId(0), |last| last.next());
            let overridden = self.plan_in_force().map(|old| changes(&old.overridden, &plan.overridden));
            for warning in plan.warnings.iter().chain(&overridden.unwrap_or_default()) {
                warn!("{}", redact::message(warning));
            }
            if plan.credentials.is_some() {
                hide_memory();
            }
            let facts = PlanFacts { choice, ..facts(id, &plan) };
            let used: Vec<PlanId> = self.state.plans().collect();
            self.plans.retain(|id, _| used.contains(id));
            self.plans.insert(id, plan);
            facts
        });
        Event::Planned(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    /// Plans are only made on request.
    fn slow() -> (Planning, Sender<()>) {
        let (go_on, waits) = channel();
        let waits = Mutex::new(waits);
        let replan = move |_, _| {
            waits.lock().unwrap().recv().unwrap();
            Err(Vec::new())
        };
        (Planning::new(Arc::new(replan)), go_on)
    }

    fn until_done(planning: &mut Planning, now: Instant) -> Option<NewPlan> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while planning.question.is_some() && Instant::now() < deadline {
            if let Some(answer) = planning.answer(now) {
                return Some(answer);
            }
            std::thread::yield_now();
        }
        None
    }

    #[test]
    fn a_plan_that_takes_too_long_is_given_up_and_its_late_result_is_dropped() {
        let (mut planning, go_on) = slow();
        let start = Instant::now();
        assert_eq!(planning.ask(Choice::default(), 0, start), Ok(()));
        assert!(planning.answer(start).is_none());
        let late = start + PATIENCE;
        assert!(planning.answer(late).unwrap().unwrap_err().contains("longer than"));
        assert!(planning.answer(late).is_none(), "one answer to one question");
        assert!(planning.ask(Choice::default(), 0, late).unwrap_err().contains("earlier reload"));
        go_on.send(()).unwrap();
        assert!(until_done(&mut planning, late).is_none(), "nobody waits for it");
        assert_eq!(planning.ask(Choice::default(), 0, late), Ok(()), "and the next one is made");
        go_on.send(()).unwrap();
        assert!(until_done(&mut planning, late).is_some_and(|answer| answer.is_err()));
    }
}
