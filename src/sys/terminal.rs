//! The size of a terminal.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Its columns and rows; none if it is no terminal, or if nobody has said yet how large it is.
#[must_use]
pub fn size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one structure of this type.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}
