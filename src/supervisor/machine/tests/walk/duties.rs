//! What the machine has asked of processes and of the kernel, and what it must have asked before something else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::world::Checked;
use crate::ids::GenerationId;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::draining::DISCARD_WITHIN;
use crate::supervisor::machine::generation::{Generation, Main};
use crate::supervisor::machine::{Phase, State};

#[derive(Debug, Default)]
pub(super) struct Duties {
    /// Generations whose main process was asked to end.
    asked: BTreeSet<GenerationId>,
    /// Generations what is left of which was asked to end.
    rest_asked: BTreeSet<GenerationId>,
    all_asked: bool,
    refuses_clients: bool,
    /// Generations that the kernel kills first when memory runs out.
    on_trial: BTreeSet<GenerationId>,
    /// Generations whose workers were asked to leave.
    retired: BTreeSet<GenerationId>,
    /// Where new clients go.
    steered: Option<GenerationId>,
}

impl Duties {
    /// Takes note of an action, which is about to be carried out. `running` are the main processes that there are.
    pub(super) fn note(&mut self, action: &Action, state: &State, running: &[GenerationId]) -> Checked {
        match action {
            Action::Spawn { generation, on_trial, .. } => {
                prop_assert_eq!(*on_trial, state.serving().is_some(), "on trial next to one that serves");
                self.on_trial.extend(Some(*generation).filter(|_| *on_trial));
            }
            Action::EndTrial { generation } => _ = self.on_trial.remove(generation),
            Action::Signal { generation, signal: Signal::SIGTERM } => _ = self.asked.insert(*generation),
            Action::SignalRest { generation, .. } => _ = self.rest_asked.insert(*generation),
            Action::SignalStrays(_) => self.all_asked = true,
            Action::RefuseClients => self.refuses_clients = true,
            Action::Retire { generation, .. } => _ = self.retired.insert(*generation),
            Action::Keep { generation } => _ = self.retired.remove(generation),
            Action::Steer { generation } => self.steered = Some(*generation),
            Action::Kill { generation } => {
                prop_assert!(self.rest_asked.contains(generation), "{generation} is killed and was not asked");
            }
            Action::KillAll => {
                let unasked = running.iter().find(|generation| !self.asked.contains(generation));
                prop_assert_eq!(unasked, None, "killed and not asked");
                prop_assert!(self.all_asked, "all are killed and were not asked");
            }
            _ => {}
        }
        Ok(())
    }

    /// What must be true whenever nothing more follows at once.
    pub(super) fn check(&self, state: &State) -> Checked {
        let alive = |it: &&Generation| it.is_starting() && matches!(it.main, Main::Alive(_));
        if let Phase::Delaying { .. } = state.phase {
            prop_assert!(!state.generations().iter().any(|it| alive(&it)), "it starts, and everything stops");
        }
        prop_assert!(self.refuses_clients || !state.is_ending(), "clients are accepted in the end");
        let Some(serving) = state.serving().map(|serving| serving.id) else { return Ok(()) };
        prop_assert!(!self.on_trial.contains(&serving), "{serving} serves and is on trial");
        if state.is_settled() {
            prop_assert_eq!(self.steered, Some(serving), "where clients go");
            prop_assert!(!self.retired.contains(&serving), "{serving} serves, and its workers leave");
        }
        Ok(())
    }
}

/// A fast stop leaves little time, even if a slow one has begun.
pub(super) fn check_quit(end: Option<Instant>, now: Instant) -> Checked {
    let left = end.map(|by| by.saturating_duration_since(now));
    prop_assert!(left.is_none_or(|left: Duration| left <= DISCARD_WITHIN), "{left:?} after a fast stop");
    Ok(())
}
