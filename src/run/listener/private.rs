//! A listening socket that nobody else can reach or name: whoever answers there is the generation that inherited it.
//!
//! It is a Unix socket. It gets a name in a directory that only we may enter, and loses it again before anybody listens
//! there; we keep a descriptor of the name, and connect through `/proc/self/fd`. So there is no address on the loopback
//! interface, which other processes, containers and users share, and nothing in the abstract namespace, which all of
//! them can read.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::mkdtemp;

use super::tcp::listen_on;
use super::unix;

/// Where a directory for a moment can be made: in memory, if possible.
const DIRECTORIES: [&str; 5] = ["/run", "/dev/shm", "/tmp", "/var/tmp", "."];

/// Clients that may wait there.
const BACKLOG: u32 = 128;

/// The way to a socket that has no name any more.
#[derive(Debug)]
pub struct Way(OwnedFd);

impl Way {
    /// A path to connect to, for as long as this is kept, and in this process only.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Makes the socket.
///
/// # Errors
/// What the kernel says where no directory can be written to, or there is no `/proc`.
pub fn private_listener() -> nix::Result<(OwnedFd, Way)> {
    private_listener_among(&DIRECTORIES.map(Path::new))
}

fn private_listener_among(directories: &[&Path]) -> nix::Result<(OwnedFd, Way)> {
    let mut made = Err(Errno::ENOENT);
    for directory in directories {
        made = made.or_else(|_| private_listener_in(directory));
    }
    made
}

fn private_listener_in(directory: &Path) -> nix::Result<(OwnedFd, Way)> {
    // Only we may enter it, whatever the umask.
    let template = format!("mcp-launch-{}", "X".repeat(6));
    let directory = mkdtemp(&directory.join(template))?;
    let name = directory.join("socket");
    let made = unix::make(&name).and_then(|socket| {
        let way = Way(open(&name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?);
        Ok((socket, way))
    });
    let _ = std::fs::remove_file(&name);
    let _ = std::fs::remove_dir(&directory);
    let (socket, way) = made?;
    if !way.path().exists() {
        return Err(Errno::ENOENT);
    }
    listen_on(&socket, BACKLOG)?;
    Ok((socket, way))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_is_reached_through_its_descriptor_and_leaves_nothing_in_the_directory() {
        alone(|| {
            let directory = tempfile::tempdir().unwrap();
            let (_socket, way) = private_listener_in(directory.path()).unwrap();
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
            UnixStream::connect(way.path()).unwrap();
            let path = way.path();
            drop(way);
            assert!(UnixStream::connect(path).is_err());
        });
    }

    #[test]
    fn the_next_directory_is_taken_where_one_cannot_be_used() {
        let directory = tempfile::tempdir().unwrap();
        // A directory can be made there, but a socket has a path of at most 107 bytes.
        let deep = directory.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let unusable = [Path::new("/nonexistent"), Path::new("/proc"), &file, &deep];
        for one in unusable {
            assert!(private_listener_in(one).is_err(), "{}", one.display());
        }
        assert!(private_listener_among(&unusable).is_err());
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0, "nothing is left there");
        let last = directory.path().join("last");
        std::fs::create_dir(&last).unwrap();
        let (_socket, way) = private_listener_among(&[&unusable[..], &[&last]].concat()).unwrap();
        UnixStream::connect(way.path()).unwrap();
        private_listener().unwrap();
    }
}
