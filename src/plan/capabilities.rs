//! What a server can do, and what it must be spared, as plain data. Whoever looks after a server asks for this and
//! never which server it is.

use std::time::Duration;

use nix::sys::signal::Signal;

/// How a server's workers come to their listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// They serve on the socket that the server was started with, which may be the launcher's.
    Inherited,
    /// Each opens its own, in a group that shares the port (`SO_REUSEPORT`).
    Own,
}

/// What a server can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// How its workers come to their listening sockets.
    pub listening: Listening,
    /// Signals beside those for a stop that mean something to its main process. Any other would end it.
    pub signals: &'static [Signal],
    /// What tells its main process, or one of its workers, to finish what it has and leave.
    pub leave: Signal,
    /// How old every worker must be before one of them may be made to end: the server gives up when a worker's place
    /// fails twice within a shorter time. Zero if it never does.
    pub least_age: Duration,
    /// Whether every child of its main process is a worker that takes a slot on the scoreboard.
    pub all_children_are_workers: bool,
    /// Whether its main process puts a new worker in the place of one that has ended. If not, the end of one worker is
    /// the end of the server.
    pub respawns: bool,
    /// Whether it restarts its workers by itself when the code changes.
    pub reloads: bool,
    /// Exit statuses that mean "cannot boot" when they come before readiness.
    pub boot_statuses: Vec<u8>,
}

impl Capabilities {
    /// Whether this signal means something to its main process.
    #[must_use]
    pub fn takes(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }

    /// Whether its main process starts one worker more on SIGTTIN, and ends one on SIGTTOU.
    #[must_use]
    pub fn is_resizable(&self) -> bool {
        [Signal::SIGTTIN, Signal::SIGTTOU].iter().all(|signal| self.takes(*signal))
    }
}

/// Gunicorn's. Its main process may load the app or a configuration file, which may have children of their own: whether
/// they do is decided with the plan.
pub(super) fn gunicorn() -> Capabilities {
    Capabilities {
        listening: Listening::Inherited,
        signals: &[Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGUSR1, Signal::SIGWINCH],
        leave: Signal::SIGTERM,
        least_age: Duration::ZERO,
        all_children_are_workers: false,
        respawns: true,
        reloads: false,
        boot_statuses: vec![3, 4],
    }
}

/// Granian's. It gives up when one worker's place fails twice within 5.5 s.
pub(super) fn granian() -> Capabilities {
    Capabilities {
        listening: Listening::Own,
        signals: &[],
        leave: Signal::SIGTERM,
        least_age: Duration::from_secs(6),
        all_children_are_workers: true,
        respawns: true,
        reloads: false,
        boot_statuses: vec![1],
    }
}
