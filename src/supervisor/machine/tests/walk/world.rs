//! Made-up processes around a state machine. They behave as it was decided for them, the machine's questions are
//! answered late or never, and every guarantee is checked after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::duties::Duties;
use super::record::{Picture, Record};
use crate::ids::{GenerationId, PlanId};
use crate::settings::value::Server;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::disconnecting::Occasion;
use crate::supervisor::machine::draining::DISCARD_WITHIN;
use crate::supervisor::machine::event::{Event, Requester};
use crate::supervisor::machine::generation::{Main, Stage};
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::Outcome;
use crate::supervisor::machine::plan_facts::{Choice, PlanFacts};
use crate::supervisor::machine::{Phase, State};

pub(super) type Checked = Result<(), TestCaseError>;

/// How long the processes that a main process leaves behind after a requested end may take.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// A question of the machine that has not been answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Start(GenerationId),
    Plan(Choice),
    Memory(GenerationId),
    /// How many streams it has, and how long it may take to leave.
    Streams(GenerationId, Duration, Occasion),
    /// How many streams its oldest worker has.
    WorkerStreams(GenerationId, Duration),
}

/// The processes of one generation.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) main: MainProcess,
    pub(super) workers: u32,
    /// The kernel keeps them in spite of KILL.
    pub(super) are_held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MainProcess {
    Starting,
    Running,
    /// Ended, but the machine does not know it yet.
    Ended(Outcome),
    Reaped,
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) processes: BTreeMap<GenerationId, Processes>,
    pub(super) questions: Vec<Question>,
    pub(super) plans: BTreeMap<PlanId, PlanFacts>,
    /// Every request for a reload, with what was replied.
    pub(super) requests: BTreeMap<Requester, Option<Result<GenerationId, String>>>,
    pub(super) record: Record,
    pub(super) exit: Option<u8>,
    /// Whether the stop was requested, and when everything must have been killed.
    pub(super) end: Option<(Asked, Instant)>,
    pub(super) all_killed: bool,
    /// The server that was requested since the settings were last read.
    pub(super) wanted_server: Option<Server>,
    /// When each generation that is stopping must have ended or been killed.
    kill_by: BTreeMap<GenerationId, Instant>,
    killed: BTreeSet<GenerationId>,
    ever_ready: BTreeSet<PlanId>,
    duties: Duties,
}

/// Whether the end was requested or decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    ByUser,
    ByNobody,
}

impl World {
    pub(super) fn new(plan: PlanFacts) -> Self {
        let now = crate::test_time::start();
        Self {
            plans: BTreeMap::from([(plan.id, plan.clone())]),
            state: State::new(plan, 1, now),
            now,
            processes: BTreeMap::new(),
            questions: vec![],
            requests: BTreeMap::new(),
            record: Record::default(),
            exit: None,
            end: None,
            all_killed: false,
            wanted_server: None,
            kill_by: BTreeMap::new(),
            killed: BTreeSet::new(),
            ever_ready: BTreeSet::new(),
            duties: Duties::default(),
        }
    }

    pub(super) fn pid(generation: GenerationId) -> Pid {
        Pid::from_raw(1000 + generation.0.cast_signed())
    }

    /// Passes the event on, and what follows from it at once: deaths are noticed before anything else happens.
    pub(super) fn tell(&mut self, event: Event) -> Checked {
        let mut next = Some(event);
        while let Some(event) = next.filter(|_| self.exit.is_none()) {
            self.step(&event)?;
            next = self.unnoticed();
        }
        self.check_at_rest()
    }

