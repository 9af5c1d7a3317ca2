//! Where clients arrive: the address is ours for as long as we live, whatever happens behind it.
//!
//! The listening sockets are made here, and the servers inherit them: Gunicorn one for all workers, Granian one for each.
//! A program on the group of sockets that share the port decides who gets new connections ([`group`]), so that a new
//! generation gets none before it is ready, and the old one none while it finishes its requests. While nothing serves,
//! clients wait in the queues of the sockets that we keep.
//!
//! A Granian without the guard, or one that spawns its workers, opens its sockets in the same group by itself. To steer,
//! a copy of one of them is enough: we take one if the kernel permits it, and otherwise borrow it ([`borrowed`]).
//! `supervisor/steering.rs` describes the order in which the members of the group change their numbers then.
//!
//! Generations on a Unix socket have a path each, which is renamed to the public one ([`unix`]).

pub mod borrowed;
mod further;
mod group;
mod tcp;
#[cfg(test)]
mod tests;
mod unix;

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{Shutdown, shutdown};

use self::further::Further;
use self::group::Group;
use self::unix::Paths;
use crate::ids::GenerationId;
use crate::plan::Bind;
use crate::problem::Problem;

pub use self::tcp::private_listener;

/// The place where clients arrive.
///
/// Each generation that takes its listening sockets from us gets its own, so that new clients can be steered to one
/// generation while the other still accepts what waits for it. If a generation is gone and there is no other, clients
/// wait in its sockets until the next one takes them over.
#[derive(Debug)]
pub struct Listeners {
    bind: Bind,
    place: Place,
    /// What is served as well.
    further: Further,
}

#[derive(Debug)]
enum Place {
    Tcp {
        group: Group,
        /// Bound and never listening: it keeps the port.
        #[allow(dead_code, reason = "held, not used")]
        holder: OwnedFd,
    },
    Unix(Paths),
}

/// How the generations that remain came to their listening sockets, when another one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// There are none.
    Nobody,
    /// They have theirs from us.
    Lent,
    /// One of them opened its own.
    Own,
}

