//! What happens on a walk, as events for the machine.

use std::time::Duration;

use nix::unistd::Pid;

use super::super::harness::{facts, granian};
use super::duties::check_quit;
use super::happening::{Happening, OutOfPlace, Pick, Reply, Workers};
use super::world::{Checked, MainProcess, Processes, Question, World};
use crate::ids::{GenerationId, PlanId};
use crate::settings::value::Server;
use crate::supervisor::machine::Phase;
use crate::supervisor::machine::disconnecting::{Occasion, spread};
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::event::Presence;
use crate::supervisor::machine::generation::{Generation, Main, Stage};
use crate::supervisor::machine::memory_budget::Room;
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};
use crate::supervisor::machine::plan_facts::{Choice, PlanFacts};
use crate::supervisor::machine::reload::ReloadStage;
use crate::supervisor::machine::worker_moves::Headcount;

impl World {
    pub(super) fn happens(&mut self, what: Happening) -> Checked {
        match what {
            Happening::Reply(which, reply) => {
                if self.questions.is_empty() {
                    return Ok(());
                }
                self.answer(which.index(self.questions.len()), &reply)
            }
            Happening::Ready(which) => {
                let is_due = |it: &Generation| it.is_starting() && matches!(it.main, Main::Alive(_));
                self.about(self.pick_generation(which, is_due), |generation| Event::Ready { generation })
            }
            Happening::MainDies(which, outcome, workers) => {
                let victim = self.pick_processes(which, |it| it.main == MainProcess::Running);
                self.with_processes(victim, |it| it.main_dies(outcome, workers))
            }
            Happening::WorkersDie(which) => {
                let orphans = self.pick_processes(which, |it| it.main == MainProcess::Reaped);
                self.with_processes(orphans, |it| it.workers = 0)
            }
            Happening::ExecFails(which, failure) => {
                let may_fail = |it: &Generation| it.may_fail_to_start() && matches!(it.main, Main::Alive(_));
                let Some(generation) = self.pick_generation(which, may_fail) else { return Ok(()) };
                self.answer_start(generation, Err(failure))
            }
            Happening::IsHeld(which) => {
                let held = self.pick_processes(which, |it| it.main == MainProcess::Running);
                self.with_processes(held, |it| it.are_held = true)
            }
            Happening::Presence(presence) => {
                let serving = self.state.serving().map(|serving| serving.id);
                self.about(serving, |generation| Event::Workers { generation, presence })
            }
            Happening::KeepsDying(which) => {
                let starting = self.pick_generation(which, Generation::is_starting);
                let presence = Presence::Lost;
                self.about(starting, |generation| Event::Workers { generation, presence })
            }
            Happening::Count { still_starting } => self.count(still_starting),
            Happening::Reload(server) => self.ask_reload(server),
            Happening::Renew => self.tell(Event::Renew),
            Happening::Forward(signal) => self.tell(Event::Forward(signal)),
            Happening::Stop => self.tell(Event::Stop),
            Happening::Interrupt => self.tell(Event::Interrupt),
            Happening::Quit => {
                self.tell(Event::Quit)?;
                check_quit(self.end.map(|(_, by)| by).filter(|_| !self.all_killed && self.exit.is_none()), self.now)
            }
            Happening::OutOfPlace(which, what) => self.out_of_place(which, what),
            Happening::Pass(time) => self.pass(time),
            Happening::ToDeadline => self.pass_to_deadline(),
        }
    }

