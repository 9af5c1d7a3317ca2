//! What a service manager above us (systemd) is told, and when.

use crate::supervisor::Supervisor;
use crate::supervisor::machine::generation::Note;
use crate::supervisor::observers::log::{server_name, show_rounded};

impl Supervisor<'_> {
    /// Tells what concerns it of what happened.
    pub(in crate::supervisor) fn tell_service_manager(&mut self, note: &Note) {
        match note {
            Note::Ready { generation } => {
                let server = self.plan_of(*generation).map(server_name).unwrap_or_default();
                let status = format!("serving: generation {generation}, {server} on {}", self.front.bind());
                self.notify.ready(&status);
            }
            Note::Reloading => self.notify.reloading(self.state.policy().startup_timeout),
            Note::ReloadFailed { why } => {
                self.notify.still_ready(&format!("serving: the last reload failed: {why}"));
            }
            Note::MainExited { outcome, survivors: false, .. } => {
                self.notify.status(&format!("the server ended: {outcome}"));
            }
            Note::MainExited { outcome, survivors: true, .. } => {
                self.notify.status(&format!("serving without a main process: {outcome}"));
            }
            Note::Respawning { wait, .. } => {
                let within = *wait + self.state.policy().startup_timeout;
                self.notify.starting(&format!("respawn in {}", show_rounded(*wait)), within);
            }
            Note::GivingUp { cause, .. } => {
                self.notify.stopping(&format!("giving up: {cause}"), self.state.policy().stop_timeout);
            }
            Note::Stopping { budget, .. } => self.notify.stopping("stopping", *budget),
            _ => {}
        }
    }
}
