//! Descriptors that this program was started with, by number: the sockets of a service manager (`sd_listen_fds(3)`).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;

/// The number of the first one.
pub const FIRST: RawFd = 3;

/// A copy of the descriptor with this number, to look at.
///
/// # Errors
/// EBADF if it is not open.
pub fn copy(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: fcntl takes three numbers, and returns a new descriptor, which nobody else owns.
    unsafe {
        let copy = Errno::result(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST))?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}

/// Takes possession of the first `count`, which must have been open when the program was started. From now on they are
/// closed on exec.
///
/// # Errors
/// EALREADY at the second time; EBADF if one is not open.
pub fn take(count: usize) -> nix::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Err(Errno::EALREADY);
    }
    let take = |number| {
        close_on_exec(number, true)?;
        // SAFETY: it is open and was so before this program opened anything, so nothing here owns it yet; and this
        // happens only once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    (FIRST..).take(count).map(take).collect()
}

/// Leaves what was taken open for the program that is about to be executed.
///
/// # Errors
/// The error of the kernel.
pub fn leave(sockets: Vec<OwnedFd>) -> nix::Result<()> {
    use std::os::fd::IntoRawFd;
    sockets.into_iter().try_for_each(|socket| close_on_exec(socket.into_raw_fd(), false))
}

fn close_on_exec(number: RawFd, closed: bool) -> nix::Result<()> {
    let flags = if closed { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: fcntl takes three numbers.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, flags) }).map(drop)
}