    /// Answers a question that the machine has asked, maybe long ago.
    pub(super) fn answer(&mut self, index: usize, answer: &Reply) -> Checked {
        match self.questions.remove(index) {
            Question::Streams(generation, within, occasion) => {
                let spread = spread(answer.streams, within, occasion);
                self.tell(Event::Leaving { generation, streams: answer.streams, spread })
            }
            Question::WorkerStreams(generation, within) => {
                let spread = spread(answer.streams, within, Occasion::Handover);
                self.tell(Event::WorkerLeaving { generation, streams: answer.streams, spread })
            }
            Question::Start(generation) => self.answer_start(generation, answer.start),
            Question::Plan(choice) => self.answer_plan(choice, answer.plan),
            Question::Memory(generation) => {
                let workers = self.processes.get(&generation).map(|it| it.workers).filter(|workers| *workers > 0);
                let event = Event::Measured { room: answer.room, workers };
                if self.is_running() { self.tell(event) } else { self.tell_without_effect(&event) }
            }
        }
    }

    fn answer_start(&mut self, generation: GenerationId, start: Result<(), SpawnFailure>) -> Checked {
        let known = self.state.generations().iter().find(|it| it.id == generation);
        let workers = known.map_or(1, |it| it.startup.workers(self.plans[&it.plan].workers));
        let Some(processes) = self.processes.get_mut(&generation) else { return Ok(()) };
        let event = match start {
            Ok(()) => {
                (processes.main, processes.workers) = (MainProcess::Running, workers);
                Event::Spawned { generation, pid: Self::pid(generation) }
            }
            Err(failure) => {
                (processes.main, processes.workers) = (MainProcess::Reaped, 0);
                Event::SpawnFailed { generation, failure, why: "it is so".into() }
            }
        };
        let failures = self.state.restarts.total();
        self.tell(event)?;
        let waits_for_room = start == Err(SpawnFailure::NoRoom);
        proptest::prop_assert!(!waits_for_room || self.state.restarts.total() == failures, "counted as a failure");
        Ok(())
    }

    fn answer_plan(&mut self, choice: Choice, plan: Result<u32, ()>) -> Checked {
        let id = self.plans.keys().last().map_or(PlanId(0), |last| last.next());
        let first = &self.plans[&PlanId(0)];
        let is_granian = choice.server.map_or(!first.resizable, |server| server == Server::Granian);
        let facts = if is_granian { granian } else { facts };
        let facts = plan.map(|workers| PlanFacts { workers, choice, ..facts(id.0, first.policy.clone()) });
        let is_expected = self.is_planning() && self.is_running();
        if let Some(facts) = facts.clone().ok().filter(|_| is_expected) {
            self.plans.insert(id, facts);
        }
        let event = Event::Planned(facts.map_err(|()| "workers: 0".to_owned()));
        if is_expected { self.tell(event) } else { self.tell_without_effect(&event) }
    }

    fn ask_reload(&mut self, server: Option<Server>) -> Checked {
        let request = u64::try_from(self.requests.len()).unwrap_or(u64::MAX);
        self.requests.insert(request, None);
        if self.is_running() {
            self.wanted_server = server.or(self.wanted_server);
        }
        self.tell(Event::Reload { request: Some(request), server, workers: 0 })
    }

    /// Counts the workers that are to be counted, some of which may not be ready yet.
    pub(super) fn count(&mut self, still_starting: u32) -> Checked {
        for generation in self.state.counted() {
            let Some(alive) = self.processes.get(&generation).map(|it| it.workers) else { continue };
            let workers = Headcount { alive, accepting: alive.saturating_sub(still_starting) };
            self.tell(Event::Counted { generation, workers })?;
        }
        Ok(())
    }

    pub(super) fn pass_to_deadline(&mut self) -> Checked {
        let wait = self.state.next_deadline().map(|at| at.saturating_duration_since(self.now));
        self.pass(wait.unwrap_or_default())
    }

