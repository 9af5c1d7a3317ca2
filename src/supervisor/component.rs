//! What the components of the supervisor have in common: each declares what it waits for, and gets a turn when
//! something has happened.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};

use super::World;
use super::machine::action::Action;
use super::machine::event::Event;
use crate::run::poll_timeout;

/// A part of the supervisor that owns its own state. It watches the world, or the actions that are carried out, or
/// both.
pub(super) trait Component {
    /// Declares what it waits for: descriptors, and the time at which it needs a turn even if nothing has happened.
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>);

    /// Takes its turn: looks at the world, and returns what happened and what to do. It must not block. Every component
    /// gets a turn whenever anything has happened, so a turn without news must be cheap and return nothing.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output>;

    /// An action was carried out.
    fn observe(&mut self, _world: &mut World, _action: &Action) {}
}

/// The result of a component's turn.
#[derive(Debug)]
pub(super) enum Output {
    /// Something happened: the state machine decides what follows.
    Event(Event),
    /// An action that the component's own policy has decided on.
    Action(Action),
}

impl From<Event> for Output {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<Action> for Output {
    fn from(action: Action) -> Self {
        Self::Action(action)
    }
}

/// What the loop waits for. There is no other way to declare it.
#[derive(Debug, Default)]
pub(super) struct Waits<'a> {
    descriptors: Vec<PollFd<'a>>,
    until: Option<Instant>,
}

impl<'a> Waits<'a> {
    /// Until this descriptor is readable.
    pub(super) fn readable(&mut self, descriptor: BorrowedFd<'a>) {
        self.events(descriptor, PollFlags::POLLIN);
    }

    /// Until one of these events.
    pub(super) fn events(&mut self, descriptor: BorrowedFd<'a>, events: PollFlags) {
        self.descriptors.push(PollFd::new(descriptor, events));
    }

    /// Not longer than until then; none is no limit.
    pub(super) fn until(&mut self, time: impl Into<Option<Instant>>) {
        self.until = self.until.into_iter().chain(time.into()).min();
    }

    /// Sleeps until one of these things happens. A signal also ends it, because one of the descriptors reports it.
    pub(super) fn sleep(mut self) -> Ready {
        let wait = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let Ok(1..) = poll(&mut self.descriptors, poll_timeout(wait)) else { return Ready::default() };
        let ready = self.descriptors.iter().filter(|descriptor| descriptor.any() == Some(true));
        Ready(ready.map(|descriptor| descriptor.as_fd().as_raw_fd()).collect())
    }
}

/// The descriptors that are ready.
#[derive(Debug, Default)]
pub(super) struct Ready(BTreeSet<RawFd>);

impl Ready {
    /// All of them.
    pub(super) const fn descriptors(&self) -> &BTreeSet<RawFd> {
        &self.0
    }

    /// Whether this one is.
    pub(super) fn is_ready(&self, descriptor: &impl AsFd) -> bool {
        self.0.contains(&descriptor.as_fd().as_raw_fd())
    }
}
