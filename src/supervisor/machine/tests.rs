use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use proptest::prelude::*;

use super::State;
use super::action::Action;
use super::event::Event;
use super::generation::{Main, Stage, Startup};
use super::memory_budget::{Room, Shortage, Size};
use super::note::Note;
use super::outcome::{Outcome, SpawnFailure};
use super::plan_facts::PlanFacts;
use super::replacement::Headcount;
use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::settings::value::Restart;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn policy() -> Policy {
    Policy {
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

fn facts(id: u32, policy: Policy) -> PlanFacts {
    PlanFacts {
        id: PlanId(id),
        policy,
        boot_statuses: vec![1, 3, 4],
        proven: false,
        workers: 3,
        resizable: true,
        shareable: true,
        choice: super::plan_facts::Choice::default(),
    }
}

fn granian(id: u32, policy: Policy) -> PlanFacts {
    PlanFacts { resizable: false, shareable: false, ..facts(id, policy) }
}

fn shortage() -> Shortage {
    let size = Size { whole: 280 << 20, one_worker: 100 << 20 };
    Shortage { limit: 512 << 20, used: 300 << 20, size }
}

/// Drives a state machine as the loop would, with pids of its own making.
struct Run {
    state: State,
    now: Instant,
    start: Instant,
    log: Vec<Action>,
    next_plan: u32,
    policy: Policy,
    plan: fn(u32, Policy) -> PlanFacts,
    room: Room,
    /// The workers of each generation, as its server keeps to what it is told.
    workers: BTreeMap<GenerationId, u32>,
}

impl Run {
    fn new(policy: Policy) -> Self {
        Self::with(facts, policy)
    }

    fn with(plan: fn(u32, Policy) -> PlanFacts, policy: Policy) -> Self {
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
            workers: BTreeMap::new(),
        };
        run.tell(Event::Tick);
        run
    }

    fn pid(generation: GenerationId) -> Pid {
        Pid::from_raw(1000 + generation.0.cast_signed())
    }

    /// Feeds an event and carries out what starts processes, as the loop does, at once.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.state.step(event, self.now);
        let mut all = actions.clone();
        for action in actions {
            match action {
                Action::Spawn { generation, startup, .. } => {
                    self.workers.insert(generation, if startup == Startup::Full { 3 } else { 1 });
                    all.extend(self.tell(Event::Spawned { generation, pid: Self::pid(generation) }));
                }
                Action::Replan { .. } => {
                    let plan = (self.plan)(self.next_plan, self.policy.clone());
                    self.next_plan += 1;
                    all.extend(self.tell(Event::Planned(Ok(plan))));
                }
                Action::Measure { generation } => {
                    let event = self.measured(generation);
                    all.extend(self.tell(event));
                }
                other => {
                    self.obey(&other);
                    self.log.push(other);
                }
            }
        }
        all
    }

    fn measured(&self, generation: GenerationId) -> Event {
        Event::Measured { room: self.room, workers: self.workers.get(&generation).copied() }
    }

    fn obey(&mut self, action: &Action) {
        let Action::Signal { generation, signal } = action else { return };
        let Some(workers) = self.workers.get_mut(generation) else { return };
        match signal {
            Signal::SIGTTIN => *workers += 1,
            Signal::SIGTTOU => *workers = (*workers - 1).max(1),
            _ => {}
        }
    }

    /// Tells how many workers there are where that matters; all of them are ready.
    fn count(&mut self) -> Vec<Action> {
        let counted = self.state.counted();
        let events: Vec<Event> = counted.into_iter().filter_map(|generation| self.counted(generation)).collect();
        events.into_iter().flat_map(|event| self.tell(event)).collect()
    }

    fn counted(&self, generation: GenerationId) -> Option<Event> {
        let count = *self.workers.get(&generation)?;
        Some(Event::Counted { generation, workers: Headcount { alive: count, accepting: count } })
    }

    /// The workers that serve, in all.
    fn capacity(&self) -> u32 {
        let serving = self.state.generations().iter().filter(|generation| generation.is_serving());
        serving.filter_map(|generation| self.workers.get(&generation.id)).sum()
    }

    fn exited(&mut self, generation: u32, outcome: Outcome, survivors: bool) -> Vec<Action> {
        self.tell(Event::Exited { pid: Self::pid(GenerationId(generation)), outcome, survivors })
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.tell(Event::Tick)
    }

    fn reload(&mut self, request: u64) -> Vec<Action> {
        self.tell(Event::Reload { request: Some(request), server: None, workers: 0 })
    }

    fn exit_status(&self) -> Option<u8> {
        self.log.iter().find_map(|action| if let Action::Exit(status) = action { Some(*status) } else { None })
    }
}

/// What comes before a TERM while this generation serves.
fn prepare(staying: u32) -> Action {
    Action::PrepareLeave { staying: GenerationId(staying) }
}

