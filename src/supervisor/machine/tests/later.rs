//! Answers that come later than the request: a plan that takes time, and an exec that fails in the end.

use std::collections::{BTreeMap, VecDeque};

use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::harness::{ONE_WORKER, Run, SECOND, facts, granian, policy, serving, short_of_memory, signals, spawned};
use crate::ids::GenerationId;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::Main;
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};

const NOT_FOUND: SpawnFailure = SpawnFailure::Program(127);

fn reload(request: u64) -> Event {
    Event::Reload { request: Some(request), server: None, workers: 0 }
}

fn planned(run: &mut Run) -> Event {
    run.next_plan += 1;
    Event::Planned(Ok(facts(run.next_plan, run.policy.clone())))
}

fn exec_failed(generation: u32, failure: SpawnFailure) -> Event {
    Event::SpawnFailed { generation: GenerationId(generation), failure, why: "exec: as the test has it".into() }
}

/// One that serves, whose reload waits for its plan.
fn planning() -> Run {
    let mut run = serving(policy());
    let actions = run.state.step(reload(5), run.now);
    assert!(matches!(actions[..], [.., Action::Replan { .. }]), "{actions:?}");
    run
}

#[test]
fn a_stop_does_not_wait_for_a_plan_and_the_plan_that_comes_then_starts_nothing() {
    let mut run = planning();
    let stopped = run.tell(Event::Stop);
    assert!(stopped.iter().any(|it| matches!(it, Action::Reply { request: 5, result: Err(_) })), "{stopped:?}");
    let plan = planned(&mut run);
    assert_eq!(run.tell(plan), []);
    run.exited(1, Outcome::Exited(0), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(0));
}

#[test]
fn a_server_that_dies_while_a_plan_is_made_is_replaced_at_once_and_then_reloaded() {
    let mut run = planning();
    assert_eq!(spawned(&run.exited(1, Outcome::Signaled(9), false)), [2]);
    let plan = planned(&mut run);
    assert_eq!(spawned(&run.tell(plan)), [0; 0], "one newcomer at a time");
    assert_eq!(spawned(&run.tell(Event::Ready { generation: GenerationId(2) })), [3]);
    run.tell(Event::Ready { generation: GenerationId(3) });
    assert!(run.wait(SECOND).contains(&Action::Reply { request: 5, result: Ok(GenerationId(3)) }));
}

#[test]
fn reloads_while_a_plan_is_made_become_one_more() {
    let mut run = planning();
    let actions = run.tell(reload(6));
    assert_eq!(actions, [], "that plan may have been made from the old files");
    let plan = planned(&mut run);
    assert_eq!(spawned(&run.tell(plan)), [2]);
}

#[test]
fn a_first_start_whose_exec_fails_gives_up_with_its_status() {
    let mut run = Run::new(policy());
    run.tell(exec_failed(1, NOT_FOUND));
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(127));
}

#[test]
fn a_reload_whose_exec_fails_in_the_end_keeps_the_old_generation() {
    let mut run = serving(policy());
    run.reload(5);
    let actions = run.tell(exec_failed(2, NOT_FOUND));
    assert!(actions.iter().any(|it| matches!(it, Action::Reply { request: 5, result: Err(_) })), "{actions:?}");
    assert!(run.state.is_settled());
}

#[test]
fn an_exec_that_fails_after_a_stop_was_asked_for_is_the_end_of_a_clean_stop() {
    let mut run = Run::new(policy());
    run.tell(Event::Stop);
    run.tell(exec_failed(1, NOT_FOUND));
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(0));
}

#[test]
fn an_exec_that_fails_after_its_time_was_up_changes_nothing() {
    let mut run = serving(policy());
    run.reload(1);
    run.wait(policy().startup_timeout);
    let before = run.state.restarts(run.now);
    run.tell(exec_failed(2, SpawnFailure::Program(127)));
    assert_eq!((run.state.restarts(run.now), run.state.generations().len()), (before, 1));
    assert!(spawned(&run.wait(SECOND * 31)).is_empty());
}

