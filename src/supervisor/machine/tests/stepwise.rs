//! Replacement when the memory does not suffice for two generations.

use nix::sys::signal::Signal;

use super::harness::{ONE_WORKER, Run, SECOND, facts, granian, policy, short_of_memory, shortage, signals, spawned};
use crate::ids::{GenerationId, PlanId};
use crate::plan::Policy;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::Startup;
use crate::supervisor::machine::memory_budget::Room;
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::Outcome;
use crate::supervisor::machine::plan_facts::PlanFacts;
use crate::supervisor::machine::reload::Takeover;

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
    assert!(actions.contains(&Action::Log(Note::ShortOfMemory {
        shortage: shortage(),
        takeover: Takeover::Stepwise { workers: 3 }
    })));
    assert!(actions.iter().any(|action| matches!(action, Action::Spawn { startup: Startup::OneWorker, .. })));
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    let told = Action::RetireOldest { generation: GenerationId(1), within: SECOND * 25 };
    assert!(actions.ends_with(&[Action::Steer { generation: GenerationId(2) }, told]), "{actions:?}");
    let begun = run.now;
    step_to_the_end(&mut run, |run| assert!((3..=4).contains(&run.capacity()), "{:?}", run.log));
    assert!(run.now - begun < SECOND * 5, "no worker was waited for");
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
fn a_release_that_fails_before_the_first_step_has_nothing_to_give_back() {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.exited(2, Outcome::Exited(3), false);
    run.wait(SECOND * 1000);
    assert_eq!(run.state.serving().unwrap().id, GenerationId(1));
    let given = |action: &Action| matches!(action, Action::Log(Note::Complete { .. }));
    assert!(!run.log.iter().any(given), "{:?}", run.log);
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
        assert!(run.log.contains(&Action::Keep { generation: GenerationId(1) }), "one was told to leave");
        step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
        assert_eq!(
            (run.state.serving().unwrap().id, run.capacity()),
            (GenerationId(1), 3),
            "failing at {failing_at}"
        );
        assert!(run.log.iter().any(|action| matches!(action, Action::Reply { request: 5, result: Err(_) })));
        // And its plan is not one to fall back to.
        assert!(run.exited(1, Outcome::Signaled(9), false).contains(&Action::Spawn {
            generation: GenerationId(3),
            plan: PlanId(0),
            startup: Startup::Full,
            on_trial: false,
        }));
        // Which is known to work, so it is tried again.
        run.exited(3, Outcome::Exited(3), false);
        assert_eq!(run.exit_status(), None);
        let again = run.wait(SECOND * 31);
        assert!(again.iter().any(|action| matches!(action, Action::Spawn { plan: PlanId(0), .. })), "{again:?}");
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
    assert_eq!(signals(&run.log, 1, Signal::SIGTTIN), 0, "there is no room before the other has ended");
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
    assert!(spawned(&actions).is_empty(), "the old one still has its place");
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
fn survivors_without_spare_memory_are_replaced_by_one_worker_first() {
    for room in [ONE_WORKER(), Room::Nothing(shortage())] {
        let mut run = short_of_memory(facts, room);
        run.exited(1, Outcome::Signaled(9), true);
        run.wait(SECOND / 20);
        run.tell(Event::Ready { generation: GenerationId(2) });
        assert_eq!(run.capacity(), 1);
        run.wait(SECOND);
        run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
        step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
        assert_eq!((run.capacity(), run.state.generations().len()), (3, 1));
        assert!(run.now - run.start < SECOND * 10, "each worker is seen when it comes");
    }
}

/// A generation with one worker, alone, that gets the others.
fn growing() -> Run {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.exited(1, Outcome::Signaled(9), true);
    run.wait(SECOND / 20);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
    assert_eq!(signals(&run.log, 2, Signal::SIGTTIN), 1);
    run
}

#[test]
fn a_worker_that_does_not_come_is_waited_for_as_long_as_a_start_may_take() {
    let run = growing();
    assert_eq!(run.state.next_deadline(), Some(run.now + policy().startup_timeout));
}

#[test]
fn workers_asked_for_while_others_come_are_had_in_the_end() {
    let mut run = growing();
    assert_eq!(run.tell(Event::Forward(Signal::SIGTTIN)), []);
    step_to_the_end(&mut run, |run| assert!(run.state.is_ready()));
    assert_eq!(run.capacity(), 4);
}

#[test]
fn a_generation_without_a_main_process_is_asked_for_no_more_workers() {
    let mut run = growing();
    run.exited(2, Outcome::Signaled(9), true);
    run.count();
    run.wait(policy().startup_timeout);
    assert_eq!(signals(&run.log, 2, Signal::SIGTTIN), 1);
    assert!(!run.state.counted().contains(&GenerationId(2)));
}

#[test]
fn survivors_and_little_memory_are_no_reason_to_refuse_a_reload() {
    let mut run = short_of_memory(facts, Room::Nothing(shortage()));
    run.exited(1, Outcome::Signaled(9), true);
    let actions = run.reload(5);
    assert_eq!(spawned(&actions), [2]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Reply { .. })), "{actions:?}");
}

/// How a reload to such a plan takes over, and with how many workers it starts, if there is room for one worker.
fn start_short_of_memory(new: fn(u32, Policy) -> PlanFacts) -> (Option<Takeover>, Option<Startup>) {
    let mut run = short_of_memory(facts, ONE_WORKER());
    run.plan = new;
    let actions = run.reload(5);
    let takeover = actions.iter().find_map(|action| match action {
        Action::Log(Note::ShortOfMemory { takeover, .. }) => Some(*takeover),
        _ => None,
    });
    let startup = actions.iter().find_map(|action| match action {
        Action::Spawn { startup, .. } => Some(*startup),
        _ => None,
    });
    (takeover, startup)
}

#[test]
fn only_servers_that_share_a_socket_are_replaced_worker_by_worker() {
    let stepwise = Takeover::Stepwise { workers: 3 };
    assert_eq!(start_short_of_memory(facts), (Some(stepwise), Some(Startup::OneWorker)));
    assert_eq!(start_short_of_memory(granian), (Some(Takeover::AtOnce), Some(Startup::OneWorker)));
}

#[test]
fn a_plan_with_one_worker_starts_with_all_it_has() {
    let (_, startup) = start_short_of_memory(|id, policy| PlanFacts { workers: 1, ..facts(id, policy) });
    assert_eq!(startup, Some(Startup::Full));
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
fn as_many_workers_as_were_asked_for_half_way_are_there_in_the_end() {
    for (signal, least, in_the_end) in [(Signal::SIGTTIN, 3, 4), (Signal::SIGTTOU, 2, 2)] {
        let mut run = short_of_memory(facts, ONE_WORKER());
        run.reload(5);
        run.tell(Event::Ready { generation: GenerationId(2) });
        assert_eq!(run.tell(Event::Forward(signal)), []);
        step_to_the_end(&mut run, |run| assert!(run.capacity() >= least));
        assert_eq!(run.capacity(), in_the_end);
    }
}