fn term(generation: u32) -> Action {
    Action::Signal { generation: GenerationId(generation), signal: Signal::SIGTERM }
}

#[test]
fn a_newcomer_is_on_trial_beside_one_that_serves_until_it_is_ready() {
    let mut run = Run::new(policy());
    assert!(run.state.serving().is_none());
    let actions = run.tell(Event::Ready { generation: GenerationId(1) });
    assert!(actions.contains(&Action::EndTrial { generation: GenerationId(1) }), "{actions:?}");
    let on_trial = |action: &Action| matches!(action, Action::Spawn { on_trial: true, .. });
    assert!(run.reload(5).iter().any(on_trial));
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    assert!(actions.contains(&Action::EndTrial { generation: GenerationId(2) }), "{actions:?}");
}

fn spawned(actions: &[Action]) -> Vec<u32> {
    let spawn =
        |action: &Action| if let Action::Spawn { generation, .. } = action { Some(generation.0) } else { None };
    actions.iter().filter_map(spawn).collect()
}

fn serving(policy: Policy) -> Run {
    let mut run = Run::new(policy);
    run.tell(Event::Ready { generation: GenerationId(1) });
    assert!(run.state.is_ready());
    run
}

#[test]
fn a_healthy_server_that_dies_is_respawned_at_once() {
    let mut run = serving(policy());
    run.now += SECOND * 100;
    assert_eq!(spawned(&run.exited(1, Outcome::Signaled(9), false)), [2]);
}

#[test]
fn a_plan_that_cannot_boot_ends_with_the_servers_status() {
    let mut run = Run::new(policy());
    run.exited(1, Outcome::Exited(3), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(3));
}

#[test]
fn a_plan_that_was_ready_once_backs_off_when_it_cannot_boot() {
    let mut run = serving(policy());
    assert_eq!(spawned(&run.exited(1, Outcome::Exited(1), false)), [2]);
    assert_eq!(spawned(&run.exited(2, Outcome::Exited(3), false)), [0; 0]);
    assert_eq!(spawned(&run.wait(SECOND)), [3]);
    assert_eq!(run.exit_status(), None);
}

#[test]
fn a_server_that_is_never_ready_is_a_failed_start() {
    let mut run = Run::new(policy());
    let actions = run.wait(SECOND * 120);
    assert!(
        actions.contains(&Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }),
        "{actions:?}"
    );
    run.exited(1, Outcome::Signaled(15), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(69));
}

#[test]
fn a_server_that_ends_at_once_without_an_error_has_failed() {
    let mut run = Run::new(policy());
    run.exited(1, Outcome::Exited(0), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(69));
}

#[test]
fn too_many_failures_end_with_the_last_status() {
    let mut run = serving(policy());
    for generation in 1..=6 {
        run.tell(Event::Ready { generation: GenerationId(generation) });
        run.exited(generation, Outcome::Exited(7), false);
        run.wait(SECOND * 31);
    }
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(7));
}

#[test]
fn workers_that_outlive_their_main_process_serve_until_the_replacement_is_ready() {
    let mut run = serving(policy());
    assert_eq!(spawned(&run.exited(1, Outcome::Signaled(9), true)), [2]);
    assert!(run.state.is_ready(), "the survivors still serve");
    run.tell(Event::Ready { generation: GenerationId(2) });
    let actions = run.wait(SECOND);
    assert!(
        actions.contains(&Action::SignalRest { generation: GenerationId(1), signal: Signal::SIGTERM }),
        "{actions:?}"
    );
    run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
    assert_eq!(run.state.generations().len(), 1);
}

#[test]
fn a_reload_retires_the_old_generation_only_when_the_new_one_is_ready() {
    let mut run = serving(policy());
    let actions = run.reload(5);
    assert_eq!(spawned(&actions), [2]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal { .. })));
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    assert!(actions.contains(&Action::Steer { generation: GenerationId(2) }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal { .. })), "who is connected may ask");
    assert!(!actions.iter().any(|action| matches!(action, Action::Reply { .. })), "it has to prove itself");
    let done = Action::Reply { request: 5, result: Ok(GenerationId(2)) };
    assert_eq!(run.wait(SECOND), [prepare(2), term(1), done]);
}

#[test]
fn a_generation_whose_only_worker_is_past_a_limit_is_handed_over_to_one_of_the_same_plan() {
    let mut run = serving(policy());
    let actions = run.tell(Event::Renew);
    assert!(
        actions.iter().any(|it| matches!(it, Action::Spawn { generation: GenerationId(2), plan: PlanId(0), .. })),
        "{actions:?}"
    );
    assert_eq!(spawned(&run.tell(Event::Renew)), [0; 0], "once");
    run.exited(2, Outcome::Exited(1), false);
    assert_eq!(run.state.serving().unwrap().id.0, 1, "a boot that fails takes nobody down");
    run.tell(Event::Renew);
    run.tell(Event::Ready { generation: GenerationId(3) });
    assert_eq!(run.wait(SECOND), [prepare(3), term(1)]);
}

