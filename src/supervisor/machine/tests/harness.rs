//! Drives a state machine in tests, as the loop would.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::settings::value::Restart;
use crate::supervisor::machine::State;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::disconnecting::{Occasion, spread};
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::Startup;
use crate::supervisor::machine::memory_budget::{Room, Shortage, Size};
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};
use crate::supervisor::machine::plan_facts::{Choice, PlanFacts};
use crate::supervisor::machine::worker_moves::Headcount;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn policy() -> Policy {
    Policy {
        max_requests: None,
        limits_requests: false,
        restart: Restart::OnFailure,
        restart_limit: 5,
        restart_window: SECOND * 600,
        backoff_initial: SECOND / 2,
        backoff_max: SECOND * 30,
        stop_delay: Duration::ZERO,
        stop_timeout: SECOND * 25,
        startup_timeout: SECOND * 120,
        worker_timeout: None,
        workers_max_rss: None,
        workers_lifetime: None,
        health_path: "/health".into(),
        backlog: 2048,
        tls_is_guessed: false,
    }
}

pub(super) fn facts(id: u32, policy: Policy) -> PlanFacts {
    PlanFacts {
        id: PlanId(id),
        policy,
        boot_statuses: vec![1, 3, 4],
        proven: false,
        workers: 3,
        resizable: true,
        shareable: true,
        choice: Choice::default(),
    }
}

pub(super) fn granian(id: u32, policy: Policy) -> PlanFacts {
    PlanFacts { resizable: false, shareable: false, ..facts(id, policy) }
}

pub(super) fn shortage() -> Shortage {
    let size = Size { whole: 280 << 20, one_worker: 100 << 20 };
    Shortage { limit: 512 << 20, used: 300 << 20, size }
}

/// Drives a state machine as the loop would, with pids of its own making.
pub(super) struct Run {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) log: Vec<Action>,
    pub(super) next_plan: u32,
    pub(super) policy: Policy,
    pub(super) plan: fn(u32, Policy) -> PlanFacts,
    pub(super) room: Room,
    /// The streams that each generation has open.
    pub(super) streams: u32,
    /// Why no process can be started, if none can.
    pub(super) refusal: Option<SpawnFailure>,
    /// The workers of each generation, as its server maintains them.
    pub(super) workers: BTreeMap<GenerationId, u32>,
    /// How many workers more each plan was asked for.
    pub(super) replanned: Vec<i32>,
}

impl Run {
    pub(super) fn new(policy: Policy) -> Self {
        Self::with(facts, policy)
    }

    pub(super) fn with(plan: fn(u32, Policy) -> PlanFacts, policy: Policy) -> Self {
        Self::begin(plan, policy, None)
    }

    fn begin(plan: fn(u32, Policy) -> PlanFacts, policy: Policy, refusal: Option<SpawnFailure>) -> Self {
        let now = crate::test_time::start();
        let mut run = Self {
            state: State::new(plan(0, policy.clone()), 1, now),
            now,
            start: now,
            log: vec![],
            next_plan: 1,
            policy,
            plan,
            room: Room::Whole,
            streams: 0,
            refusal,
            workers: BTreeMap::new(),
            replanned: vec![],
        };
        run.tell(Event::Tick);
        run
    }

    /// A run in which the first start fails.
    pub(super) fn that_is_refused(policy: Policy, failure: SpawnFailure) -> Self {
        Self::begin(facts, policy, Some(failure))
    }

    pub(super) fn pid(generation: GenerationId) -> Pid {
        Pid::from_raw(1000 + generation.0.cast_signed())
    }

