//! Addresses that are served in addition to the first.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{tcp, unix};
use crate::plan::Bind;
use crate::problem::Problem;

/// One listening socket for each address. All generations share it: a waiting client is accepted by any generation that
/// serves, so nothing is lost at a handover, and there is nothing to steer.
#[derive(Debug, Default)]
pub(super) struct Further {
    sockets: Vec<(Bind, OwnedFd)>,
    /// Whether they were passed to us, and listen already.
    are_passed: bool,
}

impl Further {
    /// Takes the addresses. Clients cannot connect before [`Self::lend`].
    pub fn claim(binds: &[Bind]) -> Result<Self, Problem> {
        let claimed = binds.iter().map(|bind| take(bind).map(|socket| (bind.clone(), socket)));
        Ok(Self { sockets: claimed.collect::<Result<_, _>>()?, are_passed: false })
    }

    /// Those that were passed to us.
    pub const fn passed(sockets: Vec<(Bind, OwnedFd)>) -> Self {
        Self { sockets, are_passed: true }
    }

    /// The sockets, which nobody unlinks any more.
    pub fn into_sockets(mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets).into_iter().map(|(_, socket)| socket).collect()
    }

    /// The socket for an address, listening. If a reload added the address, the socket is made now.
    pub fn lend(&mut self, bind: &Bind, backlog: u32) -> nix::Result<&OwnedFd> {
        let known = self.sockets.iter().position(|(known, _)| known == bind);
        let index = if let Some(index) = known {
            index
        } else {
            let socket = take(bind).map_err(|_| nix::errno::Errno::EADDRINUSE)?;
            self.sockets.push((bind.clone(), socket));
            self.sockets.len() - 1
        };
        let (_, socket) = &self.sockets[index];
        if !self.are_passed {
            tcp::listen_on(socket, backlog)?;
        }
        Ok(socket)
    }
}

impl Drop for Further {
    fn drop(&mut self) {
        let paths: Vec<PathBuf> = self.sockets.iter().filter_map(|(bind, _)| path_of(bind)).collect();
        self.sockets.clear();
        for path in paths.into_iter().filter(|_| !self.are_passed) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn path_of(bind: &Bind) -> Option<PathBuf> {
    match bind {
        Bind::Unix(path) => Some(path.clone()),
        Bind::Tcp(_) => None,
    }
}

fn take(bind: &Bind) -> Result<OwnedFd, Problem> {
    match bind {
        Bind::Tcp(address) => {
            tcp::claim(*address).map(|(socket, _)| socket).map_err(|errno| tcp::explain(*address, errno))
        }
        Bind::Unix(path) => {
            unix::clear(path)?;
            unix::make(path).map_err(|errno| unix::cannot(path, &errno.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_lent_again_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("further.sock");
        let binds = [Bind::Unix(path.clone()), Bind::Tcp("127.0.0.1:0".parse().unwrap())];
        let mut further = Further::claim(&binds).unwrap();
        assert!(UnixStream::connect(&path).is_err(), "it does not listen yet");
        for _ in 0..2 {
            further.lend(&binds[0], 8).unwrap();
            UnixStream::connect(&path).unwrap();
        }
        further.lend(&binds[1], 8).unwrap();
        drop(further);
        assert!(!path.exists());
    }

    #[test]
    fn an_address_in_use_is_a_problem() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = Bind::Tcp(taken.local_addr().unwrap());
        assert!(Further::claim(&[bind]).is_err());
    }
}