#[test]
fn a_broken_release_is_discarded_and_the_old_one_serves_on() {
    let mut run = serving(policy());
    run.reload(5);
    let actions = run.exited(2, Outcome::Exited(3), false);
    assert!(matches!(&actions[..], [.., Action::Reply { request: 5, result: Err(_) }]), "{actions:?}");
    assert!(run.state.is_ready());
    assert_eq!(run.state.serving().unwrap().id.0, 1);
    run.wait(SECOND * 1000);
    assert_eq!(run.state.generations().len(), 1);
}

#[test]
fn reloads_during_a_reload_become_one_more() {
    let mut run = serving(policy());
    run.reload(1);
    run.reload(2);
    run.reload(3);
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    assert_eq!(spawned(&actions), [0; 0], "the old generation is still leaving");
    run.wait(SECOND);
    let actions = run.exited(1, Outcome::Exited(0), false);
    assert_eq!(spawned(&actions), [3]);
    run.tell(Event::Ready { generation: GenerationId(3) });
    let actions = run.wait(SECOND);
    let replies = actions.iter().filter(|action| matches!(action, Action::Reply { result: Ok(GenerationId(3)), .. }));
    assert_eq!(replies.count(), 2);
}

#[test]
fn a_release_that_dies_within_a_second_of_being_ready_is_a_failed_reload_and_the_old_one_is_taken_back() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.now += SECOND / 10;
    let actions = run.exited(2, Outcome::Exited(3), false);
    assert!(actions.contains(&Action::Steer { generation: GenerationId(1) }), "{actions:?}");
    assert!(actions.iter().any(|action| matches!(action, Action::Reply { request: 5, result: Err(_) })));
    run.wait(SECOND * 1000);
    assert_eq!((run.state.serving().unwrap().id, run.state.generations().len()), (GenerationId(1), 1));
    assert_eq!(signals(&run.log, 1, Signal::SIGTERM), 0);
}

#[test]
fn a_release_that_dies_while_the_old_one_drains_is_a_failed_reload_and_the_old_plan_is_started_again() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.exited(2, Outcome::Exited(3), false);
    assert!(run.log.iter().any(|action| matches!(action, Action::Log(Note::ReloadFailed { .. }))), "{:?}", run.log);
    let actions = run.exited(1, Outcome::Exited(0), false);
    let plans = actions.iter().find_map(|action| match action {
        Action::Spawn { plan, .. } => Some(*plan),
        _ => None,
    });
    let started = plans.or_else(|| run.state.generations().last().map(|generation| generation.plan));
    assert_eq!(started, Some(PlanId(0)));
}

#[test]
fn survivors_are_kept_for_as_long_as_they_serve_however_often_their_successor_fails() {
    let mut run = serving(policy());
    run.exited(1, Outcome::Signaled(9), true);
    for _ in 0..40 {
        let newest = run.state.generations().last().unwrap().id;
        if newest != GenerationId(1) {
            run.exited(newest.0, Outcome::Exited(1), false);
        }
        assert!(run.state.is_ready() && !run.state.is_ending(), "{:?}", run.log);
        run.wait(SECOND * 31);
    }
    let kept = run.log.iter().filter(|action| matches!(action, Action::Log(Note::SurvivorsServe { .. })));
    assert!(kept.count() > 0);
}

#[test]
fn two_generations_that_the_kernel_holds_are_both_abandoned() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.tell(Event::Workers { generation: GenerationId(2), presence: super::event::Presence::Lost });
    assert_eq!(run.state.generations().iter().filter(|found| found.id.0 <= 2).count(), 2);
    run.now += SECOND * 100;
    run.state.step(Event::Tick, run.now);
    assert_eq!(run.state.generations().iter().filter(|found| found.id.0 <= 2).count(), 0);
}

#[test]
fn a_generation_without_workers_has_failed_and_one_that_is_silent_is_only_not_ready() {
    use super::event::Presence;
    let mut run = serving(policy());
    let tell = |run: &mut Run, presence| run.tell(Event::Workers { generation: GenerationId(1), presence });
    tell(&mut run, Presence::Silent);
    assert!(!run.state.is_ready());
    tell(&mut run, Presence::Answering);
    assert!(run.state.is_ready());
    let actions = tell(&mut run, Presence::Lost);
    assert_eq!(spawned(&actions), [2]);
    assert!(actions.contains(&Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }));
}

#[test]
fn what_was_chosen_with_a_failed_reload_is_not_chosen_for_the_next() {
    use super::plan_facts::Choice;
    use crate::settings::value::Server;
    let mut run = serving(policy());
    let choice = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Replan { choice, .. } => Some(*choice),
            _ => None,
        })
    };
    let asked = run.tell(Event::Reload { request: Some(1), server: Some(Server::Granian), workers: 0 });
    assert_eq!(choice(&asked).and_then(|choice| choice.server), Some(Server::Granian));
    run.exited(2, Outcome::Exited(1), false);
    assert_eq!(choice(&run.reload(2)), Some(Choice::default()));
}