    /// Feeds an event and carries out what starts processes, as the loop does, at once.
    pub(super) fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.state.step(event, self.now);
        let mut all = actions.clone();
        for action in actions {
            match action {
                Action::Spawn { generation, startup, .. } => {
                    self.workers.insert(generation, if startup == Startup::Full { 3 } else { 1 });
                    let event = match self.refusal {
                        None => Event::Spawned { generation, pid: Self::pid(generation) },
                        Some(failure) => Event::SpawnFailed { generation, failure, why: "as it is".into() },
                    };
                    all.extend(self.tell(event));
                }
                Action::Replan { workers, .. } => {
                    self.replanned.push(workers);
                    let plan = (self.plan)(self.next_plan, self.policy.clone());
                    self.next_plan += 1;
                    all.extend(self.tell(Event::Planned(Ok(plan))));
                }
                Action::Measure { generation } => {
                    let event = self.measured(generation);
                    all.extend(self.tell(event));
                }
                Action::Retire { generation, within, occasion } => {
                    self.log.push(Action::Retire { generation, within, occasion });
                    all.extend(self.tell(self.left(generation, within, occasion)));
                }
                Action::RetireOldest { generation, within } => {
                    self.log.push(Action::RetireOldest { generation, within });
                    let (streams, spread) = (self.streams, spread(self.streams, within, Occasion::Handover));
                    all.extend(self.tell(Event::WorkerLeaving { generation, streams, spread }));
                }
                other => {
                    self.obey(&other);
                    self.log.push(other);
                }
            }
        }
        all
    }

    pub(super) fn measured(&self, generation: GenerationId) -> Event {
        Event::Measured { room: self.room, workers: self.workers.get(&generation).copied() }
    }

    /// The answer after the workers of a generation were asked to leave.
    pub(super) fn left(&self, generation: GenerationId, within: Duration, occasion: Occasion) -> Event {
        Event::Leaving { generation, streams: self.streams, spread: spread(self.streams, within, occasion) }
    }

    pub(super) fn obey(&mut self, action: &Action) {
        let Action::Signal { generation, signal } = action else { return };
        let Some(workers) = self.workers.get_mut(generation) else { return };
        match signal {
            Signal::SIGTTIN => *workers += 1,
            Signal::SIGTTOU => *workers = (*workers - 1).max(1),
            _ => {}
        }
    }

    /// Reports the number of workers where it matters; all of them are ready.
    pub(super) fn count(&mut self) -> Vec<Action> {
        let counted = self.state.counted();
        let events: Vec<Event> = counted.into_iter().filter_map(|generation| self.counted(generation)).collect();
        events.into_iter().flat_map(|event| self.tell(event)).collect()
    }

    pub(super) fn counted(&self, generation: GenerationId) -> Option<Event> {
        let count = *self.workers.get(&generation)?;
        Some(Event::Counted { generation, workers: Headcount { alive: count, accepting: count } })
    }

    /// The workers that serve, in all.
    pub(super) fn capacity(&self) -> u32 {
        let serving = self.state.generations().iter().filter(|generation| generation.is_serving());
        serving.filter_map(|generation| self.workers.get(&generation.id)).sum()
    }

    pub(super) fn exited(&mut self, generation: u32, outcome: Outcome, survivors: bool) -> Vec<Action> {
        self.tell(Event::Exited { pid: Self::pid(GenerationId(generation)), outcome, survivors })
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.tell(Event::Tick)
    }

    pub(super) fn reload(&mut self, request: u64) -> Vec<Action> {
        self.tell(Event::Reload { request: Some(request), server: None, workers: 0 })
    }

    pub(super) fn exit_status(&self) -> Option<u8> {
        self.log.iter().find_map(|action| if let Action::Exit(status) = action { Some(*status) } else { None })
    }
}

/// The actions before a TERM while this generation serves.
pub(super) fn prepare(staying: u32) -> Action {
    Action::PrepareLeave { staying: GenerationId(staying) }
}

pub(super) fn term(generation: u32) -> Action {
    Action::Signal { generation: GenerationId(generation), signal: Signal::SIGTERM }
}

pub(super) fn spawned(actions: &[Action]) -> Vec<u32> {
    let spawn =
        |action: &Action| if let Action::Spawn { generation, .. } = action { Some(generation.0) } else { None };
    actions.iter().filter_map(spawn).collect()
}

pub(super) fn serving(policy: Policy) -> Run {
    let mut run = Run::new(policy);
    run.tell(Event::Ready { generation: GenerationId(1) });
    assert!(run.state.is_ready());
    run
}

/// A serving generation of three workers, and no room for another one of the kind.
pub(super) fn short_of_memory(plan: fn(u32, Policy) -> PlanFacts, room: Room) -> Run {
    let mut run = Run::with(plan, policy());
    run.tell(Event::Ready { generation: GenerationId(1) });
    run.room = room;
    run
}

pub(super) const ONE_WORKER: fn() -> Room = || Room::OneWorker(shortage());

pub(super) fn signals(log: &[Action], generation: u32, signal: Signal) -> usize {
    log.iter().filter(|action| **action == Action::Signal { generation: GenerationId(generation), signal }).count()
}
