//! The lock that keeps a second instance from starting. The kernel releases it however we die.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A lock that we hold. The file goes when it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

/// Why the lock was not to be had.
#[derive(Debug)]
pub enum Refused {
    /// Another process holds it: its number, if it wrote one down.
    Held(Option<u32>),
    /// The file could not be used.
    Failed(std::io::Error),
}

impl Lock {
    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    /// When it is held or the file cannot be made.
    pub fn acquire(path: &Path) -> Result<Self, Refused> {
        loop {
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path);
            let file = open.map_err(Refused::Failed)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Err(Refused::Held(text.trim().parse().ok()));
                }
                Err((_, errno)) => return Err(Refused::Failed(errno.into())),
            };
            // The holder before us may have removed the file between our opening and locking it.
            let ours = file.metadata().map_err(Refused::Failed)?;
            if std::fs::metadata(path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                let _ = file.set_len(0);
                let _ = writeln!(file, "{}", std::process::id());
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Leaves the file and the lock to the program that is about to be executed, as a descriptor above those that
    /// it knows by number.
    pub fn inherit(self) {
        const ABOVE: i32 = 100;
        let _ = nix::fcntl::fcntl(self.file.as_fd(), nix::fcntl::FcntlArg::F_DUPFD(ABOVE));
        std::mem::forget(self);
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: nobody can have taken the path for a lock of their own.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::acquire(&path).unwrap();
        match Lock::acquire(&path) {
            Err(Refused::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert!(!path.exists(), "the file must not stay");
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn a_stale_file_is_no_obstacle_and_a_symlink_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        std::fs::write(&path, "999999999\n").unwrap();
        drop(Lock::acquire(&path).unwrap());
        let target = directory.path().join("precious");
        std::fs::write(&target, "data").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(Lock::acquire(&path), Err(Refused::Failed(_))));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "data");
    }
}