#[test]
fn a_refusal_that_lasts_is_no_lack_of_room() {
    let mut run = Run::new(policy());
    run.state.step(
        Event::Exited { pid: Run::pid(GenerationId(1)), outcome: Outcome::Exited(9), survivors: false },
        run.now,
    );
    run.now = run.state.next_deadline().unwrap();
    let id = GenerationId(spawned(&run.state.step(Event::Tick, run.now))[0]);
    let failure = SpawnFailure::Refused;
    let actions = run.tell(Event::SpawnFailed { generation: id, failure, why: "setsockopt: EPERM".into() });
    assert!(
        actions.iter().any(|action| matches!(action, Action::Log(Note::GivingUp { status: 126, .. }))),
        "{actions:?}"
    );
}

#[test]
fn a_stop_serves_on_for_the_delay_and_is_not_ready_meanwhile() {
    let mut run = serving(Policy { stop_delay: SECOND * 5, ..policy() });
    let actions = run.tell(Event::Stop);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal { .. })));
    assert!(!run.state.is_ready());
    let actions = run.wait(SECOND * 5);
    assert_eq!(actions, [Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }]);
    run.exited(1, Outcome::Exited(0), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(0));
}

#[test]
fn a_second_stop_signal_skips_the_waiting() {
    let mut run = serving(policy());
    run.tell(Event::Stop);
    run.now += SECOND;
    let actions = run.tell(Event::Stop);
    assert!(actions.contains(&Action::KillAll), "{actions:?}");
    run.exited(1, Outcome::Signaled(9), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(143));
}

#[test]
fn a_server_that_ends_of_itself_during_the_delay_gives_the_status() {
    let mut run = serving(Policy { stop_delay: SECOND * 5, ..policy() });
    run.tell(Event::Stop);
    run.exited(1, Outcome::Exited(5), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(5));
}

#[test]
fn a_quick_end_is_polite_first_and_short() {
    let mut run = serving(policy());
    let actions = run.tell(Event::Quit);
    assert!(
        actions.contains(&Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }),
        "{actions:?}"
    );
    assert!(run.wait(SECOND * 2).contains(&Action::KillAll));
}

#[test]
fn a_server_that_our_signal_ended_stopped_cleanly() {
    let mut run = serving(policy());
    run.tell(Event::Stop);
    run.exited(1, Outcome::Signaled(15), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(0));
}

#[test]
fn a_stop_during_a_reload_stops_both_and_refuses_the_reload() {
    let mut run = serving(policy());
    run.reload(9);
    let actions = run.tell(Event::Stop);
    for generation in [1, 2] {
        assert!(
            actions.contains(&Action::Signal { generation: GenerationId(generation), signal: Signal::SIGTERM }),
            "{actions:?}"
        );
    }
    assert!(actions.iter().any(|action| matches!(action, Action::Reply { request: 9, result: Err(_) })));
}

#[test]
fn a_system_without_room_for_a_process_is_waited_for_and_not_counted() {
    let mut run = serving(policy());
    let mut actions = run.state.step(
        Event::Exited { pid: Run::pid(GenerationId(1)), outcome: Outcome::Signaled(9), survivors: false },
        run.now,
    );
    for _ in 0..50 {
        let generation = spawned(&actions)[0];
        run.state.step(
            Event::SpawnFailed {
                generation: GenerationId(generation),
                failure: SpawnFailure::NoRoom,
                why: String::new(),
            },
            run.now,
        );
        run.now = run.state.next_deadline().expect("another attempt");
        actions = run.state.step(Event::Tick, run.now);
    }
    assert_eq!(run.exit_status(), None);
}

/// A serving generation of three workers, and no room for another one of the kind.
fn short_of_memory(plan: fn(u32, Policy) -> PlanFacts, room: Room) -> Run {
    let mut run = Run::with(plan, policy());
    run.tell(Event::Ready { generation: GenerationId(1) });
    run.room = room;
    run
}

const ONE_WORKER: fn() -> Room = || Room::OneWorker(shortage());

fn signals(log: &[Action], generation: u32, signal: Signal) -> usize {
    log.iter().filter(|action| **action == Action::Signal { generation: GenerationId(generation), signal }).count()
}

/// Steps until nothing is left to be done, in which `look` is called after each.
fn step_to_the_end(run: &mut Run, mut look: impl FnMut(&Run)) {
    while !run.state.counted().is_empty() {
        while !run.count().is_empty() {
            look(run);
        }
        if let Some(at) = run.state.next_deadline().filter(|_| !run.state.counted().is_empty()) {
            run.now = at;
            run.tell(Event::Tick);
            look(run);
        }
        if run.log.contains(&Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }) {
            run.exited(1, Outcome::Exited(0), false);
        }
    }
}

