//! Signals as a readable descriptor, with the information who sent them.
//!
//! No signal is lost from the first instruction on. A constructor blocks every signal before `main` (`sys/entry.rs`)
//! and records the inherited mask and dispositions. If we are PID 1, the kernel drops a signal that is neither blocked
//! nor caught; a blocked one waits. Once there is a supervisor that can act on them, the handlers are installed and the
//! mask is opened. The plain init forwards every signal, so it leaves them blocked and reads them from a descriptor.
//! Between fork and exec everything is blocked again, so that no handler runs in the child, and the child gets exactly
//! the signal state that it would have without us.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use crate::sys::{self, SignalState, set_mask};

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// Whether the kernel sent it, as the terminal driver does, and not a process.
    pub from_kernel: bool,
}

/// The signals that this process handles.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

impl Signals {
    /// Installs the handlers, then unblocks those signals, which may have waited since the start of the program, and
    /// restores the mask of the others. Handlers do not survive exec, so children start with none.
    ///
    /// # Errors
    /// If the kernel has no descriptors left, or rejects a handler.
    pub fn install(signals: &[i32], inherited: SignalState) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), signals)?;
        let handled = signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
        set_mask(inherited.blocked & !handled);
        Ok(Self { delivery })
    }

    /// What has arrived since the last call, each signal once: their order within a batch has no meaning.
    pub fn drain(&mut self) -> BTreeSet<Received> {
        let received = self
            .delivery
            .pending()
            .map(|origin| Received { signal: origin.signal, from_kernel: origin.cause == Cause::Kernel });
        received.collect()
    }
}

/// Signals that stay blocked and are read from the kernel (`signalfd(2)`), for the plain init, which forwards all of
/// them: installing sixty handlers would take longer than everything else that it does.
#[derive(Debug)]
pub struct BlockedSignals(OwnedFd);

impl BlockedSignals {
    /// Receives these signals, including those that have waited since the start of the program, and restores the mask
    /// of all others. Children must be started with [`sys::spawn`], which restores the mask that we inherited.
    ///
    /// # Errors
    /// If the kernel has no descriptors left.
    pub fn install(signals: &[i32], inherited: SignalState) -> io::Result<Self> {
        let taken = Self::take(signals)?;
        set_mask(signals.iter().fold(inherited.blocked, |mask, signal| mask | 1 << (signal - 1)));
        Ok(taken)
    }

    /// Receives these signals while all are blocked, as they are from the start of the program on; the others wait for
    /// the next reader.
    ///
    /// # Errors
    /// If the kernel has no descriptors left.
    pub fn take(signals: &[i32]) -> io::Result<Self> {
        let wanted = signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
        let descriptor = sys::signal_descriptor(wanted)?;
        // If our parent ignored it, the kernel would reap our children for us.
        sys::reset(libc::SIGCHLD);
        Ok(Self(descriptor))
    }

    /// What has arrived since the last call, each signal once.
    pub fn drain(&mut self) -> BTreeSet<i32> {
        const RECORD: usize = size_of::<libc::signalfd_siginfo>();
        let mut received = BTreeSet::new();
        let mut records = [0; 16 * RECORD];
        while let Ok(length @ 1..) = nix::unistd::read(&self.0, &mut records) {
            // Each record begins with the number.
            let numbers = records[..length].chunks_exact(RECORD).filter_map(|record| record[..4].try_into().ok());
            received.extend(numbers.map(i32::from_ne_bytes));
        }
        received
    }
}

impl AsFd for BlockedSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}
