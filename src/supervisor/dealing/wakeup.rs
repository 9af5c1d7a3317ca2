//! The pipe through which workers wake the launcher, which then looks at their scoreboard.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};

/// The launcher's end of the pipe of one generation.
#[derive(Debug)]
pub struct Wakeup {
    pipe: OwnedFd,
    /// A copy of the workers' end. Without it, the pipe would become readable for good, and the loop would spin, when the
    /// server closes all descriptors that it does not know.
    _workers_end: OwnedFd,
}

impl Wakeup {
    /// A pipe, and the end for the workers.
    ///
    /// # Errors
    /// If no descriptors are available.
    pub fn open() -> nix::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let copy = theirs.try_clone().map_err(|_| nix::errno::Errno::EMFILE)?;
        Ok((Self { pipe, _workers_end: copy }, theirs))
    }

    /// Empties the pipe, and returns whether a worker has written to it.
    pub fn take(&self) -> bool {
        let mut buffer = [0; 256];
        let mut is_woken = false;
        while matches!(read(&self.pipe, &mut buffer), Ok(1..)) {
            is_woken = true;
        }
        is_woken
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(wakeup: &Wakeup) -> bool {
        poll(&mut [PollFd::new(wakeup.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn it_is_readable_when_a_worker_has_written_and_not_when_all_have_closed_their_end() {
        let (wakeup, theirs) = Wakeup::open().unwrap();
        assert!(!is_readable(&wakeup) && !wakeup.take());
        nix::unistd::write(&theirs, b"xx").unwrap();
        assert!(is_readable(&wakeup) && wakeup.take());
        assert!(!is_readable(&wakeup) && !wakeup.take());
        drop(theirs);
        assert!(!is_readable(&wakeup), "the loop would spin");
    }
}
