//! How a generation's main process ended, or why there is none.

use std::fmt;

use nix::sys::signal::Signal;

use crate::problem::Exit;

/// How a main process ended, or failed to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
    /// It was not ready in time.
    NotReady,
    /// It could not be executed; a shell would exit with this status.
    NotStarted(u8),
    /// The system does not permit its start, and will not later.
    Refused,
    /// It has no worker any more, and gets none that is ready.
    NoWorkers,
    /// While it started, its workers died again and again.
    KeepsDying,
}

/// What failed when a process could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The program cannot be executed; a shell would exit with this status.
    Program(u8),
    /// The system has no room for another process, or for its descriptors, but may have some later; or the program is
    /// temporarily not available. The start is retried, and this does not count as a failure.
    NoRoom,
    /// The system refuses something, and would refuse it again.
    Refused,
}

impl Outcome {
    /// The exit status for it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) | Self::NotStarted(status) => status,
            Self::Signaled(signal) => u8::try_from(128 + signal).unwrap_or(255),
            Self::NotReady | Self::NoWorkers | Self::KeepsDying => Exit::NotReady.code(),
            Self::Refused => Exit::NotExecutable.code(),
        }
    }

    /// The outcome, followed by the reason if it is known.
    #[must_use]
    pub fn because(self, why: Option<&str>) -> String {
        why.map_or_else(|| self.to_string(), |why| format!("{self}: {why}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signaled(signal) => match Signal::try_from(*signal) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::NotReady => f.write_str("not ready in time"),
            Self::NotStarted(_) => f.write_str("could not be executed"),
            Self::Refused => f.write_str("the system does not permit its start"),
            Self::NoWorkers => f.write_str("no worker left"),
            Self::KeepsDying => f.write_str("its workers die before they are ready"),
        }
    }
}