    /// Time passes; the machine is woken whenever it has a deadline.
    pub(super) fn pass(&mut self, time: Duration) -> Checked {
        let until = self.now + time;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= until) {
            self.now = at;
            self.tell(Event::Tick)?;
        }
        self.now = until;
        self.tell(Event::Tick)
    }

    /// What has happened to processes and was not reported yet.
    fn unnoticed(&mut self) -> Option<Event> {
        for (generation, processes) in &mut self.processes {
            if let MainProcess::Ended(outcome) = processes.main {
                processes.main = MainProcess::Reaped;
                let survivors = processes.workers > 0;
                return Some(Event::Exited { pid: Self::pid(*generation), outcome, survivors });
            }
        }
        let known = |id: &GenerationId| self.state.generations().iter().any(|generation| generation.id == *id);
        let is_empty = |processes: &Processes| processes.main == MainProcess::Reaped && processes.workers == 0;
        let emptied = self.processes.iter().find(|(id, processes)| known(id) && is_empty(processes));
        if let Some((generation, _)) = emptied {
            return Some(Event::GenerationEmpty { generation: *generation });
        }
        let is_childless = self.processes.values().all(is_empty);
        (is_childless && self.state.is_ending()).then_some(Event::NoChildren)
    }

    fn step(&mut self, event: &Event) -> Checked {
        self.check_kills()?;
        let before = Picture::of(&self.state);
        let was_ready = self.state.is_ready();
        let costs_service = may_cost_service(event);
        let actions = self.state.step(event.clone(), self.now);
        self.record.add(&before, &Picture::of(&self.state));
        self.note_departures(&before);
        for (index, action) in actions.iter().enumerate() {
            self.carry_out(action)?;
            self.check_term(index.checked_sub(1).map(|index| &actions[index]), action)?;
        }
        prop_assert!(costs_service || !was_ready || self.state.is_ready(), "{event:?} ended the service");
        prop_assert!(self.state.generations().len() <= 2, "more than two generations");
        Ok(())
    }

    fn carry_out(&mut self, action: &Action) -> Checked {
        prop_assert!(self.exit.is_none(), "{action:?} after the end");
        let running = self.processes.iter().filter(|(_, it)| it.main == MainProcess::Running && !it.are_held);
        let running: Vec<GenerationId> = running.map(|(id, _)| *id).collect();
        self.duties.note(action, &self.state, &running)?;
        match action {
            Action::Spawn { generation, plan, .. } => self.begin(*generation, *plan)?,
            Action::Replan { choice, .. } => self.check_choice(*choice)?,
            Action::Measure { generation } => self.questions.push(Question::Memory(*generation)),
            Action::Retire { generation, within, occasion } => {
                self.questions.push(Question::Streams(*generation, *within, *occasion));
            }
            Action::RetireOldest { generation, within } => {
                self.questions.push(Question::WorkerStreams(*generation, *within));
            }
            Action::Signal { generation, signal } => self.signal(*generation, *signal)?,
            Action::Kill { generation } => {
                self.killed.insert(*generation);
                self.processes.get_mut(generation).into_iter().for_each(Processes::kill);
            }
            Action::KillAll => {
                self.all_killed = true;
                self.processes.values_mut().for_each(Processes::kill);
            }
            Action::Reply { request, result } => {
                let reply = self.requests.get_mut(request);
                prop_assert!(reply == Some(&mut None), "{action:?}, after {reply:?}");
                self.requests.insert(*request, Some(result.clone()));
            }
            Action::Log(note) => self.hear(note)?,
            Action::Exit(status) => self.exit = Some(*status),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, generation: GenerationId, plan: PlanId) -> Checked {
        prop_assert!(self.end.is_none(), "started in the end");
        prop_assert!(self.plans.contains_key(&plan) && self.state.plans().any(|known| known == plan));
        let is_of_reload = self.state.reload.as_ref().is_some_and(|reload| reload.is_for(generation));
        let is_sound = self.ever_ready.is_empty() || self.ever_ready.contains(&plan);
        prop_assert!(is_of_reload || is_sound, "started {plan:?}, which was never ready");
        let new = Processes { main: MainProcess::Starting, workers: 0, are_held: false };
        prop_assert!(self.processes.insert(generation, new).is_none(), "{generation} was started twice");
        self.questions.push(Question::Start(generation));
        Ok(())
    }

    /// A requested server is chosen; otherwise the one of the plan that serves.
    fn check_choice(&mut self, choice: Choice) -> Checked {
        prop_assert!(self.end.is_none(), "planned in the end");
        let wanted = self.wanted_server.take();
        if let Some(serving) = self.state.serving() {
            prop_assert_eq!(choice.server, wanted.or(self.plans[&serving.plan].choice.server));
        }
        self.questions.push(Question::Plan(choice));
        Ok(())
    }

    fn signal(&mut self, generation: GenerationId, signal: Signal) -> Checked {
        let Some(processes) = self.processes.get_mut(&generation) else {
            return Err(TestCaseError::fail(format!("{signal} to generation {generation}, which was never started")));
        };
        // One that has just ended exists until it is reaped.
        let is_there = matches!(processes.main, MainProcess::Running | MainProcess::Ended(_));
        prop_assert!(is_there, "{signal} to generation {generation}, which has no main process");
        match signal {
            Signal::SIGTTIN => processes.workers += 1,
            Signal::SIGTTOU => processes.workers = processes.workers.saturating_sub(1).max(1),
            _ => {}
        }
        Ok(())
    }

    fn hear(&mut self, note: &Note) -> Checked {
        match note {
            Note::Stopping { budget, .. } if self.end.is_none() => {
                self.end = Some((Asked::ByUser, self.now + *budget));
            }
            // A fast stop instead of a slow one.
            Note::Stopping { budget, .. } => {
                self.end = self.end.map(|(asked, by)| (asked, by.min(self.now + *budget)));
            }
            Note::GivingUp { .. } => {
                prop_assert!(self.end.is_none(), "gives up in the end");
                self.end = Some((Asked::ByNobody, self.now + self.state.policy().stop_timeout));
            }
            Note::Reloading | Note::NoRoom { .. } | Note::Respawning { .. } | Note::StaysSmall { .. } => {
                prop_assert!(self.end.is_none(), "says in the end: {note:?}");
            }
            Note::Ready { generation } => {
                let plan = self.state.generations().iter().find(|found| found.id == *generation).map(|it| it.plan);
                self.ever_ready.extend(plan);
            }
            _ => {}
        }
        Ok(())
    }

    /// Records by when each generation that is stopping has to have ended.
    fn note_departures(&mut self, before: &Picture) {
        for generation in self.state.generations() {
            let (id, now) = (generation.id, self.now);
            let by = match (&generation.stage, before.stage(id)) {
                (Stage::Starting { .. } | Stage::Serving { .. }, _) => None,
                (_, Some("starting")) => Some(now + DISCARD_WITHIN),
                (_, Some("serving")) => Some(now + self.plans[&generation.plan].policy.stop_timeout),
                _ => self.kill_by.get(&id).copied(),
            };
            let is_told = matches!(generation.stage, Stage::Leaving(_));
            let has_just_lost_its_main = is_told && generation.main == Main::Gone && before.has_main(id);
            let by = if has_just_lost_its_main { by.map(|by| by.min(now + LEFT_BEHIND)) } else { by };
            match by {
                Some(by) => self.kill_by.insert(id, by),
                None => self.kill_by.remove(&id),
            };
        }
    }

    /// While another generation serves, clients are kept away from one that is asked to stop.
    fn check_term(&self, previous: Option<&Action>, action: &Action) -> Checked {
        let Action::Signal { generation, signal: Signal::SIGTERM } = action else { return Ok(()) };
        if self.state.is_ending() {
            return Ok(());
        }
        if let Some(staying) = self.state.serving().map(|serving| serving.id).filter(|id| id != generation) {
            prop_assert_eq!(previous, Some(&Action::PrepareLeave { staying }));
        }
        Ok(())
    }

    fn check_at_rest(&self) -> Checked {
        if self.exit.is_some() {
            return Ok(());
        }
        self.duties.check(&self.state)?;
        if let Some(at) = self.state.next_deadline() {
            prop_assert!(at > self.now, "a deadline was left behind");
        }
        let is_running = matches!(self.state.phase, Phase::Running);
        if is_running && self.state.generations().is_empty() && self.questions.is_empty() {
            prop_assert!(self.state.next_deadline().is_some(), "nothing runs and nothing is planned");
        }
        Ok(())
    }

    /// Every process that had to have ended by now has ended or was killed.
    fn check_kills(&self) -> Checked {
        if let Some((_, by)) = self.end {
            prop_assert!(self.now <= by || self.all_killed, "the end is late");
        }
        for generation in self.state.generations().iter().filter(|_| !self.state.is_ending()) {
            let is_late = self.kill_by.get(&generation.id).is_some_and(|by| *by < self.now);
            prop_assert!(
                !is_late || self.killed.contains(&generation.id),
                "{} was not killed in time",
                generation.id
            );
        }
        Ok(())
    }

    /// An event that does not concern the machine now: it has no effect.
    pub(super) fn tell_without_effect(&mut self, event: &Event) -> Checked {
        let before = format!("{:?}", self.state);
        let actions = self.state.step(event.clone(), self.now);
        prop_assert_eq!(&actions, &[], "{:?}", event);
        prop_assert_eq!(format!("{:?}", self.state), before, "{:?}", event);
        Ok(())
    }
}

impl Processes {
    fn kill(&mut self) {
        if self.are_held {
            return;
        }
        if self.main == MainProcess::Running {
            self.main = MainProcess::Ended(Outcome::Signaled(9));
        }
        self.workers = 0;
    }
}

/// Whether the service may end with this event: because something died or was too late, or because it was requested.
fn may_cost_service(event: &Event) -> bool {
    let is_asked = matches!(event, Event::Stop | Event::Interrupt | Event::Quit);
    let is_death = matches!(event, Event::Exited { .. } | Event::GenerationEmpty { .. } | Event::NoChildren);
    is_asked || is_death || matches!(event, Event::Workers { .. } | Event::Tick)
}
