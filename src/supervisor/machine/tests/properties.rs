//! Properties of every sequence of events.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use proptest::prelude::*;

use super::harness::{Run, facts, granian, policy, serving, short_of_memory, shortage};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::settings::value::Restart;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::{Main, Stage, Startup};
use crate::supervisor::machine::memory_budget::Room;
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};
use crate::supervisor::machine::plan_facts::PlanFacts;

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

/// One of the generations: the numbers grow without bound, so they are counted from the last.
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
        streams in prop_oneof![Just(0u32), Just(1), Just(1000), Just(100_000)],
        restart in prop_oneof![Just(Restart::OnFailure), Just(Restart::Always), Just(Restart::No)],
        plan in prop_oneof![Just(facts as fn(u32, Policy) -> PlanFacts), Just(granian as _)],
    ) {
        let policy = Policy { stop_delay: Duration::from_secs(delay), restart, ..policy() };
        let budget = policy.stop_timeout;
        let mut run = Run::with(plan, policy);
        run.streams = streams;
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
                        Action::Retire { generation, within, occasion } => queue.push_back(run.left(generation, within, occasion)),
                        Action::Signal { generation, signal: Signal::SIGTTOU } if run.workers.get(&generation) == Some(&1) && !adjusted => {
                            prop_assert!(false, "took the last worker of generation {generation}");
                        }
                        other => { run.obey(&other); run.log.push(other); }
                    }
                }
                prop_assert!(run.state.generations().len() <= 2, "more than two generations");
            }
            if ready_before && !may_end_service {
                prop_assert!(run.state.is_ready(), "stopped serving although nothing died and there was no request");
            }
            // A decision is made once.
            let exits = run.log.iter().filter(|action| matches!(action, Action::Exit(_))).count();
            prop_assert!(exits <= 1, "exited twice");
            if run.exit_status().is_some() { return Ok(()); }
            // A deadline in the past must have been acted upon.
            if let Some(at) = run.state.next_deadline() { prop_assert!(at > run.now, "a deadline was left behind"); }
            if run.state.generations().is_empty() && stop_asked.is_none() && !run.state.is_ending() {
                prop_assert!(run.state.next_deadline().is_some(), "nothing runs and nothing is planned");
            }
        }
        // In every state, a stop ends within its budget, even with processes that never die.
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

    /// Only new generations fail here: the service is never lost, and in the end it is complete.
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
