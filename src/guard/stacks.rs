//! The memory through which workers tell what they are doing, when they are asked.
//!
//! One file in memory for each generation, beside its [scoreboard](super::scoreboard): a header, and an area for each slot
//! of the board, which is the slot owner's. The launcher asks by writing a number there, and sends [`FOR_PYTHON`]. Its
//! handler is a function in Python, which writes the stacks of all threads even if the event loop is blocked. If the
//! interpreter stands still, [`FOR_ALL`] or [`FOR_MAIN`] is sent too. Their handler is Python's faulthandler, in C. It must
//! not look at a thread in which Python runs: it may read a stack that is just being changed, and then the process crashes
//! (python/cpython issues 116008 and 140815; since the end of 2025 Python recognises most such stacks). What else there is,
//! tasks and requests, the worker writes with its next heartbeat.
//!
//! faulthandler writes at the position of the worker's descriptor, which we do not see. So an area is emptied before each
//! question, and what is not zero afterwards is the answer. Areas are large because faulthandler writes up to 100 threads
//! with 100 frames of 1000 bytes each; what has not been written takes no memory, and what has been read is released.
//!
//! `stacks.py` is the other end, and has the same numbers.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, Whence, ftruncate, lseek};

use crate::sys::memory_file::{Content, memory_file};

/// The real-time signal on which the interpreter of a worker writes where its threads are. This and the next two are
/// SIGRTMIN+18 to +20 of glibc. The C libraries use the first two or three of these signals, and neither Python nor the
/// servers use any.
pub const FOR_PYTHON: i32 = 52;
/// The one on which faulthandler writes where all threads are.
pub const FOR_ALL: i32 = 53;
/// The one on which faulthandler writes where the main thread is.
pub const FOR_MAIN: i32 = 54;

/// The first eight bytes, as they are in memory.
const MAGIC: [u8; 8] = *b"MCPLSTK1";
/// The version of the layout.
const VERSION: u32 = 1;
/// The offset of the first area.
const FIRST: u64 = 1 << 16;
/// The size of an area.
const AREA: u64 = 1 << 24;
/// Offsets in an area.
mod area {
    pub const TAKES_SIGNAL: u64 = 0;
    pub const ASKED: u64 = 4;
    pub const ANSWERED: u64 = 8;
    pub const LENGTH: u64 = 12;
    /// Where the last dump ended: the next one begins there, unless the owner has reset this.
    pub const END: u64 = 16;
    pub const TAKEN: u64 = 20;
    pub const WRITTEN: u64 = 24;
    pub const ANSWER: u64 = 4096;
    pub const DUMP: u64 = 1 << 20;
}
/// Bits of the word that says which signals are taken.
mod taken {
    pub const FOR_PYTHON: u32 = 1;
    pub const FOR_ALL: u32 = 2;
    pub const FOR_MAIN: u32 = 4;
    pub const BEATS_IN_THREAD: u32 = 8;
}
/// The longest possible output of faulthandler. A worker whose area has less room is not asked.
const LONGEST_DUMP: u64 = 11 << 20;

/// The memory of one generation.
#[derive(Debug)]
pub struct StackMemory {
    file: File,
}

/// Which signals a worker has handlers for, as it wrote itself.
#[allow(clippy::struct_excessive_bools, reason = "each is a bit of one word")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handlers {
    /// The worker.
    pub pid: Pid,
    /// Whether it handles [`FOR_PYTHON`].
    pub for_python: bool,
    /// Whether it handles [`FOR_ALL`].
    pub for_all: bool,
    /// Whether it handles [`FOR_MAIN`].
    pub for_main: bool,
    /// Whether its heartbeat has a thread of its own, so that it only stops if the interpreter does.
    pub beats_in_thread: bool,
}

/// What a worker wrote.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its threads, as faulthandler writes them.
    pub dump: Vec<u8>,
    /// Whether that is only the beginning.
    pub is_cut: bool,
    /// The interpreter, as JSON.
    pub answer: Vec<u8>,
}