#[test]
fn without_room_gunicorn_is_replaced_worker_by_worker() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    let actions = run.reload(5);
    assert!(actions.contains(&Action::Log(Note::ShortOfMemory { shortage: shortage(), stepwise: true })));
    assert!(actions.iter().any(|action| matches!(action, Action::Spawn { startup: Startup::OneWorker, .. })));
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    assert_eq!(actions.last(), Some(&Action::Steer { generation: GenerationId(2) }));
    let begun = run.now;
    step_to_the_end(&mut run, |run| assert!((3..=4).contains(&run.capacity()), "{:?}", run.log));
    assert!(run.now - begun < SECOND * 5, "nobody was waited for");
    assert_eq!(signals(&run.log, 1, Signal::SIGTTOU), 2);
    assert_eq!(signals(&run.log, 2, Signal::SIGTTIN), 2);
    assert!(run.log.contains(&Action::Share { parts: [(GenerationId(1), 2), (GenerationId(2), 1)] }));
    assert!(run.log.contains(&Action::Share { parts: [(GenerationId(1), 1), (GenerationId(2), 2)] }));
    assert!(run.log.contains(&Action::Reply { request: 5, result: Ok(GenerationId(2)) }));
    assert!(run.log.contains(&Action::Log(Note::Complete { generation: GenerationId(2), workers: 3 })));
    assert_eq!((run.state.generations().len(), run.capacity()), (1, 3));
    assert!(spawned(&run.wait(SECOND * 1000)).is_empty());
}

#[test]
fn a_release_that_fails_with_one_worker_has_taken_nothing() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.reload(5);
    let actions = run.exited(2, Outcome::Signaled(9), false);
    assert!(matches!(&actions[..], [.., Action::Reply { request: 5, result: Err(_) }]), "{actions:?}");
    run.wait(SECOND * 1000);
    assert_eq!(signals(&run.log, 1, Signal::SIGTTOU), 0);
    assert_eq!((run.state.serving().unwrap().id, run.state.generations().len()), (GenerationId(1), 1));
}

#[test]
fn a_release_that_fails_half_way_gives_back_what_it_took() {
    for failing_at in 0..8 {
        let mut run = short_of_memory(facts, ONE_WORKER());
        run.reload(5);
        run.tell(Event::Ready { generation: GenerationId(2) });
        for _ in 0..failing_at {
            if run.count().is_empty() {
                run.now = run.state.next_deadline().unwrap_or(run.now);
                run.tell(Event::Tick);
            }
        }
        if run.log.contains(&Action::Reply { request: 5, result: Ok(GenerationId(2)) }) {
            break;
        }
        run.exited(2, Outcome::Exited(3), false);
        assert!(run.log.contains(&Action::Steer { generation: GenerationId(1) }));
        step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
        assert_eq!(
            (run.state.serving().unwrap().id, run.capacity()),
            (GenerationId(1), 3),
            "failing at {failing_at}"
        );
        assert!(run.log.iter().any(|action| matches!(action, Action::Reply { request: 5, result: Err(_) })));
        // And it is no plan to fall back to.
        assert!(run.exited(1, Outcome::Signaled(9), false).contains(&Action::Spawn {
            generation: GenerationId(3),
            plan: PlanId(0),
            startup: Startup::Full,
            on_trial: false,
        }));
    }
}

#[test]
fn a_worker_that_does_not_come_ends_the_new_generation() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.tell(run.counted(GenerationId(1)).unwrap());
    assert_eq!(signals(&run.log, 2, Signal::SIGTTIN), 1);
    run.wait(policy().startup_timeout);
    assert!(run.log.iter().any(|action| matches!(action, Action::Reply { request: 5, result: Err(_) })));
    assert_eq!(signals(&run.log, 1, Signal::SIGTTIN), 0, "there is no room before the other is gone");
    run.wait(SECOND);
    run.exited(2, Outcome::Exited(0), false);
    run.count();
    assert_eq!((run.capacity(), signals(&run.log, 1, Signal::SIGTTIN)), (3, 1));
}

#[test]
fn when_the_old_main_process_dies_half_way_the_new_one_gets_all_the_workers() {
    for survivors in [false, true] {
        let mut run = short_of_memory(facts, ONE_WORKER());
        run.reload(5);
        run.tell(Event::Ready { generation: GenerationId(2) });
        run.wait(SECOND);
        run.exited(1, Outcome::Signaled(9), survivors);
        run.wait(SECOND);
        assert!(run.log.contains(&Action::Reply { request: 5, result: Ok(GenerationId(2)) }));
        run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
        step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
        assert_eq!((run.state.generations().len(), run.capacity()), (1, 3));
    }
}

