//! Telling a main process which of its workers have a successor already, so that it starts none for them when they end.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2, write};
use tracing::warn;

/// The launcher's end of a pipe to one generation's main process. A message is a process number, in four bytes in the
/// machine's order.
#[derive(Debug)]
pub struct Successors {
    pipe: OwnedFd,
}

impl Successors {
    /// A pipe, and the end for the main process, which must not wait when it reads.
    ///
    /// # Errors
    /// If no descriptors are available.
    pub fn open() -> nix::Result<(Self, OwnedFd)> {
        let (theirs, pipe) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok((Self { pipe }, theirs))
    }

    /// This worker is about to leave, and another one has been started in its place.
    pub fn announce(&self, worker: Pid) {
        // Only a main process that has just ended does not read it.
        if let Err(errno) = write(&self.pipe, &worker.as_raw().to_ne_bytes()) {
            warn!(pid = %worker, error = errno.desc(), "the main process cannot be told that this worker has a successor");
        }
    }
}
