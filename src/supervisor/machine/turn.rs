//! One step of the state machine: the time at which it happens, and what is to be done.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::action::Action;
use super::note::Note;
use crate::ids::GenerationId;

/// What the parts of the state machine pass on to each other during one step.
#[derive(Debug)]
pub(super) struct Turn {
    /// The time of the step.
    pub(super) now: Instant,
    /// What is to be done, in order.
    pub(super) actions: Vec<Action>,
}

impl Turn {
    pub(super) const fn new(now: Instant) -> Self {
        Self { now, actions: Vec::new() }
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn extend(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.actions.extend(actions);
    }

    pub(super) fn log(&mut self, note: Note) {
        self.push(Action::Log(note));
    }

    /// TERM to the main process of a generation. It closes its listening sockets, so clients are kept away from them
    /// if there is another generation that stays.
    pub(super) fn ask_to_leave(&mut self, generation: GenerationId, staying: Option<GenerationId>) {
        self.extend(staying.map(|staying| Action::PrepareLeave { staying }));
        self.signal(generation, Signal::SIGTERM);
    }

    /// A signal to the main process of a generation.
    pub(super) fn signal(&mut self, generation: GenerationId, signal: Signal) {
        self.push(Action::Signal { generation, signal });
    }
}