#[test]
fn without_room_granian_is_replaced_by_one_worker_and_that_by_all() {
    let mut run = short_of_memory(granian, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    let actions = run.wait(SECOND);
    assert!(actions.contains(&Action::Reply { request: 5, result: Ok(GenerationId(2)) }));
    assert!(spawned(&actions).is_empty(), "the old one has not left its place yet");
    let actions = run.exited(1, Outcome::Exited(0), false);
    assert!(
        actions.contains(&Action::Spawn {
            generation: GenerationId(3),
            plan: PlanId(1),
            startup: Startup::Full,
            on_trial: true
        }),
        "{actions:?}"
    );
    run.tell(Event::Ready { generation: GenerationId(3) });
    run.wait(SECOND);
    run.exited(2, Outcome::Exited(0), false);
    assert_eq!((run.capacity(), run.state.generations().len()), (3, 1));
    assert!(spawned(&run.wait(SECOND * 1000)).is_empty());
}

#[test]
fn one_worker_serves_on_while_the_full_generation_cannot_start_and_it_is_tried_again() {
    let mut run = short_of_memory(granian, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.exited(1, Outcome::Exited(0), false);
    for generation in 3..30 {
        run.exited(generation, Outcome::Exited(1), false);
        assert_eq!(run.state.serving().unwrap().id.0, 2);
        assert_eq!(spawned(&run.wait(SECOND * 31)), [generation + 1]);
    }
    run.tell(Event::Ready { generation: GenerationId(30) });
    assert_eq!(run.capacity(), 3);
}

#[test]
fn without_room_for_one_worker_a_reload_is_refused() {
    for plan in [facts, granian] {
        let mut run = short_of_memory(plan, Room::Nothing(shortage()));
        let actions = run.reload(5);
        assert!(spawned(&actions).is_empty());
        let why = actions.iter().find_map(|action| match action {
            Action::Reply { request: 5, result: Err(why) } => Some(why.as_str()),
            _ => None,
        });
        let numbers = "one worker, which needs about 100M: limit 512M, used 300M, by the old generation 280M";
        assert!(why.is_some_and(|why| why.contains(numbers)), "{actions:?}");
        assert!(run.state.is_ready());
        run.room = Room::Whole;
        assert_eq!(spawned(&run.reload(6)), [2]);
    }
}

#[test]
fn survivors_without_room_beside_them_are_replaced_by_one_worker_first() {
    for room in [ONE_WORKER(), Room::Nothing(shortage())] {
        let mut run = short_of_memory(facts, room);
        run.exited(1, Outcome::Signaled(9), true);
        run.tell(Event::Ready { generation: GenerationId(2) });
        assert_eq!(run.capacity(), 1);
        run.wait(SECOND);
        run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
        step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
        assert_eq!((run.capacity(), run.state.generations().len()), (3, 1));
    }
}

#[test]
fn a_stop_half_way_stops_both() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.reload(9);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    let actions = run.tell(Event::Stop);
    for generation in [1, 2] {
        assert!(
            actions.contains(&Action::Signal { generation: GenerationId(generation), signal: Signal::SIGTERM }),
            "{actions:?}"
        );
    }
    assert!(actions.iter().any(|action| matches!(action, Action::Reply { request: 9, result: Err(_) })));
    assert!(run.state.counted().is_empty());
}

#[test]
fn workers_asked_for_half_way_are_had_in_the_end() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    assert_eq!(run.tell(Event::Forward(Signal::SIGTTIN)), []);
    step_to_the_end(&mut run, |run| assert!(run.capacity() >= 3));
    assert_eq!(run.capacity(), 4);
}

#[derive(Debug, Clone)]
enum Fate {
    Stop,
    Quit,
    Reload,
    BadReload,
    Renew,
    Ready(u32),
    Exit(u32, u8, bool),
    Killed(u32, bool),
    GenerationEmpty(u32),
    Foreign,
    NoRoom,
    Memory(Room),
    Count,
    Adjust(bool),
    Wait(u64),
    ToDeadline,
}

