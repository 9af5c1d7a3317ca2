//! The reason for the exit in one line, assembled from what the state machine logs.

use std::time::Duration;

use super::log::show_rounded;
use crate::run::termination::TerminationLog;
use crate::supervisor::World;
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::outcome::Outcome;

/// What is known about the cause of the exit.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct ExitReason {
    /// How the server last ended without a request.
    server: Option<String>,
    /// Why the launcher ends.
    cause: Option<String>,
    after: u64,
    /// Where it is written.
    termination: TerminationLog,
}

impl Component for ExitReason {
    fn wait_for<'a>(&'a self, _world: &'a World, _waits: &mut Waits<'a>) {}

    fn turn(&mut self, _world: &mut World, _ready: &Ready) -> Vec<Output> {
        Vec::new()
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        match action {
            Action::Log(note) => self.remember(world, note),
            Action::Exit(status) => self.write(*status, world.started.elapsed()),
            _ => {}
        }
    }
}

impl ExitReason {
    /// Nothing is known yet.
    pub(in crate::supervisor) fn new(termination: TerminationLog) -> Self {
        Self { termination, ..Self::default() }
    }

    /// Keeps what will be needed at the end.
    fn remember(&mut self, world: &World, note: &Note) {
        match note {
            Note::MainExited { generation, outcome, why, .. } => {
                let oom = world.ends.was_oom(*generation);
                self.server = Some(if oom {
                    "killed, out of memory (oom)".to_owned()
                } else {
                    outcome.because(why.as_deref())
                });
                if oom {
                    tracing::warn!("the kernel killed the server's main process because memory ran out");
                }
            }
            Note::NotReadyInTime { .. } => self.server = Some(Outcome::NotReady.to_string()),
            Note::KeepsDying { .. } => self.server = Some(Outcome::KeepsDying.to_string()),
            Note::GivingUp { cause, failures, .. } => {
                self.cause = Some(cause.to_string());
                self.after = *failures;
            }
            Note::Stopping { .. } => self.cause = Some("stopped".to_owned()),
            _ => {}
        }
    }

    /// Writes the line.
    fn write(&self, status: u8, uptime: Duration) {
        let Self { server, cause, after, .. } = self;
        let uptime = show_rounded(uptime);
        let line = match (cause.as_deref(), server) {
            (Some("stopped"), _) => format!("stopped status={status} uptime={uptime}"),
            (Some(cause), Some(server)) => {
                format!("exit status={status} cause={cause} server=\"{server}\" after={after} uptime={uptime}")
            }
            (cause, _) => format!("exit status={status} cause={} uptime={uptime}", cause.unwrap_or("server-ended")),
        };
        self.termination.write(&line);
    }
}
