//! Files in memory that have no name, for descriptors to inherit.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// Directories for files without a name, if the kernel or a seccomp profile refuses memory files.
const DIRECTORIES: [&str; 4] = ["/dev/shm", "/run", "/tmp", "/var/tmp"];

/// What a file may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing that must be kept off a disk.
    Plain,
    /// A key: it stays in memory.
    Secret,
}

/// An empty file in memory, closed on exec, whose size can be sealed if the kernel has memory files.
///
/// # Errors
/// The kernel's error if neither a memory file nor another one without a name can be made.
pub(crate) fn memory_file(name: &CStr, content: Content) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Linux 6.3 requires an explicit choice about executability, and may enforce it (vm.memfd_noexec = 2).
    let made = memfd_create(name, flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL));
    let made = made.or_else(|errno| if errno == Errno::EINVAL { memfd_create(name, flags) } else { Err(errno) });
    made.or_else(|errno| unnamed(content).ok_or(errno))
}

/// A file without a name in the first directory that takes one.
fn unnamed(content: Content) -> Option<OwnedFd> {
    DIRECTORIES.iter().find_map(|directory| unnamed_in(Path::new(directory), content))
}

fn unnamed_in(directory: &Path, content: Content) -> Option<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    // As with a memory file: a process with the descriptor may open it again, also as another user, and no other
    // process can find it.
    let file = open(directory, flags, Mode::S_IRUSR | Mode::S_IWUSR).ok()?;
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(0o666)).ok()?;
    let is_in_memory = fstatfs(&file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
    (is_in_memory || content == Content::Plain).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn it_is_read_again_through_its_descriptor_and_a_file_without_a_name_is_as_good() {
        let directory = tempfile::tempdir().unwrap();
        for file in [memory_file(c"test", Content::Secret).ok(), unnamed_in(directory.path(), Content::Plain)] {
            let mut file = std::fs::File::from(file.unwrap());
            file.write_all(b"text").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            std::fs::File::open(again).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_secret_is_on_no_disk() {
        let file = unnamed_in(Path::new(env!("CARGO_MANIFEST_DIR")), Content::Secret);
        let on_disk = nix::sys::statfs::statfs(env!("CARGO_MANIFEST_DIR")).unwrap().filesystem_type() != TMPFS_MAGIC;
        assert!(!on_disk || file.is_none());
    }
}
