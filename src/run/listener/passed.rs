//! Listening sockets that a service manager passed to us.
//!
//! They are its sockets: it has copies of them, and clients wait there while we do not run. So they are lent to the
//! generations as they are. All generations share them; a waiting client is accepted by any generation that serves, and
//! there is nothing to steer. They are not shut down, their files are not removed, and their owner, mode, flags and
//! queue stay as they are. Only `TCP_NODELAY` is set, which both servers expect.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use tracing::debug;

use super::tcp;
use crate::ids::GenerationId;
use crate::plan::Bind;
use crate::problem::{Exit, Problem};
use crate::sys::passed;

/// The first of them, for which [`super::Listeners`] has generations to ask.
#[derive(Debug)]
pub(super) struct Passed {
    /// None after a stop.
    socket: Option<OwnedFd>,
    lent: BTreeSet<GenerationId>,
}

impl Passed {
    pub const fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), lent: BTreeSet::new() }
    }

    /// The socket, if it was lent to this generation.
    pub fn of(&self, generation: GenerationId) -> Option<&OwnedFd> {
        self.socket.as_ref().filter(|_| self.lent.contains(&generation))
    }

    pub fn lend(&mut self, generation: GenerationId) {
        self.lent.insert(generation);
    }

    pub fn release(&mut self, generation: GenerationId) {
        self.lent.remove(&generation);
    }

    pub fn all(&self) -> Vec<&OwnedFd> {
        self.socket.iter().collect()
    }

    /// Closes our copy, at a stop.
    pub fn close(&mut self, is_it: impl Fn(&OwnedFd) -> bool) {
        self.socket = self.socket.take().filter(|socket| !is_it(socket));
    }

    pub fn into_socket(self) -> Option<OwnedFd> {
        self.socket
    }
}

/// Takes possession of the sockets of these addresses, in this order.
pub(super) fn take<'a>(binds: impl Iterator<Item = &'a Bind>) -> Result<Vec<(Bind, OwnedFd)>, Problem> {
    let binds: Vec<Bind> = binds.cloned().collect();
    let sockets = passed::take(binds.len()).map_err(|errno| {
        Problem::new(Exit::Settings, format!("cannot use the sockets from systemd: {}", errno.desc()))
    })?;
    for (bind, socket) in binds.iter().zip(&sockets) {
        if matches!(bind, Bind::Tcp(_))
            && let Err(errno) = tcp::send_at_once(socket)
        {
            debug!(%bind, %errno, "TCP_NODELAY");
        }
    }
    Ok(binds.into_iter().zip(sockets).collect())
}
