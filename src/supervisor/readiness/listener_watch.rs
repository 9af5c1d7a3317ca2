//! Looking for the listening sockets of a generation's workers, if they open their own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use nix::unistd::Pid;

use super::pace::Pace;
use crate::proc::process::Process;
use crate::proc::sockets;

/// Looks for the listening sockets of a generation's workers.
#[derive(Debug)]
pub struct ListenerWatch {
    address: SocketAddr,
    /// Sockets that do not count, by inode.
    ignored: BTreeSet<u64>,
    workers: usize,
    pace: Pace,
}

impl ListenerWatch {
    /// A watch whose first check is due at once.
    #[must_use]
    pub const fn new(address: SocketAddr, workers: usize, now: Instant) -> Self {
        Self { address, ignored: BTreeSet::new(), workers, pace: Pace::new(now) }
    }

    /// These sockets do not count, by inode.
    #[must_use]
    pub fn ignoring(self, ignored: BTreeSet<u64>) -> Self {
        Self { ignored, ..self }
    }

    /// When the next check is due.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.pace.next()
    }

    /// Checks if that is due, and returns whether as many workers listen as there should be.
    pub fn advance(&mut self, members: impl FnOnce() -> Vec<Process>, main: Pid, now: Instant) -> bool {
        if !self.pace.take_due(now) {
            return false;
        }
        let inodes = &sockets::at(self.address) - &self.ignored;
        if inodes.len() < self.workers {
            return false;
        }
        let workers = members().into_iter().filter(|member| member.pid != main && !member.is_zombie());
        let owned: BTreeSet<u64> =
            workers.flat_map(|worker| sockets::owned(worker.pid.as_raw(), &inodes)).map(|(_, inode)| inode).collect();
        owned.len() >= self.workers
    }
}
