//! The cause of the exit in one line, put together from what the state machine says on the way.

use std::time::Instant;

use crate::supervisor::Supervisor;
use crate::supervisor::machine::generation::{Note, Outcome};
use crate::supervisor::observers::log::show_rounded;

/// What is known of the cause of the exit.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct ExitReason {
    /// How the server ended last, while nobody had asked it to.
    server: Option<String>,
    /// Why we end.
    cause: Option<String>,
    after: u64,
}

impl Supervisor<'_> {
    /// Keeps what will be of interest at the end.
    pub(in crate::supervisor) fn remember(&mut self, note: &Note) {
        match note {
            Note::MainExited { outcome, why, .. } => {
                let oom = *outcome == Outcome::Signaled(libc::SIGKILL) && self.workers.was_oom(Instant::now());
                self.exit_reason.server = Some(if oom {
                    "killed for lack of memory (oom)".to_owned()
                } else {
                    outcome.because(why.as_deref())
                });
                if oom {
                    tracing::warn!("the kernel killed the server's main process for lack of memory");
                }
            }
            Note::NotReadyInTime { .. } => self.exit_reason.server = Some(Outcome::NotReady.to_string()),
            Note::GivingUp { cause, failures, .. } => {
                self.exit_reason.cause = Some(cause.to_string());
                self.exit_reason.after = *failures;
            }
            Note::Stopping { .. } => self.exit_reason.cause = Some("stopped".to_owned()),
            _ => {}
        }
    }

    /// Writes the line.
    pub(in crate::supervisor) fn write_last_word(&self, status: u8) {
        let ExitReason { server, cause, after } = &self.exit_reason;
        let uptime = show_rounded(self.started.elapsed());
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
