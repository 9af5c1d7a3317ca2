//! The loop: one thread, one `poll`, one deadline.
//!
//! 1. Children that ended are reaped.
//! 2. Each component has its turn. What it says happened is told to the state machine as an event.
//! 3. What the machine, or a component's own policy, says is to be done is carried out ([`effects`](super::effects)),
//!    and every component hears of it.
//! 4. When none of them has anything to say, the loop sleeps until something happens that one of them waits for.
//!
//! After the first process was started no error leaves the loop: what cannot be done is logged, and supervision goes
//! on.

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
            // What one component says may concern the others: nobody sleeps before all of them have nothing to say.
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

    /// Gives each component its turn, and says whether none of them had anything to say.
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

    /// Feeds an event to the state machine and carries out what it says, and so on with what that gives rise to.
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
    /// One step of the state machine. What belonged to generations that are gone is released before anything is done,
    /// because clients may wait in a listening socket that the next generation takes over.
    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.state.step(event, Instant::now());
        self.release_gone();
        actions
    }
}