impl Listeners {
    /// Takes the addresses, as [`Self::claim`] does: the first one, and those that are served as well.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn claim_all(wanted: &Bind, further: &[Bind]) -> Result<Self, Problem> {
        let mut listeners = Self::claim(wanted)?;
        listeners.further = Further::claim(further)?;
        Ok(listeners)
    }

    /// The listening socket for one of the further addresses, which all generations share.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lend_further(&mut self, bind: &Bind, backlog: u32) -> nix::Result<&OwnedFd> {
        self.further.lend(bind, backlog)
    }

    /// Takes the address, which fails if anybody else has it: the socket is bound without `SO_REUSEPORT`.
    /// Afterwards it is opened to others that ask for `SO_REUSEPORT`, as our listeners and Granian's workers do.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn claim(wanted: &Bind) -> Result<Self, Problem> {
        let (bind, place) = match wanted {
            Bind::Tcp(address) => {
                let (holder, bound) = tcp::claim(*address).map_err(|errno| tcp::explain(*address, errno))?;
                (Bind::Tcp(bound), Place::Tcp { group: Group::new(bound), holder })
            }
            Bind::Unix(path) => {
                unix::clear(path)?;
                // Whatever would keep the socket from being made is found out by making one.
                drop(unix::make(path).map_err(|errno| unix::cannot(path, &errno.into()))?);
                let _ = std::fs::remove_file(path);
                (wanted.clone(), Place::Unix(Paths::new(path.clone())))
            }
        };
        Ok(Self { bind, place, further: Further::default() })
    }

    /// Where it is bound, with the port that was picked for port 0.
    #[must_use]
    pub const fn bind(&self) -> &Bind {
        &self.bind
    }

    /// Lends a generation so many listening sockets, one on a Unix socket: those that wait for a new owner, or new
    /// ones. No client gets to a new one beside others until [`Self::steer`] says so.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lend(&mut self, generation: GenerationId, count: usize, backlog: u32) -> nix::Result<Vec<&OwnedFd>> {
        match &mut self.place {
            Place::Tcp { group, .. } => group.lend(generation, count, backlog)?,
            Place::Unix(paths) => paths.lend(generation, backlog)?,
        }
        Ok(self.lent(generation))
    }

    /// Lends a generation one listening socket for all of its workers. It is as a server expects it that opens none
    /// itself: accepting waits for a client.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lend_shared(&mut self, generation: GenerationId, backlog: u32) -> nix::Result<Vec<&OwnedFd>> {
        let lent = self.lend(generation, 1, backlog)?;
        lent.iter().try_for_each(|socket| tcp::set_waiting(socket, true))?;
        Ok(lent)
    }

    /// What a generation has from us, in the order of its workers if each has its own.
    fn lent(&self, generation: GenerationId) -> Vec<&OwnedFd> {
        match &self.place {
            Place::Tcp { group, .. } => group.of(generation).unwrap_or_default(),
            Place::Unix(paths) => paths.of(generation).into_iter().collect(),
        }
    }

    /// Clients go to this generation, because there is no other.
    pub fn open_to(&mut self, generation: GenerationId) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.steer(&[(generation, 1)]);
            group.empty_idle();
        }
    }

    /// From now on new clients go to these generations alone, to each by its share.
    pub fn steer(&mut self, shares: &[(GenerationId, u32)]) {
        match &mut self.place {
            Place::Tcp { group, .. } => group.steer(shares),
            Place::Unix(paths) => shares.iter().for_each(|(generation, _)| paths.steer(*generation)),
        }
    }

    /// Which workers of a generation get no new clients, unless that leaves none: counted from 0 in the order of
    /// [`Self::lend`].
    pub fn withhold(&mut self, generation: GenerationId, workers: BTreeSet<usize>) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.withhold(generation, workers);
        }
    }

    /// The inodes of the sockets that a generation has from us, by which `/proc` names them.
    #[must_use]
    pub fn inodes(&self, generation: GenerationId) -> BTreeSet<u64> {
        inodes(self.lent(generation))
    }

    /// Whether a generation has its sockets from us.
    #[must_use]
    pub fn serves(&self, generation: GenerationId) -> bool {
        !self.lent(generation).is_empty()
    }

    /// How many members of the group that shares the port are ours.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.place {
            Place::Tcp { group, .. } => group.count(),
            Place::Unix(_) => 0,
        }
    }

    /// Keeps clients with those that they are steered to while so many others leave the group.
    pub fn pad(&mut self, count: usize) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.pad(count);
        }
    }

    /// Takes the sockets back from a generation that is gone.
    pub fn release(&mut self, generation: GenerationId, remaining: Remaining) {
        match &mut self.place {
            Place::Tcp { group, .. } => {
                group.release(generation);
                if remaining == Remaining::Own {
                    group.close_idle();
                }
                group.settle();
            }
            Place::Unix(paths) => paths.release(generation, remaining != Remaining::Nobody),
        }
    }

    /// Closes our copy of a listening socket; if it is shut down, nobody can connect to it, whoever else has a copy.
    pub fn close(&mut self, inode: u64, shut_down: bool) {
        let is_it = |socket: &OwnedFd| nix::sys::stat::fstat(socket).is_ok_and(|status| status.st_ino == inode);
        let closed = match &mut self.place {
            Place::Tcp { group, .. } => group.close(is_it),
            Place::Unix(paths) => paths.close(is_it),
        };
        if shut_down {
            closed.iter().for_each(close_for_all);
        }
    }

    /// The inodes of all sockets that any generation has from us, or had.
    #[must_use]
    pub fn all_inodes(&self) -> BTreeSet<u64> {
        let sockets: Vec<&OwnedFd> = match &self.place {
            Place::Tcp { group, .. } => group.all(),
            Place::Unix(paths) => paths.all(),
        };
        inodes(sockets)
    }

    /// The address of a Unix socket that a generation makes by itself; it takes the place of the old one when the
    /// generation is ready.
    #[must_use]
    pub fn own_path(&self, generation: GenerationId) -> Option<PathBuf> {
        match &self.place {
            Place::Unix(paths) => Some(paths.own(generation)),
            Place::Tcp { .. } => None,
        }
    }
}

fn inodes(sockets: Vec<&OwnedFd>) -> BTreeSet<u64> {
    let status = |socket: &OwnedFd| nix::sys::stat::fstat(socket).ok();
    sockets.into_iter().filter_map(status).map(|status| status.st_ino).collect()
}

/// Takes a socket out of service, whoever has a copy of it.
fn close_for_all(socket: &OwnedFd) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}
