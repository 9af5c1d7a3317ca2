//! One worker: its process, its pidfd, and how it ended.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Cause;
use crate::proc::process::Process;
use crate::proc::usage::{self, Unreaped};
use crate::sys::pidfd::PidFd;

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) handle: Option<PidFd>,
    /// How it ended, as far as is known.
    pub(super) end: End,
    /// Why we ended it, if we did.
    pub(super) remedy: Option<Cause>,
    /// Whether its end was reported already.
    pub(super) is_reported: bool,
}

/// What is known about the end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is running, or has not been seen to have ended.
    NotSeen,
    /// It has ended, and the kernel may report how once its parent has reaped it.
    Hidden {
        /// Since when.
        since: Instant,
    },
    /// It became our child and was reaped, or it was a zombie that we may inspect.
    Known(ExitStatus),
    /// It cannot be found out.
    Unknown,
}

/// How long its parent may take to reap a worker of another user; until then the kernel does not report to us how it
/// ended.
const REAPED_WITHIN: Duration = Duration::from_millis(250);
/// A process that executes a program has done so before it is this old: it takes milliseconds, and longer where programs are
/// scanned first, or are far away.
const SETTLED: Duration = Duration::from_secs(2);

impl Worker {
    /// Whether it is certain to be what it seems to be. Programs that a main process executes, and helpers of its Python, are
    /// copies of it first, just as workers are.
    pub(super) fn is_settled(&self) -> bool {
        !self.process.is_copy || usage::age(&self.process) >= SETTLED
    }

    /// Finds out whether it has ended, and how.
    pub(super) fn find_end(&mut self, ready: &BTreeSet<RawFd>, now: Instant) {
        let Some(handle) = &self.handle else { return };
        let since = match self.end {
            End::Hidden { since } => since,
            End::NotSeen if ready.contains(&handle.as_fd().as_raw_fd()) && has_ended(handle) => now,
            _ => return,
        };
        self.end = match usage::unreaped(&self.process) {
            Some(Unreaped::Status(status)) => End::Known(status),
            Some(Unreaped::Hidden) if now < since + REAPED_WITHIN => End::Hidden { since },
            // Its parent may have reaped it since the first check, but never before the second one can be answered.
            _ => handle.exit_status().map_or(End::Unknown, End::Known),
        };
    }

    /// How it ended, as far as that can be found out now.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        if let End::Known(status) = self.end {
            return Some(status);
        }
        match usage::unreaped(&self.process) {
            Some(Unreaped::Status(status)) => Some(status),
            _ => self.handle.as_ref().and_then(PidFd::exit_status),
        }
    }
}

/// A handle on exactly this process.
pub(super) fn open(process: &Process) -> Option<PidFd> {
    let handle = PidFd::open(process.pid).ok()?;
    Process::read(process.pid).filter(|now| now.start == process.start).map(|_| handle)
}

fn has_ended(handle: &PidFd) -> bool {
    let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
