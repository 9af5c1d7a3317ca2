//! Reaping.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::unistd::Pid;

/// The result of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// A child that has ended.
    Child(Pid, ExitStatus),
    /// There are children, and all of them are running.
    NoneEnded,
    /// There are no children. For a subreaper this also means no descendants.
    NoChildren,
}

/// Reaps one child of this thread that has ended, if there is one: other threads wait for the children that they have
/// started. Orphans become children of the main thread.
///
/// nix's `waitpid` reaps a child that was killed by a real-time signal and then fails without reporting which.
#[must_use]
pub fn reap() -> Reaped {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WNOTHREAD) };
        match pid {
            0 => return Reaped::NoneEnded,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Reaped::NoChildren,
            _ => return Reaped::Child(Pid::from_raw(pid), ExitStatus::from_raw(status)),
        }
    }
}
