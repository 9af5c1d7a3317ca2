//! Listening sockets on paths.
//!
//! Each generation has a path of its own, which is renamed to the public one when it takes over.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use super::tcp::listen_on;
use crate::ids::GenerationId;
use crate::problem::{Exit, Problem};

/// The sockets that we made for a path.
#[derive(Debug)]
pub(super) struct Paths {
    path: PathBuf,
    sockets: Vec<(OwnedFd, Option<GenerationId>)>,
}

impl Paths {
    pub const fn new(path: PathBuf) -> Self {
        Self { path, sockets: Vec::new() }
    }

    /// The socket that is lent to a generation.
    pub fn of(&self, generation: GenerationId) -> Option<&OwnedFd> {
        self.sockets.iter().find(|(_, owner)| *owner == Some(generation)).map(|(socket, _)| socket)
    }

    /// Lends a generation a socket: one that waits for a new owner, or a new one that clients do not know yet.
    pub fn lend(&mut self, generation: GenerationId, backlog: u32) -> nix::Result<()> {
        if let Some((_, owner)) = self.sockets.iter_mut().find(|(_, owner)| owner.is_none()) {
            *owner = Some(generation);
            return Ok(());
        }
        let is_first = self.sockets.is_empty() && !self.path.exists();
        let socket = make(&if is_first { self.path.clone() } else { self.own(generation) })?;
        listen_on(&socket, backlog)?;
        self.sockets.push((socket, Some(generation)));
        Ok(())
    }

    /// Renames the generation's path to the public one, atomically, whether we or the server created it.
    pub fn steer(&self, generation: GenerationId) {
        let _ = std::fs::rename(self.own(generation), &self.path);
    }

    /// Takes the socket back from a generation that has ended. It is closed if others serve, and kept if not.
    pub fn release(&mut self, generation: GenerationId, others_serve: bool) {
        let _ = std::fs::remove_file(self.own(generation));
        self.sockets.retain(|(_, owner)| !others_serve || *owner != Some(generation));
        self.sockets.iter_mut().filter(|(_, owner)| *owner == Some(generation)).for_each(|(_, owner)| *owner = None);
    }

    /// The path of one generation, until it takes over.
    pub fn own(&self, generation: GenerationId) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".g{generation}"));
        name.into()
    }

    pub fn all(&self) -> Vec<&OwnedFd> {
        self.sockets.iter().map(|(socket, _)| socket).collect()
    }

    /// Removes sockets for good, at a stop.
    pub fn close(&mut self, is_it: impl Fn(&OwnedFd) -> bool) -> Vec<OwnedFd> {
        self.sockets.extract_if(.., |(socket, _)| is_it(socket)).map(|(socket, _)| socket).collect()
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes sure that the path is free, and removes the socket of a predecessor that was killed.
pub(super) fn clear(path: &Path) -> Result<(), Problem> {
    let shown = path.display();
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) {
        let message = format!("cannot create the Unix socket {shown}: the path exists and is not a socket");
        return Err(Problem::new(Exit::Settings, message).hint("remove it or choose another path"));
    }
    if is_listening(path) {
        let message = format!("another process is listening on the Unix socket {shown}");
        return Err(Problem::new(Exit::Taken, message).hint("stop it or choose another path"));
    }
    std::fs::remove_file(path).map_err(|error| cannot(path, &error))
}

/// Whether a process listens on a Unix socket. That includes sockets with a full queue, on which connecting would block.
fn is_listening(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connected = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|socket| nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?));
    matches!(connected, Ok(()) | Err(Errno::EAGAIN))
}

/// A socket that is bound to a path and does not listen yet.
pub(super) fn make(path: &Path) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

pub(super) fn cannot(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Exit::Settings, format!("cannot listen on the Unix socket {}: {error}", path.display()))
        .hint("its directory must exist and be writable, and the path must have at most 107 bytes")
}
