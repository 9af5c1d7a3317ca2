//! The listening sockets. The launcher keeps the address for its whole life, whatever happens to the servers.
//!
//! The servers inherit their listening sockets: Gunicorn one for all workers, Granian one for each worker.
//! A program on the group of sockets that share the port decides who gets new connections ([`group`]), so that a new
//! generation gets none before it is ready, and the old one none while it finishes its requests. While nothing serves,
//! clients wait in the queues of the sockets that we keep.
//!
//! Granian without the guard, or with spawned workers, opens its own sockets in the same group. To steer, a copy of one of
//! them is enough: we take one if the kernel permits it, and otherwise borrow it ([`borrowed`]). `supervisor/steering.rs`
//! describes how the numbers of the group's members change then.
//!
//! On Unix sockets each generation has a path of its own, which is renamed to the public path ([`unix`]).
//!
//! Sockets that a service manager passed to us are shared by all generations and left as they are ([`passed`]).

pub mod borrowed;
mod further;
mod group;
mod passed;
mod private;
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
use self::passed::Passed;
use self::unix::Paths;
use crate::ids::GenerationId;
use crate::plan::Bind;
use crate::problem::Problem;

pub use self::private::{Way, private_listener};

/// The listening sockets of all generations.
///
/// Each generation that inherits its sockets gets its own, so that new clients can be steered to one generation while
/// the other still accepts clients that wait for it. When the last generation has ended, clients wait in its sockets
/// until the next one takes them over.
#[derive(Debug)]
pub struct Listeners {
    bind: Bind,
    place: Place,
    /// The further addresses.
    further: Further,
}

#[derive(Debug)]
enum Place {
    Tcp {
        group: Group,
        /// Bound, but never listening: it reserves the port.
        #[allow(dead_code, reason = "held, not used")]
        holder: OwnedFd,
    },
    Unix(Paths),
    Passed(Passed),
}

/// Where the remaining generations got their listening sockets, after another one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// There are none.
    Nobody,
    /// All of them inherited theirs.
    Lent,
    /// One of them opened its own.
    Own,
}

