//! Passing certificate and key to a generation: a memory file that it inherits, or files on a file system in memory for
//! a server that reads them by their paths, again for each worker.
//!
//! Only we can read such files, and they are removed with the generation. If we are killed, they stay until the next
//! launcher on this machine removes them: the files of a running launcher are locked.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::plan::{Credentials, Files, Inherited};
use crate::sys::memory_file::{Content, memory_file as empty_file};

/// The prefix of the names of our directories.
const PREFIX: &str = "mcp-launch-";

/// A memory file with the chain and the key, or the CA certificates.
///
/// # Errors
/// If the kernel has no memory or descriptor for it.
pub fn memory_file(credentials: Option<&Credentials>, what: &Inherited) -> io::Result<OwnedFd> {
    let mut file = File::from(empty_file(c"mcp-launch-tls", Content::Secret)?);
    match (credentials, what) {
        (Some(credentials), Inherited::Pair) => file.write_all(&credentials.pair.to_pem())?,
        (Some(credentials), _) => file.write_all(credentials.pair.authority.as_deref().unwrap_or_default())?,
        (None, _) => {}
    }
    Ok(file.into())
}

/// The files of one generation. They are wiped and removed when this is dropped.
#[derive(Debug)]
pub struct FilesInMemory {
    /// The paths in the plan's arguments.
    planned: Files,
    directory: PathBuf,
    /// The lock that shows other launchers that the files are in use.
    _lock: Flock<File>,
}

impl FilesInMemory {
    /// Writes them, if this plan's server reads files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(credentials: &Credentials, generation: u32) -> io::Result<Option<Self>> {
        let (Some(planned), Some(parent)) = (credentials.files(), &credentials.directory) else { return Ok(None) };
        remove_forgotten(parent);
        let (directory, mut lock) = make_directory(parent, generation, &planned)?;
        lock.write_all(&credentials.pair.to_pem())?;
        let made = Self { planned, directory, _lock: lock };
        if let Some(authority) = &credentials.pair.authority {
            create(&made.place(&made.planned.authority))?.write_all(authority)?;
        }
        Ok(Some(made))
    }

    /// The actual path of a file that the plan's arguments name.
    fn place(&self, planned: &Path) -> PathBuf {
        planned
            .strip_prefix(&self.planned.directory)
            .map_or_else(|_| planned.into(), |name| self.directory.join(name))
    }

    /// The arguments, with the paths of this generation.
    pub fn put_into(&self, argv: &mut [OsString]) {
        for planned in [&self.planned.pair, &self.planned.authority] {
            for word in argv.iter_mut().filter(|word| *word == planned) {
                *word = self.place(planned).into();
            }
        }
    }
}

impl Drop for FilesInMemory {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// A new directory for a generation, with the locked file for chain and key.
fn make_directory(parent: &Path, generation: u32, planned: &Files) -> io::Result<(PathBuf, Flock<File>)> {
    const ATTEMPTS: u32 = 100;
    let name = planned.pair.file_name().unwrap_or_default();
    for attempt in 0..ATTEMPTS {
        // If containers share /dev/shm, the same number may belong to another process.
        let number = generation + attempt * 1_000_000;
        let directory = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        // Another launcher may be removing it at this very moment.
        let file = create(&directory.join(name));
        match file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock)) {
            Ok(Ok(lock)) if lock.metadata().is_ok_and(|found| found.nlink() == 1) => return Ok((directory, lock)),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                remove(&directory);
                return Err(error);
            }
            _ => {}
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Overwrites and removes the files in one of our directories, and the directory.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let wiped = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(entry.path());
        if let Ok(mut file) = wiped {
            let length = file.metadata().map_or(0, |found| found.len());
            let _ = file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)]);
        }
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(directory);
}

/// Removes the files of launchers that were killed.
fn remove_forgotten(parent: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        if is_ours
            && entry.file_name().to_str().is_some_and(is_our_name)
            && let Some(_locks) = lock_forgotten(&entry.path())
        {
            remove(&entry.path());
        }
    }
}

/// `mcp-launch-PID-GENERATION`
fn is_our_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pid, generation)| number(pid) && number(generation))
}

/// The locks of all files in a directory of ours, if no other process holds one: while the files are removed, no other
/// process may get the lock.
fn lock_forgotten(directory: &Path) -> Option<Vec<Flock<File>>> {
    let lock = |entry: fs::DirEntry| {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(entry.path()).ok()?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    };
    fs::read_dir(directory).into_iter().flatten().flatten().map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    fn credentials(parent: &Path) -> Credentials {
        let pair = Arc::new(crate::tls::example(&parent.join("made")));
        Credentials { pair, directory: Some(parent.join("memory")) }
    }

    fn entries(directory: &Path) -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn files_are_for_their_owner_alone_and_go_with_the_generation() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("memory")).unwrap();
        let credentials = credentials(parent.path());
        let planned = credentials.files().unwrap();
        let mut argv = ["granian".into(), planned.pair.clone().into_os_string(), planned.authority.into()];
        let made = FilesInMemory::write(&credentials, 3).unwrap().unwrap();
        made.put_into(&mut argv);
        let [_, pair, authority] = &argv;
        for file in [pair, authority].map(Path::new) {
            assert!(file.starts_with(parent.path().join("memory")) && *file != *planned.pair, "{file:?}");
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(fs::read(pair).unwrap(), *credentials.pair.to_pem());
        drop(made);
        assert_eq!(entries(&parent.path().join("memory")), [] as [PathBuf; 0]);
    }

    #[test]
    fn what_a_killed_launcher_left_is_removed_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let memory = parent.path().join("memory");
        let others = ["mcp-launch-4444", "mcp-launch-a-1", "mcp-launch-1-1.old"].map(|name| memory.join(name));
        for directory in others.iter().chain([&memory.join("mcp-launch-999999-1")]) {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("pair.pem"), "left behind").unwrap();
        }
        let credentials = credentials(parent.path());
        let first = FilesInMemory::write(&credentials, 1).unwrap().unwrap();
        let second = FilesInMemory::write(&credentials, 2).unwrap().unwrap();
        let mut expected = [&others[..], &[first.directory.clone(), second.directory.clone()]].concat();
        let mut found = entries(&memory);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}
