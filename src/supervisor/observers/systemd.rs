//! What is reported to a service manager above us (systemd), and when.

use std::time::Instant;

use super::log::{server_name, show_rounded};
use crate::run::notify::Notifier;
use crate::supervisor::World;
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::note::Note;

/// Reports the state of the launcher to a service manager.
#[derive(Debug)]
pub(in crate::supervisor) struct Systemd {
    notify: Notifier,
}

impl Component for Systemd {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        waits.until(self.notify.next());
    }

    fn turn(&mut self, _world: &mut World, _ready: &Ready) -> Vec<Output> {
        self.notify.advance(Instant::now());
        Vec::new()
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        if let Action::Log(note) = action {
            self.tell(world, note);
        }
    }
}

impl Systemd {
    /// Reports to this service manager.
    pub(in crate::supervisor) const fn new(notify: Notifier) -> Self {
        Self { notify }
    }

    /// Reports the events that concern it.
    fn tell(&mut self, world: &World, note: &Note) {
        match note {
            Note::Ready { generation } => {
                let server = world.plan_of(*generation).map(server_name).unwrap_or_default();
                let status = format!("serving: generation {generation}, {server} on {}", world.listeners.bind());
                self.notify.ready(&status);
            }
            Note::Reloading => self.notify.reloading(world.state.policy().startup_timeout),
            Note::ReloadFailed { why, serves } => {
                let state = if *serves { "serving" } else { "not ready" };
                // After each reload systemd waits to be told READY, whatever has become of it.
                self.notify.still_ready(&format!("{state}: the last reload failed: {why}"));
            }
            Note::Silent { .. } => self.notify.status("not ready: no worker answers"),
            Note::Answering { .. } => self.notify.still_ready("serving: a worker answers again"),
            Note::MainExited { outcome, survivors: false, .. } => {
                self.notify.status(&format!("the server ended: {outcome}"));
            }
            Note::MainExited { outcome, survivors: true, .. } => {
                self.notify.status(&format!("serving without a main process: {outcome}"));
            }
            Note::Respawning { wait, .. } => {
                let within = *wait + world.state.policy().startup_timeout;
                self.notify.starting(&format!("respawn in {}", show_rounded(*wait)), within);
            }
            Note::GivingUp { cause, .. } => {
                self.notify.stopping(&format!("giving up: {cause}"), world.state.policy().stop_timeout);
            }
            Note::Stopping { budget, .. } => self.notify.stopping("stopping", *budget),
            _ => {}
        }
    }
}
