//! The loop: one thread, one `poll`, one deadline.
//!
//! 1. Children that have ended are reaped.
//! 2. Each component gets a turn. Events that it returns are passed to the state machine.
//! 3. Actions of the machine, or of a component's own policy, are carried out ([`effects`](super::effects)), and every
//!    component is notified.
//! 4. When no component returns anything, the loop sleeps until something happens that one of them waits for.
//!
//! Once the first process has been started, no error ends the loop: what cannot be done is logged, and supervision
//! continues.

use std::collections::VecDeque;
use std::time::Instant;

use tracing::debug;

use super::component::{Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::event::Event;
use super::{Supervisor, World};
use crate::sys::wait::{Reaped, reap};

impl Supervisor {
    /// Supervises until the end and returns the exit status.
    #[must_use]
    pub fn run(mut self) -> u8 {
        let mut ready = Ready::default();
        loop {
            self.reap();
            self.tell(Event::Tick);
            if let Some(status) = self.exit {
                return status;
            }
            // The results of one component may concern the others, so the loop only sleeps after a round without
            // results.
            let is_quiet = self.give_turns(&ready);
            ready = if is_quiet { self.waits().sleep() } else { Ready::default() };
        }
    }

    /// What the state machine and the components wait for.
    fn waits(&self) -> Waits<'_> {
        let mut waits = Waits::default();
        waits.until(self.world.state.next_deadline());
        for component in &self.components {
            component.wait_for(&self.world, &mut waits);
        }
        waits
    }

    /// Gives each component a turn, and returns whether none of them returned anything.
    fn give_turns(&mut self, ready: &Ready) -> bool {
        let mut is_quiet = true;
        for index in 0..self.components.len() {
            for output in self.components[index].turn(&mut self.world, ready) {
                is_quiet = false;
                match output {
                    Output::Event(event) => self.tell(event),
                    Output::Action(action) => self.carry_out(&action).into_iter().for_each(|event| self.tell(event)),
                }
            }
        }
        is_quiet
    }

    /// Reaps children, ours and adopted ones.
    fn reap(&mut self) {
        let is_childless = loop {
            match reap() {
                Reaped::Child(pid, status) => {
                    self.world.reaped(pid, status).into_iter().for_each(|event| self.tell(event));
                }
                Reaped::NoneEnded => break false,
                Reaped::NoChildren => break true,
            }
        };
        for generation in self.world.emptied() {
            self.tell(Event::GenerationEmpty { generation });
        }
        if is_childless {
            self.tell(Event::NoChildren);
        }
    }

    /// Passes an event to the state machine and carries out its actions, and then the events that result.
    fn tell(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            if !matches!(event, Event::Tick) {
                debug!(?event, "event");
            }
            let actions = self.world.step(event);
            queue.extend(actions.iter().filter_map(|action| self.carry_out(action)));
        }
    }

    fn carry_out(&mut self, action: &Action) -> Option<Event> {
        let event = self.world.carry_out(action);
        for component in &mut self.components {
            component.observe(&mut self.world, action);
        }
        if let Action::Exit(status) = action {
            self.exit = Some(*status);
        }
        event
    }
}

impl World {
    /// One step of the state machine. What belonged to generations that have ended is released before anything else is
    /// done, because clients may wait in a listening socket that the next generation takes over.
    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.state.step(event, Instant::now());
        self.release_ended();
        actions
    }
}
