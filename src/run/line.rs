//! Asking the workers of a generation for a copy of a listening socket, where the kernel does not let us take one.
//!
//! A pair of datagram sockets, of which all forked workers inherit the same end: the first one that hears a question
//! answers it. The guard is the other end.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};
use nix::sys::stat::fstat;

use crate::sys::scm::receive;

/// Nobody is waited for longer: it is asked in the middle of a handover, by the only thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// Our end.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Our end, and the one for the workers.
    ///
    /// # Errors
    /// When there is no descriptor to spare.
    pub fn open() -> nix::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        Ok((Self(ours), theirs))
    }

    /// A copy of the socket on which a worker listens, if one answers in time: one of those with these inodes.
    #[must_use]
    pub fn ask(&self, port: u16, inodes: &BTreeSet<u64>) -> Option<OwnedFd> {
        let until = Instant::now() + PATIENCE;
        // Who answered too late the last time has told of another moment.
        while receive(&self.0).is_ok() {}
        loop {
            let question = port.to_string();
            let parts = [IoSlice::new(question.as_bytes())];
            sendmsg::<UnixAddr>(self.0.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None).ok()?;
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || poll(&mut fds, super::poll_timeout(Some(left))).unwrap_or(0) == 0 {
                return None;
            }
            let answer = receive(&self.0).ok()?;
            let is_one = |socket: &OwnedFd| fstat(socket).is_ok_and(|status| inodes.contains(&status.st_ino));
            if let Some(socket) = answer.filter(is_one) {
                return Some(socket);
            }
            // That worker does not listen yet; another one may answer next time.
        }
    }
}
