//! Addresses that are served beside the first.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{tcp, unix};
use crate::plan::Bind;
use crate::problem::Problem;

/// One listening socket for each address. All generations share it: what waits there is accepted by whichever serves,
/// so nothing is lost at a handover, and there is nothing to steer.
#[derive(Debug, Default)]
pub(super) struct Further(Vec<(Bind, OwnedFd)>);

impl Further {
    /// Takes the addresses. Nobody can connect before [`Self::lend`].
    pub fn claim(binds: &[Bind]) -> Result<Self, Problem> {
        let claimed = binds.iter().map(|bind| take(bind).map(|socket| (bind.clone(), socket)));
        claimed.collect::<Result<_, _>>().map(Self)
    }

    /// The socket for an address, listening. One that was not there at the start, because a reload brought it, is made.
    pub fn lend(&mut self, bind: &Bind, backlog: u32) -> nix::Result<&OwnedFd> {
        let known = self.0.iter().position(|(known, _)| known == bind);
        let index = if let Some(index) = known {
            index
        } else {
            let socket = take(bind).map_err(|_| nix::errno::Errno::EADDRINUSE)?;
            self.0.push((bind.clone(), socket));
            self.0.len() - 1
        };
        tcp::listen_on(&self.0[index].1, backlog)?;
        Ok(&self.0[index].1)
    }
}

impl Drop for Further {
    fn drop(&mut self) {
        let paths: Vec<PathBuf> = self.0.iter().filter_map(|(bind, _)| path_of(bind)).collect();
        self.0.clear();
        for path in paths {
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
    fn a_socket_is_lent_again_and_its_path_goes_with_it() {
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
    fn an_address_that_somebody_has_is_a_problem() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = Bind::Tcp(taken.local_addr().unwrap());
        assert!(Further::claim(&[bind]).is_err());
    }
}
