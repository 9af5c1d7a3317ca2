//! Memory that is shared with other processes through a file in memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::memory_file::{Content, memory_file};

/// A memory file of fixed size, mapped. Other processes with the descriptor read and write it concurrently, so it is
/// only ever accessed one word at a time.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    start: NonNull<libc::c_void>,
    length: usize,
}

impl SharedMemory {
    /// A file of this many bytes, all zero. Its size cannot be changed afterwards, so that no holder can take the
    /// memory away from under us.
    ///
    /// # Errors
    /// If the kernel has no memory or descriptor for it, or forbids such files.
    pub fn new(length: std::num::NonZeroUsize) -> nix::Result<Self> {
        let file = memory_file(c"mcp-launch-scoreboard", Content::Plain)?;
        nix::unistd::ftruncate(&file, i64::try_from(length.get()).map_err(|_| Errno::EINVAL)?)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        let seals = nix::fcntl::SealFlag::from_bits_retain(seals);
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)) {
            // Only memory files have seals; in another one it is left to our workers not to change its size.
            Ok(_) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
        // SAFETY: a new mapping at an address chosen by the kernel; the file is as long as the mapping and stays so.
        let start = unsafe {
            mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0)?
        };
        Ok(Self { file, start, length: length.get() })
    }

    /// Its descriptor, closed on exec.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The 32-bit word at an offset in bytes.
    ///
    /// # Panics
    /// If the offset is out of range or not aligned, which is a mistake of the caller.
    #[must_use]
    pub fn word(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: within the mapping, aligned (a mapping starts at a page), and atomic because others write it.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().byte_add(offset).cast()) }.load(Ordering::Relaxed)
    }

    /// The 64-bit word at an offset in bytes.
    ///
    /// # Panics
    /// As [`Self::word`].
    #[must_use]
    pub fn long(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().byte_add(offset).cast()) }.load(Ordering::Relaxed)
    }

    /// Writes the 32-bit word at an offset in bytes.
    ///
    /// # Panics
    /// As [`Self::word`].
    pub fn set_word(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().byte_add(offset).cast()) }.store(value, Ordering::Relaxed);
    }

    /// Writes the 64-bit word at an offset in bytes.
    ///
    /// # Panics
    /// As [`Self::word`].
    pub fn set_long(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().byte_add(offset).cast()) }.store(value, Ordering::Relaxed);
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; nothing borrowed from it outlives it.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_writes_is_read() {
        use std::os::fd::AsRawFd;
        let memory = SharedMemory::new(std::num::NonZeroUsize::new(4096).unwrap()).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.descriptor().as_raw_fd());
        let script = "import mmap, sys\n\
            file = open(sys.argv[1], 'r+b')\n\
            view = memoryview(mmap.mmap(file.fileno(), 4096))\n\
            view.cast('Q')[1] = 2 ** 40 + view.cast('I')[0]\n";
        memory.set_word(0, 7);
        let status = std::process::Command::new("python3").args(["-c", script, &path]).status().unwrap();
        assert!(status.success());
        assert_eq!(memory.long(8), (1 << 40) + 7);
        let low_half = if cfg!(target_endian = "big") { 12 } else { 8 };
        assert_eq!(memory.word(low_half), 7);
    }

    #[test]
    fn it_cannot_be_made_shorter() {
        let memory = SharedMemory::new(std::num::NonZeroUsize::new(4096).unwrap()).unwrap();
        assert_eq!(nix::unistd::ftruncate(memory.descriptor(), 0), Err(Errno::EPERM));
    }
}