impl Listeners {
    /// Takes the addresses, as [`Self::claim`] does: the first one and the further ones.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn claim_all(wanted: &Bind, further: &[Bind]) -> Result<Self, Problem> {
        let mut listeners = Self::claim(wanted)?;
        listeners.further = Further::claim(further)?;
        Ok(listeners)
    }

    /// Takes over the sockets that were passed to us, and listen on these addresses.
    ///
    /// # Errors
    /// The problem, in the user's terms.
    pub fn passed(first: &Bind, further: &[Bind]) -> Result<Self, Problem> {
        let mut sockets = passed::take(std::iter::once(first).chain(further))?;
        let (bind, socket) = sockets.remove(0);
        Ok(Self { bind, place: Place::Passed(Passed::new(socket)), further: Further::passed(sockets) })
    }

    /// Gives up the addresses, because the server will take our place: it binds them itself, or inherits the sockets that
    /// were passed to us.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn leave_to_server(self) -> nix::Result<()> {
        let Place::Passed(first) = self.place else { return Ok(()) };
        let sockets = first.into_socket().into_iter().chain(self.further.into_sockets());
        crate::sys::passed::leave(sockets.collect())
    }

    /// The listening socket for one of the further addresses, which all generations share.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn lend_further(&mut self, bind: &Bind, backlog: u32) -> nix::Result<&OwnedFd> {
        self.further.lend(bind, backlog)
    }

    /// Takes the address, which fails if another process has it: the socket is bound without `SO_REUSEPORT`. Afterwards
    /// it is opened to others that ask for `SO_REUSEPORT`, as our listeners and Granian's workers do.
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
                // Creating a socket shows whether that is possible.
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

    /// Lends a generation this number of listening sockets, or one on a Unix socket: idle ones first, then new ones. New
    /// sockets get no clients until [`Self::steer`], unless they are the only ones.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn lend(&mut self, generation: GenerationId, count: usize, backlog: u32) -> nix::Result<Vec<&OwnedFd>> {
        match &mut self.place {
            Place::Tcp { group, .. } => group.lend(generation, count, backlog)?,
            Place::Unix(paths) => paths.lend(generation, backlog)?,
            Place::Passed(passed) => passed.lend(generation),
        }
        Ok(self.lent(generation))
    }

    /// Lends a generation one listening socket for all of its workers, in blocking mode, as servers expect an inherited
    /// socket.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn lend_shared(&mut self, generation: GenerationId, backlog: u32) -> nix::Result<Vec<&OwnedFd>> {
        let is_ours = !matches!(self.place, Place::Passed(_));
        let lent = self.lend(generation, 1, backlog)?;
        lent.iter().filter(|_| is_ours).try_for_each(|socket| tcp::set_waiting(socket, true))?;
        Ok(lent)
    }

    /// The sockets that were lent to a generation, in the order of its workers if each has its own.
    fn lent(&self, generation: GenerationId) -> Vec<&OwnedFd> {
        match &self.place {
            Place::Tcp { group, .. } => group.of(generation).unwrap_or_default(),
            Place::Unix(paths) => paths.of(generation).into_iter().collect(),
            Place::Passed(passed) => passed.of(generation).into_iter().collect(),
        }
    }

    /// Sends new clients to this generation, because there is no other.
    pub fn open_to(&mut self, generation: GenerationId) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.steer(&[(generation, 1)]);
            group.empty_idle();
        }
    }

    /// Sends new clients only to these generations, in these proportions.
    pub fn steer(&mut self, shares: &[(GenerationId, u32)]) {
        match &mut self.place {
            Place::Tcp { group, .. } => group.steer(shares),
            Place::Unix(paths) => shares.iter().for_each(|(generation, _)| paths.steer(*generation)),
            Place::Passed(_) => {}
        }
    }

    /// Sends no new clients to these workers of a generation, unless no worker would be left. They are counted from 0, in
    /// the order of [`Self::lend`].
    pub fn withhold(&mut self, generation: GenerationId, workers: BTreeSet<usize>) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.withhold(generation, workers);
        }
    }

    /// The inodes of the sockets that were lent to a generation, by which `/proc` identifies them.
    #[must_use]
    pub fn inodes(&self, generation: GenerationId) -> BTreeSet<u64> {
        inodes(self.lent(generation))
    }

    /// Whether sockets were lent to a generation.
    #[must_use]
    pub fn serves(&self, generation: GenerationId) -> bool {
        !self.lent(generation).is_empty()
    }

    /// How many members of the group that shares the port are ours.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.place {
            Place::Tcp { group, .. } => group.count(),
            Place::Unix(_) | Place::Passed(_) => 0,
        }
    }

    /// Keeps steering valid while this number of other sockets leave the group.
    pub fn pad(&mut self, count: usize) {
        if let Place::Tcp { group, .. } = &mut self.place {
            group.pad(count);
        }
    }

    /// Takes the sockets back from a generation that has ended.
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
            Place::Passed(passed) => passed.release(generation),
        }
    }

    /// Closes our copy of a listening socket. If it is shut down, nobody can connect to it through any copy; one that was
    /// passed to us never is.
    pub fn close(&mut self, inode: u64, shut_down: bool) {
        let is_it = |socket: &OwnedFd| nix::sys::stat::fstat(socket).is_ok_and(|status| status.st_ino == inode);
        let closed = match &mut self.place {
            Place::Tcp { group, .. } => group.close(is_it),
            Place::Unix(paths) => paths.close(is_it),
            Place::Passed(passed) => return passed.close(is_it),
        };
        if shut_down {
            closed.iter().for_each(close_for_all);
        }
    }

    /// The inodes of all our sockets, idle ones included.
    #[must_use]
    pub fn all_inodes(&self) -> BTreeSet<u64> {
        let sockets: Vec<&OwnedFd> = match &self.place {
            Place::Tcp { group, .. } => group.all(),
            Place::Unix(paths) => paths.all(),
            Place::Passed(passed) => passed.all(),
        };
        inodes(sockets)
    }

    /// The path of a generation's Unix socket until the generation takes over.
    #[must_use]
    pub fn own_path(&self, generation: GenerationId) -> Option<PathBuf> {
        match &self.place {
            Place::Unix(paths) => Some(paths.own(generation)),
            Place::Tcp { .. } | Place::Passed(_) => None,
        }
    }
}

fn inodes(sockets: Vec<&OwnedFd>) -> BTreeSet<u64> {
    let status = |socket: &OwnedFd| nix::sys::stat::fstat(socket).ok();
    sockets.into_iter().filter_map(status).map(|status| status.st_ino).collect()
}

/// Takes a socket out of service for all processes that have a copy.
fn close_for_all(socket: &OwnedFd) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}
