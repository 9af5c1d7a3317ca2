//! Crashes, failed boots, and starts that the system refuses.

use nix::sys::signal::Signal;

use super::harness::{Run, SECOND, policy, serving, spawned};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::settings::value::Restart;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::{Event, Presence};
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};

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
    assert!(spawned(&run.exited(1, Outcome::Signaled(9), true)).is_empty(), "perhaps they end with it");
    assert_eq!(spawned(&run.wait(SECOND / 20)), [2]);
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
fn a_main_process_and_workers_that_die_together_are_replaced_at_once() {
    let mut run = serving(policy());
    assert!(spawned(&run.exited(1, Outcome::Signaled(9), true)).is_empty());
    run.now += SECOND / 1000;
    assert_eq!(spawned(&run.tell(Event::GenerationEmpty { generation: GenerationId(1) })), [2]);
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
fn a_generation_without_workers_has_failed_and_one_that_is_silent_is_only_not_ready() {
    let mut run = serving(policy());
    let tell = |run: &mut Run, presence| run.tell(Event::Workers { generation: GenerationId(1), presence });
    tell(&mut run, Presence::Silent);
    assert!(!run.state.is_ready());
    tell(&mut run, Presence::Answering);
    assert!(run.state.is_ready());
    let actions = tell(&mut run, Presence::Lost);
    assert_eq!(spawned(&actions), [2]);
    assert!(actions.contains(&Action::Signal { generation: GenerationId(1), signal: Signal::SIGTERM }));
    assert!(!actions.iter().any(|action| matches!(action, Action::PrepareLeave { .. })), "nobody stays: {actions:?}");
}

#[test]
fn it_is_said_once_that_workers_are_silent_and_once_that_they_answer_again() {
    use Presence::{Answering, Silent};
    let mut run = serving(policy());
    let mut said = |presence| {
        let actions = run.tell(Event::Workers { generation: GenerationId(1), presence });
        actions.iter().any(|action| matches!(action, Action::Log(Note::Silent { .. } | Note::Answering { .. })))
    };
    assert_eq!([Answering, Silent, Silent, Answering, Answering].map(&mut said), [false, true, false, true, false]);
}

#[test]
fn after_which_ends_the_server_is_started_again_is_a_setting() {
    for (restart, status, ends_with) in [
        (Restart::No, 1, Some(1)),
        (Restart::No, 0, Some(0)),
        (Restart::OnFailure, 0, Some(0)),
        (Restart::OnFailure, 1, None),
        (Restart::Always, 0, None),
        (Restart::Always, 1, None),
    ] {
        let mut run = serving(Policy { restart, ..policy() });
        run.now += SECOND;
        let actions = run.exited(1, Outcome::Exited(status), false);
        run.tell(Event::NoChildren);
        assert_eq!(run.exit_status(), ends_with, "{restart:?} {status}");
        assert_eq!(spawned(&actions).len(), usize::from(ends_with.is_none()), "{restart:?} {status}");
    }
}

#[test]
fn workers_that_keep_dying_during_a_start_are_a_failed_start() {
    let lost = |generation| Event::Workers { generation: GenerationId(generation), presence: Presence::Lost };
    let mut run = Run::new(policy());
    let actions = run.tell(lost(1));
    assert!(
        actions.iter().any(|action| matches!(action, Action::Log(Note::GivingUp { status: 69, .. }))),
        "{actions:?}"
    );
    let mut run = serving(policy());
    run.tell(Event::Reload { request: Some(7), server: None, workers: 0 });
    run.tell(Event::FailureReported { generation: GenerationId(2), why: "exit status 1".into() });
    let actions = run.tell(lost(2));
    assert!(
        actions.contains(&Action::Signal { generation: GenerationId(2), signal: Signal::SIGTERM }),
        "{actions:?}"
    );
    let reply = |action: &Action| match action {
        Action::Reply { request: 7, result: Err(why) } => Some(why.clone()),
        _ => None,
    };
    let why = actions.iter().find_map(reply).expect("a reply");
    assert!(why.ends_with("its workers die before they are ready: exit status 1"), "{why}");
    assert!(run.state.is_ready());
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

const PROGRAM: SpawnFailure = SpawnFailure::Program(127);
const ALL_FAILURES: [SpawnFailure; 3] = [PROGRAM, SpawnFailure::Refused, SpawnFailure::NoRoom];

#[test]
fn a_first_start_that_cannot_succeed_ends_with_its_status() {
    for (failure, status) in [(PROGRAM, 127), (SpawnFailure::Program(126), 126), (SpawnFailure::Refused, 126)] {
        let run = Run::that_is_refused(policy(), failure);
        let given_up =
            |action: &Action| matches!(action, Action::Log(Note::GivingUp { status: given, .. }) if *given == status);
        assert!(run.log.iter().any(given_up), "{failure:?}: {:?}", run.log);
    }
}

#[test]
fn a_first_start_without_room_is_tried_again_until_there_is_some() {
    let mut run = Run::that_is_refused(policy(), SpawnFailure::NoRoom);
    for generation in 2..30 {
        assert_eq!(spawned(&run.wait(SECOND * 31)), [generation]);
    }
    run.refusal = None;
    run.wait(SECOND * 31);
    run.tell(Event::Ready { generation: GenerationId(30) });
    assert!(run.state.is_ready());
}

#[test]
fn a_reload_whose_generation_cannot_be_started_reports_why_and_changes_nothing() {
    for failure in ALL_FAILURES {
        let mut run = serving(policy());
        run.refusal = Some(failure);
        let actions = run.reload(5);
        let is_told_why = |action: &Action| matches!(action, Action::Reply { request: 5, result: Err(why) } if why.contains("as it is"));
        assert!(actions.iter().any(is_told_why), "{failure:?}: {actions:?}");
        assert!(run.state.is_settled() && run.state.next_deadline().is_none(), "{failure:?}");
    }
}

#[test]
fn survivors_serve_on_while_their_successor_cannot_be_started_and_it_is_tried_again() {
    for failure in ALL_FAILURES {
        let mut run = serving(policy());
        run.refusal = Some(failure);
        run.exited(1, Outcome::Signaled(9), true);
        assert_eq!(spawned(&run.wait(SECOND / 20)), [2]);
        for generation in 3..20 {
            assert!(run.state.is_ready(), "{failure:?}: {:?}", run.log);
            assert_eq!(spawned(&run.wait(SECOND * 31)), [generation], "{failure:?}");
        }
    }
}

#[test]
fn a_respawn_that_cannot_be_started_counts_unless_there_is_no_room() {
    for failure in ALL_FAILURES {
        let mut run = serving(policy());
        run.refusal = Some(failure);
        run.exited(1, Outcome::Signaled(9), false);
        for _ in 0..20 {
            run.wait(SECOND * 31);
        }
        let has_given_up = run.log.iter().any(|action| matches!(action, Action::Log(Note::GivingUp { .. })));
        assert_eq!(has_given_up, failure != SpawnFailure::NoRoom, "{failure:?}");
    }
}