#[test]
fn an_exec_that_fails_during_a_stop_is_not_tried_again_where_one_worker_serves() {
    let mut run = short_of_memory(granian, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    let gone = Event::Exited { pid: Run::pid(GenerationId(1)), outcome: Outcome::Exited(0), survivors: false };
    assert_eq!(spawned(&run.state.step(gone, run.now)), [3]);
    run.tell(Event::Stop);
    let actions = run.tell(exec_failed(3, NOT_FOUND));
    assert!(!actions.iter().any(|action| matches!(action, Action::Log(Note::StaysSmall { .. }))), "{actions:?}");
    assert!(spawned(&run.wait(SECOND * 31)).is_empty());
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Reload,
    Plan(bool),
    Stop,
    Ready,
    ExecFails(SpawnFailure),
    Killed(bool),
    ToDeadline,
}

fn fate() -> impl Strategy<Value = Fate> {
    let failure = prop_oneof![Just(NOT_FOUND), Just(SpawnFailure::NoRoom), Just(SpawnFailure::Refused)];
    prop_oneof![
        4 => Just(Fate::Reload),
        4 => any::<bool>().prop_map(Fate::Plan),
        1 => Just(Fate::Stop),
        6 => Just(Fate::Ready),
        2 => failure.prop_map(Fate::ExecFails),
        1 => any::<bool>().prop_map(Fate::Killed),
        4 => Just(Fate::ToDeadline),
    ]
}

/// Passes an event on, without making plans at once, and counts the replies.
fn tell(run: &mut Run, event: Event, plans: &mut usize, replies: &mut BTreeMap<u64, usize>) {
    let mut queue = VecDeque::from([event]);
    while let Some(event) = queue.pop_front() {
        for action in run.state.step(event, run.now) {
            match action {
                Action::Spawn { generation, .. } => {
                    queue.push_back(Event::Spawned { generation, pid: Run::pid(generation) });
                }
                Action::Replan { .. } => *plans += 1,
                Action::Measure { generation } => queue.push_back(run.measured(generation)),
                Action::Retire { generation, within, occasion } => {
                    queue.push_back(run.left(generation, within, occasion));
                }
                Action::Reply { request, .. } => *replies.entry(request).or_default() += 1,
                other => run.log.push(other),
            }
        }
    }
}

proptest! {
    #[test]
    fn each_reload_gets_exactly_one_reply_whenever_its_plan_comes(fates in prop::collection::vec(fate(), 1..60)) {
        let mut run = serving(policy());
        let (mut plans, mut replies, mut asked) = (0, BTreeMap::new(), 0);
        for fate in fates.into_iter().chain([Fate::Stop]) {
            let starting = run.state.generations().iter().find(|it| it.is_starting() && it.main != Main::Gone);
            let event = match (fate, starting.map(|it| it.id)) {
                (Fate::Reload, _) => { asked += 1; reload(asked) }
                (Fate::Plan(is_good), _) if plans > 0 => {
                    plans -= 1;
                    if is_good { planned(&mut run) } else { Event::Planned(Err("bad".into())) }
                }
                (Fate::Stop, _) => Event::Stop,
                (Fate::Ready, Some(generation)) => Event::Ready { generation },
                (Fate::ExecFails(failure), Some(generation)) => exec_failed(generation.0, failure),
                (Fate::Killed(survivors), _) => {
                    let serving = run.state.serving().map_or(GenerationId(0), |serving| serving.id);
                    Event::Exited { pid: Run::pid(serving), outcome: Outcome::Signaled(9), survivors }
                }
                (Fate::ToDeadline, _) => {
                    run.now = run.state.next_deadline().map_or(run.now, |at| run.now.max(at));
                    Event::Tick
                }
                _ => Event::Tick,
            };
            tell(&mut run, event, &mut plans, &mut replies);
            prop_assert!(plans <= 1, "two plans at once");
            prop_assert!(replies.values().all(|count| *count == 1), "answered twice: {replies:?}");
        }
        prop_assert_eq!(replies.len() as u64, asked, "{:?}", run.state);
        for _ in 0..1000 {
            if run.exit_status().is_some() { return Ok(()); }
            run.now = run.state.next_deadline().map_or(run.now, |at| run.now.max(at));
            tell(&mut run, Event::Tick, &mut plans, &mut replies);
        }
        prop_assert!(false, "it does not end: {:?}", run.state);
    }
}

#[test]
fn one_worker_fewer_is_told_first_and_ended_when_its_streams_are_closed() {
    let ttou = Action::Signal { generation: GenerationId(1), signal: Signal::SIGTTOU };
    let mut run = serving(policy());
    assert!(run.tell(Event::Forward(Signal::SIGTTOU)).contains(&ttou), "it has no streams");
    run.streams = 150;
    let actions = run.tell(Event::Forward(Signal::SIGTTOU));
    assert!(matches!(actions[..], [Action::RetireOldest { generation: GenerationId(1), .. }]), "{actions:?}");
    let due = run.state.next_deadline().unwrap();
    assert!(due - run.now >= SECOND * 3 / 2, "a hundred in a second");
    assert_eq!([1, 2].map(|generation| run.state.dismissed(GenerationId(generation))), [1, 0]);
    let wait = due - run.now;
    assert!(run.wait(wait).contains(&ttou));
    assert_eq!((run.state.next_deadline(), run.state.dismissed(GenerationId(1))), (None, 0));
}

#[test]
fn two_workers_fewer_end_each_when_its_own_streams_are_closed() {
    let mut run = serving(policy());
    run.streams = 150;
    run.tell(Event::Forward(Signal::SIGTTOU));
    let first = run.state.next_deadline().unwrap();
    run.now += SECOND / 2;
    run.tell(Event::Forward(Signal::SIGTTOU));
    assert_eq!((run.state.next_deadline(), run.state.dismissed(GenerationId(1))), (Some(first), 2));
    let wait = first - run.now;
    run.wait(wait);
    assert_eq!((signals(&run.log, 1, Signal::SIGTTOU), run.state.dismissed(GenerationId(1))), (1, 1));
    run.wait(SECOND / 2);
    assert_eq!(signals(&run.log, 1, Signal::SIGTTOU), 2);
}

#[test]
fn other_signals_and_those_before_it_serves_reach_the_main_process_as_they_are() {
    let sent = |signal| Action::Signal { generation: GenerationId(1), signal };
    let mut run = Run::new(policy());
    assert_eq!(run.tell(Event::Forward(Signal::SIGTTOU)), [sent(Signal::SIGTTOU)]);
    let mut run = serving(policy());
    for signal in [Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGTTIN] {
        assert_eq!(run.tell(Event::Forward(signal)), [sent(signal)]);
    }
}

#[test]
fn a_worker_that_was_told_ends_with_its_generation_if_that_is_replaced_before() {
    let mut run = serving(policy());
    run.streams = 150;
    run.tell(Event::Forward(Signal::SIGTTOU));
    run.reload(1);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND * 5);
    assert_eq!(signals(&run.log, 1, Signal::SIGTTOU) + signals(&run.log, 2, Signal::SIGTTOU), 0);
}
