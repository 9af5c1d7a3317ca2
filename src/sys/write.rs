//! Writing without waiting to a descriptor that others share, so that it cannot be made non-blocking.

use std::io::IsTerminal;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// What a pipe accepts as a whole, or not at all.
const PIECE: usize = libc::PIPE_BUF;
/// What a terminal certainly accepts if it reports that it can be written to.
const TERMINAL_PIECE: usize = 256;

/// Writes as much as is accepted at once.
///
/// # Errors
/// EAGAIN if nothing is accepted; else the error of `write(2)`.
pub fn write_now(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    match send(descriptor.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Err(Errno::ENOTSOCK) => {}
        result => return result,
    }
    match write_no_wait(descriptor, bytes) {
        // Only pipes do that, from Linux 6.4 on.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {}
        result => return result,
    }
    let mut fds = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    // Another process may fill the pipe at this moment; that cannot be prevented here.
    let most = if descriptor.is_terminal() { TERMINAL_PIECE } else { PIECE };
    nix::unistd::write(descriptor, &bytes[..bytes.len().min(most)])
}

/// `pwritev2(2)` at the current position, with `RWF_NOWAIT`.
fn write_no_wait(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the vector has one entry, which describes memory that outlives the call and is only read.
    let written = unsafe {
        libc::syscall(
            libc::SYS_pwritev2,
            descriptor.as_raw_fd(),
            &raw const piece,
            1_usize,
            -1_isize,
            -1_isize,
            libc::RWF_NOWAIT,
        )
    };
    Errno::result(written).map(|written| usize::try_from(written).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use std::io::Read;
    use std::os::fd::AsFd;

    /// Fills it, and returns how much it accepted.
    fn fill(descriptor: BorrowedFd<'_>) -> usize {
        let mut taken = 0;
        for _ in 0..1_000_000 {
            match write_now(descriptor, &[b'x'; 1000]) {
                Ok(written) => taken += written,
                Err(errno) => {
                    assert_eq!(errno, Errno::EAGAIN);
                    return taken;
                }
            }
        }
        panic!("it is never full");
    }

    #[test]
    fn what_is_full_is_not_waited_for() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let taken = fill(writer.as_fd());
        reader.read_exact(&mut vec![0; taken.min(8192)]).unwrap();
        assert!(write_now(writer.as_fd(), b"more").is_ok(), "there is room again");
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(fill(ours.as_fd()) > 0);
        let terminal = nix::pty::openpty(None, None).unwrap();
        assert!(fill(terminal.slave.as_fd()) > 0);
    }

    #[test]
    fn a_file_takes_it_all() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write_now(file.as_fd(), b"text"), Ok(4));
    }

    #[test]
    fn where_nobody_reads_it_fails() {
        alone(|| {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            assert_eq!(write_now(writer.as_fd(), b"text"), Err(Errno::EPIPE));
        });
    }
}
