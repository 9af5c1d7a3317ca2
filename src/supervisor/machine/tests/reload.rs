//! Reloads: one generation takes over from another.

use nix::sys::signal::Signal;

use super::harness::{Run, SECOND, policy, prepare, serving, signals, spawned, term};
use crate::ids::{GenerationId, PlanId};
use crate::settings::value::Server;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::disconnecting::Occasion;
use crate::supervisor::machine::event::{Event, Presence};
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::Outcome;
use crate::supervisor::machine::plan_facts::Choice;

/// The plan of the first generation that is started.
fn started_plan(actions: &[Action]) -> Option<PlanId> {
    actions.iter().find_map(|action| match action {
        Action::Spawn { plan, .. } => Some(*plan),
        _ => None,
    })
}

#[test]
fn a_new_generation_next_to_one_that_serves_is_on_trial_until_it_is_ready() {
    let mut run = Run::new(policy());
    assert!(run.state.serving().is_none());
    let actions = run.tell(Event::Ready { generation: GenerationId(1) });
    assert!(actions.contains(&Action::EndTrial { generation: GenerationId(1) }), "{actions:?}");
    let on_trial = |action: &Action| matches!(action, Action::Spawn { on_trial: true, .. });
    assert!(run.reload(5).iter().any(on_trial));
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    assert!(actions.contains(&Action::EndTrial { generation: GenerationId(2) }), "{actions:?}");
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
    assert_eq!(run.state.serving().unwrap().id.0, 1, "a boot that fails ends nothing else");
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
fn a_reload_that_fails_when_the_old_one_has_ended_does_not_say_that_it_was_kept() {
    for ends in [false, true] {
        let mut run = serving(policy());
        run.reload(5);
        if ends {
            run.exited(1, Outcome::Exited(1), false);
        }
        let actions = run.exited(2, Outcome::Exited(3), false);
        let said = actions.iter().find_map(|action| match action {
            Action::Log(Note::ReloadFailed { serves, .. }) => Some(*serves),
            _ => None,
        });
        assert_eq!(said, Some(!ends), "{actions:?}");
    }
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
fn workers_asked_for_with_several_reloads_are_added_up() {
    let mut run = serving(policy());
    run.reload(1);
    for workers in [2, -1, 1] {
        run.tell(Event::Reload { request: None, server: None, workers });
    }
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.exited(1, Outcome::Exited(0), false);
    assert_eq!(run.replanned, [0, 2]);
}

#[test]
fn plans_that_nobody_needs_any_more_are_forgotten() {
    let plans = |run: &Run| run.state.plans().map(|plan| plan.0).collect::<Vec<_>>();
    let mut run = serving(policy());
    for generation in 1..4 {
        run.reload(5);
        run.tell(Event::Ready { generation: GenerationId(generation + 1) });
        run.wait(SECOND);
        run.exited(generation, Outcome::Exited(0), false);
    }
    assert_eq!(plans(&run), [2, 3], "until the next start");
    run.reload(5);
    assert_eq!(plans(&run), [3, 4]);
    run.exited(5, Outcome::Exited(3), false);
    run.reload(5);
    assert_eq!(plans(&run), [3, 5], "the one that serves, and the one that is tried");
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
    let completed = |action: &Action| matches!(action, Action::Log(Note::Complete { .. }));
    assert!(!run.log.iter().any(completed), "it had all its workers all the time");
}

#[test]
fn a_plan_that_fails_in_a_second_generation_of_its_own_is_still_known_to_work() {
    let mut run = serving(policy());
    run.tell(Event::Renew);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.exited(2, Outcome::Exited(3), false);
    run.wait(SECOND * 1000);
    assert_eq!(run.state.serving().unwrap().id, GenerationId(1));
    run.exited(1, Outcome::Signaled(9), false);
    run.exited(3, Outcome::Exited(3), false);
    assert_eq!(run.exit_status(), None);
    assert_eq!(spawned(&run.wait(SECOND * 31)), [4]);
}

#[test]
fn the_plan_that_is_gone_back_to_is_one_that_was_ready_and_not_the_failed_one() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.exited(2, Outcome::Exited(3), false);
    run.wait(SECOND * 1000);
    for generation in [1, 3, 4] {
        let actions = run.exited(generation, Outcome::Exited(3), false);
        assert_eq!(run.exit_status(), None, "it is tried again");
        let actions = [actions, run.wait(SECOND * 31)].concat();
        assert_eq!(started_plan(&actions), Some(PlanId(0)), "{actions:?}");
    }
}

#[test]
fn workers_without_a_main_process_that_serve_again_get_a_new_one() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.exited(1, Outcome::Signaled(9), true);
    let actions = run.exited(2, Outcome::Exited(3), false);
    assert_eq!(run.state.serving().unwrap().id, GenerationId(1));
    assert_eq!(spawned(&[actions, run.wait(SECOND * 31)].concat()), [3]);
}

#[test]
fn what_a_release_leaves_behind_that_failed_to_start_has_time_to_end() {
    let mut run = serving(policy());
    run.reload(5);
    let kill = Action::Kill { generation: GenerationId(2) };
    assert!(!run.exited(2, Outcome::Exited(3), true).contains(&kill));
    assert!(run.wait(SECOND * 2).contains(&kill));
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
    let started = started_plan(&actions).or_else(|| run.state.generations().last().map(|generation| generation.plan));
    assert_eq!(started, Some(PlanId(0)));
}

#[test]
fn a_generation_that_is_replaced_is_asked_to_leave_and_ends_when_its_streams_are_closed() {
    let mut run = serving(policy());
    run.streams = 600;
    run.reload(5);
    let actions = run.tell(Event::Ready { generation: GenerationId(2) });
    let position = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted);
    let steered = position(&|action| *action == Action::Steer { generation: GenerationId(2) });
    let told = position(
        &|action| matches!(action, Action::Retire { generation: GenerationId(1), within, occasion: Occasion::Handover } if *within == SECOND * 25),
    );
    assert!(steered.is_some() && steered < told, "{actions:?}");
    assert!(!run.wait(SECOND * 6).contains(&term(1)), "its streams are not closed yet");
    assert!(run.wait(SECOND).contains(&term(1)));
}

#[test]
fn the_workers_of_a_generation_that_is_taken_back_are_asked_to_stay() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.now += SECOND / 10;
    let actions = run.exited(2, Outcome::Exited(3), false);
    let kept = actions.iter().position(|action| *action == Action::Keep { generation: GenerationId(1) });
    let steered = actions.iter().position(|action| *action == Action::Steer { generation: GenerationId(1) });
    assert!(kept.is_some() && kept < steered, "{actions:?}");
}

#[test]
fn two_generations_that_the_kernel_holds_are_both_abandoned() {
    let mut run = serving(policy());
    run.reload(5);
    run.tell(Event::Ready { generation: GenerationId(2) });
    run.wait(SECOND);
    run.tell(Event::Workers { generation: GenerationId(2), presence: Presence::Lost });
    assert_eq!(run.state.generations().iter().filter(|found| found.id.0 <= 2).count(), 2);
    run.now += SECOND * 100;
    run.state.step(Event::Tick, run.now);
    assert_eq!(run.state.generations().iter().filter(|found| found.id.0 <= 2).count(), 0);
}

#[test]
fn what_was_chosen_with_a_failed_reload_is_not_chosen_for_the_next() {
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