/// Which of the generations there are: the numbers grow without bound, so they are counted from the last.
fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => Just(Fate::Stop),
        1 => Just(Fate::Quit),
        4 => Just(Fate::Reload),
        2 => Just(Fate::BadReload),
        1 => Just(Fate::Renew),
        8 => (0..2u32).prop_map(Fate::Ready),
        4 => (0..2u32, prop_oneof![Just(0u8), Just(1), Just(3), Just(77)], any::<bool>()).prop_map(|(g, s, l)| Fate::Exit(g, s, l)),
        4 => (0..2u32, any::<bool>()).prop_map(|(g, l)| Fate::Killed(g, l)),
        4 => (0..2u32).prop_map(Fate::GenerationEmpty),
        1 => Just(Fate::Foreign),
        1 => Just(Fate::NoRoom),
        2 => prop_oneof![Just(Room::Whole), Just(Room::OneWorker(shortage())), Just(Room::Nothing(shortage()))].prop_map(Fate::Memory),
        8 => Just(Fate::Count),
        1 => any::<bool>().prop_map(Fate::Adjust),
        4 => (0..200_000u64).prop_map(Fate::Wait),
        4 => Just(Fate::ToDeadline),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_a_promise(
        fates in prop::collection::vec(fate(), 1..60),
        delay in 0..10u64,
        restart in prop_oneof![Just(Restart::OnFailure), Just(Restart::Always), Just(Restart::No)],
        plan in prop_oneof![Just(facts as fn(u32, Policy) -> PlanFacts), Just(granian as _)],
    ) {
        let policy = Policy { stop_delay: Duration::from_secs(delay), restart, ..policy() };
        let budget = policy.stop_timeout;
        let mut run = Run::with(plan, policy);
        let mut stop_asked: Option<Instant> = None;
        let mut bad_reload = false;
        let (mut refuse, mut adjusted) = (0, false);
        for fate in fates {
            let nth = |back: u32| run.state.generations().iter().rev().nth(back as usize).map_or(u32::MAX - 2000, |g| g.id.0);
            let ready_before = run.state.is_ready();
            let (event, may_end_service) = match fate {
                Fate::Stop => { stop_asked.get_or_insert(run.now); (Event::Stop, true) }
                Fate::Quit => { stop_asked.get_or_insert(run.now); (Event::Quit, true) }
                Fate::Reload => (Event::Reload { request: None, server: None, workers: 0 }, false),
                Fate::Renew => (Event::Renew, false),
                Fate::BadReload => { bad_reload = true; (Event::Reload { request: None, server: None, workers: 0 }, false) }
                Fate::Ready(g) => (Event::Ready { generation: GenerationId(nth(g)) }, false),
                Fate::Exit(g, status, survivors) => (Event::Exited { pid: Run::pid(GenerationId(nth(g))), outcome: Outcome::Exited(status), survivors }, true),
                Fate::Killed(g, survivors) => (Event::Exited { pid: Run::pid(GenerationId(nth(g))), outcome: Outcome::Signaled(9), survivors }, true),
                Fate::GenerationEmpty(g) => (Event::GenerationEmpty { generation: GenerationId(nth(g)) }, true),
                Fate::Foreign => (Event::Exited { pid: Pid::from_raw(7), outcome: Outcome::Exited(3), survivors: false }, false),
                Fate::NoRoom => { refuse += 1; (Event::Tick, true) }
                Fate::Memory(room) => { run.room = room; (Event::Tick, true) }
                Fate::Count => (run.state.counted().first().and_then(|g| run.counted(*g)).unwrap_or(Event::Tick), false),
                Fate::Adjust(more) => { adjusted = true; (Event::Forward(if more { Signal::SIGTTIN } else { Signal::SIGTTOU }), false) }
                Fate::Wait(millis) => { run.now += Duration::from_millis(millis); (Event::Tick, true) }
                Fate::ToDeadline => { if let Some(at) = run.state.next_deadline() { run.now = run.now.max(at); } (Event::Tick, true) }
            };
            let mut queue = std::collections::VecDeque::from([event]);
            while let Some(event) = queue.pop_front() {
                let foreign = matches!(&event, Event::Exited { pid, .. } if pid.as_raw() == 7);
                let actions = run.state.step(event, run.now);
                if foreign {
                    let drastic = |a: &Action| matches!(a, Action::Exit(_) | Action::Kill { .. } | Action::KillAll);
                    prop_assert!(!actions.iter().any(drastic), "a foreign pid ended something");
                }
                for action in actions {
                    match action {
                        Action::Spawn { generation, startup, .. } => {
                            run.workers.insert(generation, if startup == Startup::Full { 3 } else { 1 });
                            prop_assert!(stop_asked.is_none(), "spawned after a stop was asked for");
                            prop_assert!(run.exit_status().is_none(), "spawned after the end");
                            if refuse > 0 { refuse -= 1; queue.push_back(Event::SpawnFailed { generation, failure: SpawnFailure::NoRoom, why: String::new() }); }
                            else { queue.push_back(Event::Spawned { generation, pid: Run::pid(generation) }); }
                        }
                        Action::Replan { .. } => {
                            let plan = if bad_reload { Err("bad".to_owned()) } else { Ok((run.plan)(run.next_plan, run.policy.clone())) };
                            bad_reload = false;
                            run.next_plan += 1;
                            queue.push_back(Event::Planned(plan));
                        }
                        Action::Measure { generation } => {
                            prop_assert!(stop_asked.is_none(), "measured for nothing");
                            queue.push_back(run.measured(generation));
                        }
                        Action::Signal { generation, signal: Signal::SIGTTOU } if run.workers.get(&generation) == Some(&1) && !adjusted => {
                            prop_assert!(false, "took the last worker of generation {generation}");
                        }
                        other => { run.obey(&other); run.log.push(other); }
                    }
                }
                prop_assert!(run.state.generations().len() <= 2, "more than two generations");
            }
            if ready_before && !may_end_service {
                prop_assert!(run.state.is_ready(), "stopped serving although nothing died and nobody asked");
            }
            // What is decided is decided once.
            let exits = run.log.iter().filter(|action| matches!(action, Action::Exit(_))).count();
            prop_assert!(exits <= 1, "exited twice");
            if run.exit_status().is_some() { return Ok(()); }
            // Idle means idle: a deadline in the past must have been acted upon.
            if let Some(at) = run.state.next_deadline() { prop_assert!(at > run.now, "a deadline was left behind"); }
            if run.state.generations().is_empty() && stop_asked.is_none() && !run.state.is_ending() {
                prop_assert!(run.state.next_deadline().is_some(), "nothing runs and nothing is planned");
            }
        }
        // However it stands, a stop ends within its budget, processes that never die included.
        let stopped_at = stop_asked.unwrap_or(run.now);
        if stop_asked.is_none() { run.tell(Event::Stop); }
        while run.exit_status().is_none() {
            let Some(at) = run.state.next_deadline() else { panic!("stuck in {:?}", run.state) };
            run.now = run.now.max(at);
            let actions = run.tell(Event::Tick);
            if actions.contains(&Action::KillAll) {
                prop_assert!(run.now <= stopped_at.max(run.start) + budget + budget, "killed too late");
                run.tell(Event::NoChildren);
            }
        }
    }

    /// Only newcomers fail here: what serves is never lost, and in the end it is whole.
    #[test]
    fn short_of_memory_all_workers_serve_in_the_end(
        fates in prop::collection::vec(prop_oneof![
            3 => Just(Fate::Reload),
            1 => Just(Fate::BadReload),
            3 => Just(Fate::Ready(0)),
            2 => (Just(0u32), prop_oneof![Just(1u8), Just(3)], any::<bool>()).prop_map(|(g, s, l)| Fate::Exit(g, s, l)),
            8 => Just(Fate::Count),
            1 => prop_oneof![Just(Room::Whole), Just(Room::Nothing(shortage()))].prop_map(Fate::Memory),
            3 => Just(Room::OneWorker(shortage())).prop_map(Fate::Memory),
            6 => Just(Fate::ToDeadline),
        ], 1..60),
        plan in prop_oneof![Just(facts as fn(u32, Policy) -> PlanFacts), Just(granian as _)],
    ) {
        let mut run = short_of_memory(plan, Room::OneWorker(shortage()));
        for fate in fates {
            // The last of two; a generation that serves alone does not fail.
            let last = run.state.generations().last().filter(|last| last.id != run.state.serving().unwrap().id).map(|last| last.id);
            match (fate, last) {
                (Fate::Reload | Fate::BadReload, _) => { run.reload(1); }
                (Fate::Ready(_), Some(last)) => { run.tell(Event::Ready { generation: last }); }
                (Fate::Exit(_, status, survivors), Some(last)) => {
                    run.exited(last.0, Outcome::Exited(status), survivors);
                    if survivors { run.tell(Event::GenerationEmpty { generation: last }); }
                }
                (Fate::Count, _) => { run.count(); }
                (Fate::Memory(room), _) => run.room = room,
                (Fate::ToDeadline, _) => { if let Some(at) = run.state.next_deadline() { run.now = at; run.tell(Event::Tick); } }
                _ => {}
            }
            prop_assert!(run.state.is_ready() && run.capacity() >= 1, "{:?}", run.log);
            prop_assert!(run.state.generations().len() <= 2);
        }
        for _ in 0..200 {
            let starting = run.state.generations().iter().find(|g| g.is_starting()).map(|g| g.id);
            if let Some(generation) = starting { run.tell(Event::Ready { generation }); }
            let leaving = run.state.generations().iter().find(|g| matches!(g.stage, Stage::Leaving(_))).map(|g| (g.id, g.main));
            match leaving {
                Some((generation, Main::Gone)) => { run.tell(Event::GenerationEmpty { generation }); }
                Some((generation, _)) => { run.exited(generation.0, Outcome::Exited(0), false); }
                None => {}
            }
            while !run.count().is_empty() {}
            if let Some(at) = run.state.next_deadline() { run.now = run.now.max(at); run.tell(Event::Tick); }
        }
        prop_assert_eq!((run.state.generations().len(), run.capacity(), run.state.next_deadline()), (1, 3, None), "{:?}", run.log);
    }

    #[test]
    fn the_order_of_two_signals_in_a_batch_means_nothing(ready in any::<bool>()) {
        let end = |events: [Event; 2]| {
            let mut run = if ready { serving(policy()) } else { Run::new(policy()) };
            for event in events { run.tell(event); }
            let stages: Vec<_> = run.state.generations().iter().map(|g| (matches!(g.main, Main::Alive(_)), matches!(g.stage, Stage::Leaving(_)))).collect();
            (run.state.is_ending(), stages.into_iter().any(|(alive, _)| alive))
        };
        let reload = Event::Reload { request: None, server: None, workers: 0 };
        prop_assert_eq!(end([Event::Stop, reload.clone()]), end([reload, Event::Stop]));
    }
}
