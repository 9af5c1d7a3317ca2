//! Stops: with and without waiting, and in the middle of something else.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::harness::{Run, SECOND, policy, serving, term};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::disconnecting::Occasion;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::outcome::Outcome;

#[test]
fn a_stop_serves_on_for_the_delay_and_is_not_ready_meanwhile() {
    let mut run = serving(Policy { stop_delay: SECOND * 5, ..policy() });
    let actions = run.tell(Event::Stop);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal { .. })));
    assert!(!run.state.is_ready());
    let actions = run.wait(SECOND * 5);
    let expected = |told: &Action| *told == term(1);
    assert!(
        matches!(&actions[..], [Action::Retire { .. }, Action::RefuseClients, told] if expected(told)),
        "{actions:?}"
    );
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
fn a_server_that_ends_of_itself_during_the_delay_gives_the_status_even_if_its_workers_serve_on() {
    for is_seen_empty in [true, false] {
        let mut run = serving(Policy { stop_delay: SECOND * 5, ..policy() });
        run.tell(Event::Stop);
        run.exited(1, Outcome::Exited(5), true);
        assert_eq!(run.exit_status(), None);
        if is_seen_empty {
            run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
        }
        run.tell(Event::NoChildren);
        assert_eq!(run.exit_status(), Some(5), "at once: there is nothing to wait for");
    }
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
fn a_quick_end_during_the_delay_does_not_make_the_stop_later() {
    let mut run = serving(Policy { stop_delay: SECOND * 24, ..policy() });
    run.tell(Event::Stop);
    run.wait(SECOND * 47 / 2);
    run.tell(Event::Quit);
    assert!(run.wait(SECOND * 3 / 2).contains(&Action::KillAll));
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
fn how_a_server_ends_that_the_terminal_has_told_to_end_is_no_fault() {
    let status = |stop: &[Event], outcome| {
        let mut run = serving(Policy { stop_delay: SECOND, ..policy() });
        for event in stop {
            run.tell(event.clone());
            run.wait(SECOND * 2);
        }
        run.exited(1, outcome, false);
        run.tell(Event::NoChildren);
        run.exit_status()
    };
    assert_eq!(status(&[Event::Interrupt], Outcome::Exited(1)), Some(0));
    assert_eq!(status(&[Event::Stop, Event::Interrupt], Outcome::Exited(1)), Some(0));
    assert_eq!(status(&[Event::Stop], Outcome::Exited(1)), Some(1));
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
fn before_a_stop_streams_are_closed_and_that_takes_less_than_a_second() {
    let mut run = serving(policy());
    run.streams = 5000;
    let actions = run.tell(Event::Stop);
    let told = |action: &Action| matches!(action, Action::Retire { occasion: Occasion::Stop, within, .. } if *within == SECOND * 25);
    assert!(actions.iter().any(told), "{actions:?}");
    assert!(!actions.contains(&term(1)), "it would cut them");
    assert!(!run.wait(SECOND / 5).contains(&term(1)), "it would cut most of them");
    assert!(run.wait(SECOND).contains(&term(1)));
}

#[test]
fn term_waits_for_the_streams_of_workers_that_answer_late() {
    let mut run = serving(policy());
    run.streams = 1;
    run.tell(Event::Stop);
    let due = run.state.next_deadline().unwrap();
    run.now += SECOND / 5;
    run.tell(run.left(GenerationId(1), SECOND * 25, Occasion::Stop));
    assert!(run.state.next_deadline().unwrap() > due, "{:?}", run.state.next_deadline());
}

/// The second generation serves, and the first one has been told to end.
fn replacing() -> Run {
    let mut run = serving(policy());
    run.reload(1);
    run.tell(Event::Ready { generation: GenerationId(2) });
    assert!(run.wait(SECOND).contains(&term(1)));
    run
}

#[test]
fn the_status_is_that_of_the_server_that_served_in_whatever_order_they_end() {
    for order in [[1, 2], [2, 1]] {
        let mut run = replacing();
        run.tell(Event::Stop);
        for generation in order {
            run.exited(generation, Outcome::Exited(if generation == 1 { 9 } else { 4 }), false);
        }
        run.tell(Event::NoChildren);
        assert_eq!(run.exit_status(), Some(4), "{order:?}");
    }
}

#[test]
fn a_start_that_was_interrupted_gives_the_status_with_which_it_ended() {
    let mut run = Run::new(policy());
    run.tell(Event::Stop);
    run.exited(1, Outcome::Exited(7), false);
    run.tell(Event::NoChildren);
    assert_eq!(run.exit_status(), Some(7));
}

#[test]
fn what_main_processes_leave_behind_is_told_when_none_is_left_and_killed_soon() {
    let told = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::SignalStrays(_)));
    let mut run = serving(policy());
    run.tell(Event::Stop);
    assert!(told(&run.exited(1, Outcome::Exited(0), true)));
    assert!(run.wait(SECOND * 2).contains(&Action::KillAll));
    let mut run = replacing();
    run.tell(Event::Stop);
    assert!(!told(&run.exited(1, Outcome::Exited(0), true)), "the other one still ends its own");
    assert!(told(&run.exited(2, Outcome::Exited(0), true)));
}

#[test]
fn two_stop_signals_at_once_are_one() {
    for stop_delay in [Duration::ZERO, SECOND * 5] {
        let mut run = serving(Policy { stop_delay, ..policy() });
        run.tell(Event::Stop);
        run.now += SECOND / 20;
        assert_eq!(run.tell(Event::Stop), []);
    }
}

#[test]
fn a_second_stop_signal_does_not_wait_for_streams_either() {
    let mut run = serving(policy());
    run.streams = 1;
    run.tell(Event::Stop);
    run.now += SECOND / 5;
    let actions = run.tell(Event::Stop);
    assert!(actions.contains(&Action::KillAll), "{actions:?}");
}
