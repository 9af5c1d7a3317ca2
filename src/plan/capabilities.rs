//! What a server can do, and how it must be treated, as plain data. The supervisor looks at this and never at which
//! server it is.

use std::time::Duration;

use nix::sys::signal::Signal;

/// What a server can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Signals, besides those that stop it, that its main process handles. Any other would end it.
    pub signals: &'static [Signal],
    /// How old every worker must be before one of them may be killed: the server gives up if one worker slot fails
    /// twice within a shorter time. Zero if it never does.
    pub least_age: Duration,
    /// Whether every child of its main process is a worker that takes a slot on the scoreboard.
    pub all_children_are_workers: bool,
    /// Exit statuses that mean "cannot boot" when they come before readiness.
    pub boot_statuses: Vec<u8>,
}

impl Capabilities {
    /// Whether its main process handles this signal.
    #[must_use]
    pub fn takes(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }

    /// Whether its main process starts one more worker on SIGTTIN, and ends one on SIGTTOU.
    #[must_use]
    pub fn is_resizable(&self) -> bool {
        [Signal::SIGTTIN, Signal::SIGTTOU].iter().all(|signal| self.takes(*signal))
    }
}

/// Gunicorn's. Its main process may load the app or a configuration file, which may have children of their own: whether
/// they do is decided with the plan.
pub(super) fn gunicorn() -> Capabilities {
    Capabilities {
        signals: &[Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGUSR1, Signal::SIGWINCH],
        least_age: Duration::ZERO,
        all_children_are_workers: false,
        boot_statuses: vec![3, 4],
    }
}

/// Granian's. It gives up when one worker slot fails twice within 5.5 s.
pub(super) fn granian() -> Capabilities {
    Capabilities {
        signals: &[],
        least_age: Duration::from_secs(6),
        all_children_are_workers: true,
        boot_statuses: vec![1],
    }
}