    /// An event that is not possible now, or has no meaning.
    fn out_of_place(&mut self, which: Pick, what: OutOfPlace) -> Checked {
        let unknown = GenerationId(9999);
        let not =
            |is_meant: fn(&Generation) -> bool| self.pick_generation(which, |it| !is_meant(it)).unwrap_or(unknown);
        let is_spawning = |it: &Generation| it.main == Main::Spawning;
        let may_fail = Generation::may_fail_to_start;
        let workers = Headcount { alive: 1, accepting: 1 };
        let event = match what {
            OutOfPlace::Spawned => Event::Spawned { generation: not(is_spawning), pid: Self::pid(unknown) },
            OutOfPlace::SpawnFailed => {
                let failure = SpawnFailure::Refused;
                Event::SpawnFailed { generation: not(may_fail), failure, why: "late".into() }
            }
            OutOfPlace::Ready => Event::Ready { generation: not(Generation::is_starting) },
            OutOfPlace::Exited => {
                Event::Exited { pid: Pid::from_raw(7), outcome: Outcome::Exited(3), survivors: false }
            }
            OutOfPlace::Empty => Event::GenerationEmpty { generation: not(|it| it.main == Main::Gone) },
            OutOfPlace::Planned if self.is_planning() => return Ok(()),
            OutOfPlace::Planned => Event::Planned(Err("late".into())),
            OutOfPlace::Measured if self.state.measuring => return Ok(()),
            OutOfPlace::Measured => Event::Measured { room: Room::Whole, workers: Some(1) },
            OutOfPlace::Counted => {
                let counted = self.state.counted();
                let generation = self.pick_generation(which, |it| !counted.contains(&it.id)).unwrap_or(unknown);
                Event::Counted { generation, workers }
            }
            OutOfPlace::Presence => {
                let has_workers = |it: &Generation| it.is_serving() || it.is_starting();
                Event::Workers { generation: not(has_workers), presence: Presence::Lost }
            }
            OutOfPlace::Leaving if !self.is_running() => return Ok(()),
            OutOfPlace::Leaving => {
                let is_lingering = |it: &Generation| matches!(it.stage, Stage::Lingering { .. });
                Event::Leaving { generation: not(is_lingering), streams: 1, spread: Duration::from_secs(9) }
            }
            OutOfPlace::FailureReported => Event::FailureReported { generation: unknown, why: "late".into() },
            OutOfPlace::Time => Event::Tick,
        };
        if self.exit.is_some() { Ok(()) } else { self.tell_without_effect(&event) }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.phase, Phase::Running)
    }

    fn is_planning(&self) -> bool {
        self.state.reload.as_ref().is_some_and(|reload| matches!(reload.stage, ReloadStage::Planning))
    }

    fn about(&mut self, generation: Option<GenerationId>, event: impl Fn(GenerationId) -> Event) -> Checked {
        generation.map_or(Ok(()), |generation| self.tell(event(generation)))
    }

    fn with_processes(&mut self, id: Option<GenerationId>, change: impl FnOnce(&mut Processes)) -> Checked {
        let Some(processes) = id.and_then(|id| self.processes.get_mut(&id)) else { return Ok(()) };
        change(processes);
        self.tell(Event::Tick)
    }

    fn pick_generation(&self, which: Pick, is_meant: impl Fn(&Generation) -> bool) -> Option<GenerationId> {
        let meant = self.state.generations().iter().filter(|it| is_meant(it));
        pick(which, &meant.map(|it| it.id).collect::<Vec<_>>())
    }

    fn pick_processes(&self, which: Pick, is_meant: impl Fn(&Processes) -> bool) -> Option<GenerationId> {
        let meant = self
            .processes
            .iter()
            .filter(|(_, it)| is_meant(it) && (it.workers > 0 || it.main == MainProcess::Running));
        pick(which, &meant.map(|(id, _)| *id).collect::<Vec<_>>())
    }
}

fn pick(which: Pick, from: &[GenerationId]) -> Option<GenerationId> {
    (!from.is_empty()).then(|| from[which.index(from.len())])
}

impl Processes {
    pub(super) fn main_dies(&mut self, outcome: Outcome, workers: Workers) {
        self.main = MainProcess::Ended(outcome);
        if workers == Workers::Die {
            self.workers = 0;
        }
    }
}