impl StackMemory {
    /// Memory with this many areas.
    ///
    /// # Errors
    /// If the kernel has no memory or descriptor for it, or files may not be so large.
    pub fn new(areas: usize) -> nix::Result<Self> {
        let length = FIRST + AREA * areas as u64;
        // Beyond its limit, a process that makes a file larger gets a signal that ends it.
        if getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| soft < length) {
            return Err(Errno::EFBIG);
        }
        let file = memory_file(c"mcp-launch-stacks", Content::Plain)?;
        ftruncate(&file, i64::try_from(length).map_err(|_| Errno::EFBIG)?)?;
        let memory = Self { file: file.into() };
        memory.write(&[MAGIC.as_slice(), &VERSION.to_ne_bytes()].concat(), 0)?;
        // Not every file system can do that.
        memory.empty(0)?;
        Ok(memory)
    }

    /// Its descriptor, closed at exec: a server that is to have it gets a copy.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The handlers of an area's owner; none if it has none.
    #[must_use]
    pub fn handlers(&self, index: usize) -> Option<Handlers> {
        let pid =
            self.word(index, area::TAKES_SIGNAL).and_then(|word| i32::try_from(word).ok()).filter(|pid| *pid > 0)?;
        let taken = self.word(index, area::TAKEN)?;
        let has = |bit| taken & bit != 0;
        Some(Handlers {
            pid: Pid::from_raw(pid),
            for_python: has(taken::FOR_PYTHON),
            for_all: has(taken::FOR_ALL),
            for_main: has(taken::FOR_MAIN),
            beats_in_thread: has(taken::BEATS_IN_THREAD),
        })
    }

    /// Asks the owner of an area a question with this number, except for the signals.
    ///
    /// # Errors
    /// If the area cannot be emptied, or has no room because its owner has been asked very often without doing anything.
    pub fn ask(&self, index: usize, number: u32) -> nix::Result<()> {
        self.empty(index)?;
        if self.word(index, area::END).is_none_or(|end| u64::from(end) + LONGEST_DUMP > AREA) {
            return Err(Errno::ENOSPC);
        }
        self.set_word(index, area::ASKED, number)
    }

    /// The number of the question that the interpreter has answered last.
    #[must_use]
    pub fn answered(&self, index: usize) -> Option<u32> {
        self.word(index, area::ANSWERED)
    }

    /// The number of the question for which the interpreter has written the threads last.
    #[must_use]
    pub fn written(&self, index: usize) -> Option<u32> {
        self.word(index, area::WRITTEN)
    }

    /// Whether something was written about threads since the question.
    #[must_use]
    pub fn has_dump(&self, index: usize) -> bool {
        self.first_byte(index).is_some()
    }

    /// Takes what the owner of an area has written, with at most this many bytes about threads.
    #[must_use]
    pub fn take(&self, index: usize, most: usize) -> Written {
        let length =
            self.word(index, area::LENGTH).map_or(0, |length| u64::from(length).min(area::DUMP - area::ANSWER));
        let answer = self.read(start(index) + area::ANSWER, length);
        let mut dump = Vec::new();
        if let Some(first) = self.first_byte(index) {
            dump = self.read(first, (start(index) + AREA - first).min(most as u64 + 1));
            let length = dump.iter().position(|byte| *byte == 0).unwrap_or(dump.len());
            dump.truncate(length);
            let end = u32::try_from(first - start(index) + length as u64).unwrap_or(u32::MAX);
            let _ = self.set_word(index, area::END, end);
        }
        let is_cut = dump.len() > most;
        dump.truncate(most);
        let _ = self.empty(index);
        Written { dump, is_cut, answer }
    }

    fn word(&self, index: usize, offset: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, start(index) + offset).ok()?;
        Some(u32::from_ne_bytes(bytes))
    }

    fn set_word(&self, index: usize, offset: u64, value: u32) -> nix::Result<()> {
        self.write(&value.to_ne_bytes(), start(index) + offset)
    }

    fn write(&self, bytes: &[u8], at: u64) -> nix::Result<()> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn read(&self, at: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Releases the memory of an area's dump.
    fn empty(&self, index: usize) -> nix::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let offset = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        fallocate(&self.file, flags, offset(start(index) + area::DUMP), offset(AREA - area::DUMP))
    }

    /// Where the text in an area's dump begins.
    fn first_byte(&self, index: usize) -> Option<u64> {
        let end = start(index) + AREA;
        let mut at = start(index) + area::DUMP;
        let mut block = [0; 4096];
        loop {
            at = lseek(&self.file, i64::try_from(at).ok()?, Whence::SeekData).ok()?.try_into().ok()?;
            if at >= end {
                return None;
            }
            let length = self.file.read_at(&mut block, at).ok().filter(|length| *length > 0)?;
            if let Some(found) = block[..length].iter().position(|byte| *byte != 0) {
                return Some(at + found as u64).filter(|at| *at < end);
            }
            at += length as u64;
        }
    }
}

