//! Making plans anew, beside the loop: settings are read, perhaps over the network, a key's passphrase may have to be
//! stretched, and a server that does not show its version is asked for it.
//!
//! Each question gets exactly one answer. One that takes too long is answered with that, and what comes of it later is
//! forgotten.

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
use crate::settings::value::show_span;
use crate::sys::secrets::hide_memory;

/// Makes a plan anew, for a reload: for this server if one is named, with workers more or fewer.
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
    job: Job<Answer>,
    /// When it is given up; none if it was.
    until: Option<Instant>,
}

type Answer = Result<(Plan, Choice), String>;

impl Planning {
    pub(super) const fn new(replan: Arc<Replan>) -> Self {
        Self { replan, question: None }
    }

    /// How plans are made, for somebody else who needs one.
    pub(super) fn replan(&self) -> Arc<Replan> {
        Arc::clone(&self.replan)
    }

    /// Begins to make one, or says why not.
    fn ask(&mut self, choice: Choice, workers: i32, now: Instant) -> Result<(), String> {
        if self.question.is_some() {
            return Err("the settings are still being read for an earlier reload: does a file system hang?".into());
        }
        let replan = self.replan();
        let job = Job::start("plan", move || replan(choice, workers).map_err(|problems| joined(&problems)));
        self.question = Some(Question { job, until: Some(now + PATIENCE) });
        Ok(())
    }

    /// The answer, when there is one that is still waited for.
    fn answer(&mut self, now: Instant) -> Option<Answer> {
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

/// Tells the state machine when the plan is there that it has asked for.
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
    /// Begins to make a plan anew. The answer comes later, if there is none at once.
    pub(super) fn plan_anew(&mut self, choice: Choice, workers: i32) -> Option<Event> {
        self.planning.ask(choice, workers, Instant::now()).err().map(|why| Event::Planned(Err(why)))
    }

    fn planned(&mut self, answer: Answer) -> Event {
        let planned = answer.map(|(plan, choice)| {
            let id = self.plans.keys().last().map_or(PlanId(0), |last| last.next());
            for warning in &plan.warnings {
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

    /// One whose plans are not made before it is told so.
    fn slow() -> (Planning, Sender<()>) {
        let (go_on, waits) = channel();
        let waits = Mutex::new(waits);
        let replan = move |_, _| {
            waits.lock().unwrap().recv().unwrap();
            Err(Vec::new())
        };
        (Planning::new(Arc::new(replan)), go_on)
    }

    fn until_done(planning: &mut Planning, now: Instant) -> Option<Answer> {
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
    fn a_plan_that_takes_too_long_is_given_up_and_what_comes_of_it_later_is_forgotten() {
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
