//! A random walk through everything that may happen, in any order that the system allows and in some that it does not:
//! answers that come late or never, deaths at any moment, requests in the middle of something else.

mod duties;
mod events;
mod happening;
mod record;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::harness::{facts, granian, policy};
use crate::ids::GenerationId;
use crate::plan::Policy;
use crate::settings::value::Restart;
use crate::supervisor::machine::event::{Event, Presence};
use crate::supervisor::machine::generation::{Generation, Main, Stage, Startup};
use crate::supervisor::machine::memory_budget::Room;
use crate::supervisor::machine::outcome::Outcome;
use crate::supervisor::machine::plan_facts::PlanFacts;
use happening::{Happening, Reply, Workers, happening};
use record::{Record, Transition};
use world::{Asked, Checked, MainProcess, World};

/// How a walk begins.
fn first_plan() -> impl Strategy<Value = PlanFacts> {
    let restart = prop_oneof![3 => Just(Restart::OnFailure), 1 => Just(Restart::Always), 1 => Just(Restart::No)];
    let millis = prop_oneof![Just(300u64), Just(5_000), Just(25_000)];
    (any::<bool>(), restart, millis, 0..3u32).prop_map(|(is_granian, restart, stop_timeout, delay)| {
        let stop_timeout = Duration::from_millis(stop_timeout);
        let policy = Policy { restart, stop_timeout, stop_delay: stop_timeout / 4 * delay, ..policy() };
        if is_granian { granian(0, policy) } else { facts(0, policy) }
    })
}

/// How a walk ends.
#[derive(Debug, Clone, Copy)]
enum Finish {
    /// With a stop.
    Stop,
    /// From some moment on everything succeeds.
    AllIsWell,
}

fn walk(plan: PlanFacts, happenings: Vec<Happening>, finish: Finish) -> Result<Record, TestCaseError> {
    let mut world = World::new(plan);
    world.tell(Event::Tick)?;
    for happening in happenings {
        if world.exit.is_some() {
            break;
        }
        world.happens(happening)?;
    }
    if matches!(finish, Finish::AllIsWell) {
        world.all_is_well()?;
    }
    world.stop()?;
    Ok(world.record)
}

impl World {
    /// From now on every start succeeds, everything that is asked to leave does so, and there are no more requests: in
    /// the end one complete generation serves, and every request has a reply.
    fn all_is_well(&mut self) -> Checked {
        for _ in 0..1000 {
            if self.end.is_some() || self.exit.is_some() {
                return Ok(());
            }
            if !self.goes_well()? {
                if self.state.next_deadline().is_none() {
                    break;
                }
                self.pass_to_deadline()?;
            }
        }
        prop_assert!(self.state.is_settled(), "not settled: {:?}", self.state);
        let serving = self.state.serving().expect("settled");
        prop_assert_eq!(serving.startup, Startup::Full);
        let unanswered = self.requests.values().filter(|reply| reply.is_none());
        prop_assert_eq!(unanswered.count(), 0, "requests without a reply");
        Ok(())
    }

    /// The next thing that succeeds; false if only waiting is left.
    fn goes_well(&mut self) -> Result<bool, TestCaseError> {
        let last = self.questions.len().checked_sub(1);
        let well = Reply { start: Ok(()), plan: Ok(2), room: Room::Whole, streams: 0 };
        if let Some(index) = last {
            self.answer(index, &well)?;
            return Ok(true);
        }
        let all: Vec<Generation> = self.state.generations().to_vec();
        for Generation { id, stage, main, answers, .. } in all {
            match (stage, main) {
                (Stage::Starting { .. }, Main::Alive(_)) => self.tell(Event::Ready { generation: id })?,
                (Stage::Serving { .. }, _) if !answers => {
                    self.tell(Event::Workers { generation: id, presence: Presence::Answering })?;
                }
                (Stage::Leaving(_), _) if !self.processes[&id].are_held => self.leaves(id)?,
                _ => continue,
            }
            return Ok(true);
        }
        let before = format!("{:?}", self.state);
        self.count(0)?;
        Ok(format!("{:?}", self.state) != before)
    }

    fn leaves(&mut self, id: GenerationId) -> Checked {
        if let Some(processes) = self.processes.get_mut(&id) {
            match processes.main {
                MainProcess::Running => processes.main_dies(Outcome::Exited(0), Workers::Die),
                _ => processes.workers = 0,
            }
        }
        self.tell(Event::Tick)
    }

    /// In every state, a stop ends, within its budget unless the kernel keeps a process.
    fn stop(&mut self) -> Checked {
        if self.exit.is_none() && self.end.is_none() {
            self.tell(Event::Stop)?;
        }
        while self.exit.is_none() {
            prop_assert!(self.state.next_deadline().is_some(), "stuck in {:?}", self.state);
            self.pass_to_deadline()?;
        }
        let unanswered = self.requests.values().filter(|reply| reply.is_none());
        prop_assert_eq!(unanswered.count(), 0, "requests without a reply");
        if matches!(self.end, Some((Asked::ByUser, _))) && self.all_killed {
            prop_assert_eq!(self.exit, Some(143));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 300, ..Config::default() })]

    #[test]
    fn no_walk_breaks_a_promise(
        plan in first_plan(),
        happenings in prop::collection::vec(happening(), 1..80),
        finish in prop_oneof![Just(Finish::Stop), Just(Finish::AllIsWell)],
    ) {
        walk(plan, happenings, finish)?;
    }
}

/// The same walks each time, so that their coverage does not depend on chance; as many as are needed for all changes.
#[test]
fn the_state_diagram_has_exactly_the_changes_that_walks_see() {
    const MOST: usize = 5000;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let walks = (first_plan(), prop::collection::vec(happening(), 1..80));
    let documented = record::documented();
    let mut seen = BTreeSet::<Transition>::new();
    for _ in 0..MOST {
        let (plan, happenings) = walks.new_tree(&mut runner).unwrap().current();
        seen.extend(walk(plan, happenings, Finish::AllIsWell).unwrap().0);
        if seen.is_superset(&documented) {
            break;
        }
    }
    let missing: Vec<_> = seen.difference(&documented).collect();
    let surplus: Vec<_> = documented.difference(&seen).collect();
    assert!(missing.is_empty(), "not in the table of machine/mod.rs: {missing:?}");
    assert!(surplus.is_empty(), "in the table of machine/mod.rs, and never seen: {surplus:?}");
}
