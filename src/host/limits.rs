//! Open files, the accept queue and shared memory.

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use super::Limits;
use super::root::Root;

/// The kernel's limit for the accept queue of a listening socket, `listen(2)`.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// Where a file system in memory is usually mounted, best first.
const MEMORY_DIRECTORIES: [&str; 3] = ["/dev/shm", "/run", "/tmp"];

/// The first directory in memory that this process may write to.
pub(super) fn memory_directory(root: &Root) -> Option<PathBuf> {
    let is_memory = |path: &&Path| statfs(*path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    let is_writable = |path: &&Path| access(*path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    let mut directories = MEMORY_DIRECTORIES.iter().map(Path::new).filter(|_| root.is_live());
    directories.find(|path| is_memory(path) && is_writable(path)).map(Path::to_owned)
}

/// Reads the limits of this process and of its network namespace.
pub(super) fn limits(root: &Root, notes: &mut Vec<String>) -> Limits {
    let (open_files, open_files_max) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_else(|error| {
        notes.push(format!("cannot read the limit of open files: {error}"));
        (0, 0)
    });
    let somaxconn = root.value(SOMAXCONN.as_ref(), notes).and_then(|text| {
        let number = text.parse().ok();
        if number.is_none() {
            notes.push(format!("{SOMAXCONN} is {text:?}, not a number; ignored"));
        }
        number
    });
    let dev_shm_writable = root.is_live() && access("/dev/shm", AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    let no_own_descriptors = root.is_live() && access("/proc/self/fd", AccessFlags::X_OK).is_err();
    Limits { open_files, open_files_max, somaxconn, dev_shm_writable, no_own_descriptors }
}