/// The offset of an area.
const fn start(index: usize) -> u64 {
    FIRST + AREA * index as u64
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// What a worker does with its descriptor.
    fn worker(memory: &StackMemory, script: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.descriptor().as_raw_fd());
        let script = format!("import os, sys\nfile = os.open(sys.argv[1], os.O_RDWR)\n{script}");
        assert!(std::process::Command::new("python3").args(["-c", &script, &path]).status().unwrap().success());
    }

    fn text(memory: &StackMemory, most: usize) -> (String, bool) {
        let Written { dump, is_cut, .. } = memory.take(2, most);
        (String::from_utf8(dump).unwrap(), is_cut)
    }

    #[test]
    fn what_a_worker_writes_after_a_question_is_the_answer_wherever_it_is() {
        let memory = StackMemory::new(3).unwrap();
        memory.ask(2, 7).unwrap();
        assert!(!memory.has_dump(2) && memory.handlers(2).is_none());
        assert_eq!(text(&memory, 100), (String::new(), false));
        let area = format!("area = {FIRST} + 2 * {AREA}\n");
        let write = "assert os.pread(file, 4, area + 4) == (7).to_bytes(4, sys.byteorder)\n\
            os.pwrite(file, (9).to_bytes(4, sys.byteorder), area)\n\
            os.pwrite(file, (9).to_bytes(4, sys.byteorder) + (7).to_bytes(4, sys.byteorder), area + 20)\n\
            os.pwrite(file, (7).to_bytes(4, sys.byteorder) + (2).to_bytes(4, sys.byteorder), area + 8)\n\
            os.pwrite(file, b'{}', area + 4096)\n\
            os.pwrite(file, b'Thread', area + (1 << 20) + 5000)\n";
        worker(&memory, &(area.clone() + write));
        let pid = Pid::from_raw(9);
        let handlers = Handlers { pid, for_python: true, for_all: false, for_main: false, beats_in_thread: true };
        assert_eq!((memory.handlers(2), memory.answered(2), memory.written(2)), (Some(handlers), Some(7), Some(7)));
        assert!(memory.has_dump(2) && !memory.has_dump(1));
        let written = memory.take(2, 4);
        assert_eq!((written.dump, written.is_cut, written.answer), (b"Thre".to_vec(), true, b"{}".to_vec()));
        assert_eq!(text(&memory, 100), (String::new(), false), "it is taken once");
        worker(&memory, &(area + "os.pwrite(file, b'Thread', area + (1 << 20) + 5006)\n"));
        assert_eq!(text(&memory, 100), ("Thread".to_owned(), false));
    }

    #[test]
    fn a_worker_that_never_resets_its_position_is_not_asked_for_ever() {
        let memory = StackMemory::new(1).unwrap();
        memory.set_word(0, area::END, u32::try_from(AREA - LONGEST_DUMP).unwrap()).unwrap();
        memory.ask(0, 1).unwrap();
        memory.set_word(0, area::END, u32::try_from(AREA - LONGEST_DUMP).unwrap() + 1).unwrap();
        assert_eq!(memory.ask(0, 2), Err(Errno::ENOSPC));
    }
}
