//! What `status` tells about the state.

use super::harness::{Run, SECOND, policy, serving};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::{Generation, Startup};
use crate::supervisor::machine::outcome::Outcome;

/// The phase, and the state of each generation.
fn words(run: &Run) -> (&'static str, Vec<&'static str>) {
    (run.state.phase_word(), run.state.generations().iter().map(Generation::state_word).collect())
}

#[test]
fn the_words_follow_a_reload() {
    let mut run = Run::new(policy());
    assert_eq!(words(&run), ("starting", vec!["starting"]));
    run.tell(Event::Ready { generation: GenerationId(1) });
    assert_eq!(words(&run), ("serving", vec!["serving"]));
    run.reload(1);
    assert_eq!(words(&run), ("serving", vec!["serving", "starting"]));
    run.tell(Event::Ready { generation: GenerationId(2) });
    assert_eq!(words(&run), ("serving", vec!["draining", "serving"]));
}

#[test]
fn the_words_follow_a_failure() {
    let mut run = serving(policy());
    run.exited(1, Outcome::Signaled(9), true);
    assert_eq!(words(&run), ("serving", vec!["orphaned"]));
    run.tell(Event::GenerationEmpty { generation: GenerationId(1) });
    run.wait(SECOND);
    assert_eq!(words(&run), ("starting", vec!["starting"]));
    run.exited(2, Outcome::Exited(1), false);
    assert_eq!(words(&run), ("waiting", vec![]));
}

#[test]
fn the_words_follow_a_stop() {
    let mut run = serving(Policy { stop_delay: SECOND * 5, ..policy() });
    run.tell(Event::Stop);
    assert_eq!(words(&run), ("stopping", vec!["serving"]));
    run.wait(SECOND * 5);
    assert_eq!(run.state.phase_word(), "stopping");
}

#[test]
fn the_status_tells_the_failures_and_how_many_are_still_allowed() {
    let mut run = serving(policy());
    assert_eq!(run.state.restarts(run.now), (5, 0));
    run.exited(1, Outcome::Exited(1), false);
    assert_eq!(run.state.restarts(run.now), (4, 1));
}

#[test]
fn a_generation_of_one_worker_is_not_expected_to_have_all() {
    assert_eq!([Startup::Full, Startup::OneWorker].map(|startup| startup.workers(4)), [4, 1]);
}
