//! Asking the workers of a generation for a copy of a listening socket, if the kernel does not let us take one.
//!
//! A pair of datagram sockets, of which all forked workers inherit the same end: the first one that receives a request
//! answers it. The guard is the other end.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};
use nix::sys::stat::fstat;

use crate::sys::scm::receive;

/// The limit of a wait: it happens in the middle of a handover, in the only thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// Our end.
#[derive(Debug)]
pub struct BorrowedSockets {
    socket: OwnedFd,
    /// Requests that may still be answered.
    unanswered: Cell<u32>,
}

impl BorrowedSockets {
    /// Our end, and the one for the workers.
    ///
    /// # Errors
    /// If no descriptor is available.
    pub fn open() -> nix::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        Ok((Self { socket, unanswered: Cell::new(0) }, theirs))
    }

    /// A copy of the socket on which a worker listens, if one answers in time: one of those with these inodes.
    #[must_use]
    pub fn ask(&self, inodes: &BTreeSet<u64>) -> Option<OwnedFd> {
        let until = Instant::now() + PATIENCE;
        self.drain();
        let question = inodes.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        loop {
            let parts = [IoSlice::new(question.as_bytes())];
            sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None).ok()?;
            self.unanswered.set(self.unanswered.get() + 1);
            let answer = self.wait(until).ok()?;
            let is_one = |socket: &OwnedFd| fstat(socket).is_ok_and(|status| inodes.contains(&status.st_ino));
            if let Some(socket) = answer.filter(is_one) {
                return Some(socket);
            }
            // That worker does not listen yet; another one may answer next time.
        }
    }

    /// The descriptor on which late answers arrive, to be polled: a copy of a socket that is not received would keep
    /// the socket alive after its worker has ended.
    #[must_use]
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        (self.unanswered.get() > 0).then(|| self.socket.as_fd())
    }

    /// Drops answers that came too late.
    pub fn drain(&self) {
        while self.unanswered.get() > 0 && self.receive().is_ok() {}
    }

    /// An answer, with a socket or without one.
    fn wait(&self, until: Instant) -> nix::Result<Option<OwnedFd>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::ETIMEDOUT);
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, crate::run::poll_timeout(Some(left))) {
                Ok(1..) => return self.receive(),
                // Children end in the middle of a handover, so SIGCHLD may interrupt the call.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn receive(&self) -> nix::Result<Option<OwnedFd>> {
        let received = receive(&self.socket)?;
        self.unanswered.set(self.unanswered.get().saturating_sub(1));
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use nix::sys::socket::{ControlMessage, MsgFlags};
    use std::net::TcpListener;

    fn inode(socket: impl AsFd) -> u64 {
        fstat(socket).unwrap().st_ino
    }

    fn answer(theirs: &OwnedFd, socket: Option<&TcpListener>) {
        let descriptors: Vec<_> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &control };
        let parts = [IoSlice::new(b"+")];
        sendmsg::<UnixAddr>(theirs.as_raw_fd(), &parts, control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn the_first_worker_that_listens_is_taken_and_no_other_socket() {
        let (line, theirs) = BorrowedSockets::open().unwrap();
        let [listener, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let wanted = BTreeSet::from([inode(&listener)]);
        answer(&theirs, None);
        answer(&theirs, Some(&other));
        answer(&theirs, Some(&listener));
        assert_eq!(inode(line.ask(&wanted).unwrap()), inode(&listener));
    }

    #[test]
    fn an_answer_that_comes_too_late_is_not_kept() {
        alone(|| {
            let (line, theirs) = BorrowedSockets::open().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(line.ask(&BTreeSet::from([inode(&listener)])).is_none());
            assert!(line.interest().is_some());
            answer(&theirs, Some(&listener));
            line.drain();
            assert!(line.interest().is_none());
            let address = listener.local_addr().unwrap();
            drop(listener);
            assert!(std::net::TcpStream::connect(address).is_err(), "nobody has a copy of it");
        });
    }
}
