//! The scoreboard: what the workers of one generation report, in memory that they share with us.
//!
//! One per generation, in a memory file: it needs no writable directory, and is gone with the last process that has
//! it. Forked workers inherit its descriptor; spawned ones open it through `/proc/MAIN/fd/N`.
//!
//! A header, then the slots, each of two cache lines, then room for a text (its length in a word, then the text in
//! UTF-8): why the app could not be loaded, which the failing process writes before it ends. Every field is one aligned
//! word that one process writes (the owner of the slot) and others read, so a torn read can only mix an older with a
//! newer field of the same worker, which is no worse than having read a moment earlier or later. All numbers are in the
//! byte order of the machine.
//!
//! A worker owns a slot by a POSIX record lock on its 128 bytes. The kernel lets go of the lock when the process ends,
//! however it ends, so a slot can neither leak nor have two owners, and nobody has to free it. What the last owner
//! wrote stays until the next one begins, so readers must know which processes are alive.
//!
//! `board.py` is the other end, and has the same numbers.

use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::unistd::Pid;

use crate::sys::shared::SharedMemory;

/// The first eight bytes, as they stand in memory.
pub const MAGIC: [u8; 8] = *b"MCPLGRD1";
/// Of the layout.
pub const VERSION: u32 = 2;
/// The size of the header, and of each slot: two cache lines, which processors fetch together.
pub const SLOT: usize = 128;

/// The room for the text at the end, the word with its length included.
pub const TEXT: usize = 1024;

/// Offsets in the header, in bytes.
mod header {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const SLOTS: usize = 12;
    pub const GENERATION: usize = 16;
    pub const LAUNCHER: usize = 20;
    /// A long word that the launcher writes: see [`super::Scoreboard::retire`].
    pub const LEAVE_BY: usize = 24;
    /// A word that goes with it.
    pub const SPREAD: usize = 32;
    // A word at 36 is the workers' own: whether one of them has more in flight than its limit.
}

/// Offsets in a slot, in bytes.
mod slot {
    pub const PID: usize = 0;
    pub const STATE: usize = 4;
    pub const CLAIMED: usize = 8;
    pub const HEARTBEAT: usize = 16;
    pub const IN_FLIGHT: usize = 24;
    pub const HIGH_WATER: usize = 28;
    pub const SERVED: usize = 32;
    pub const REJECTED: usize = 40;
    pub const LAG: usize = 48;
    pub const MOST_LAG: usize = 52;
    pub const STREAMS: usize = 56;
    pub const FLAGS: usize = 60;
    pub const CONNECTIONS: usize = 64;
    pub const TURNS: usize = 68;
    pub const LISTENER: usize = 72;
    pub const LIMIT: usize = 76;
    /// A long word that the launcher writes.
    pub const LEAVE_BY: usize = 80;
    /// A word that goes with it.
    pub const SPREAD: usize = 88;
    // Then the requests in flight that are exempt from the limit; only workers look at them.
    /// A long word.
    pub const MAX_REQUESTS: usize = 96;
    // Then the clients that have been accepted and have not asked yet; only workers look at them.
}

/// Bits of a slot's flags.
mod flag {
    pub const TRACEBACK_ON_ABORT: u32 = 1;
    pub const NO_LIFESPAN: u32 = 2;
    pub const COUNTS_CONNECTIONS: u32 = 4;
}

/// Where a worker accepts clients, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// It does not yet, or shares a socket with the others.
    Untold,
    /// On a socket of its own from the launcher: which of those that its generation inherited, counted from 0.
    Lent(usize),
    /// On one that its server opened for it.
    Own,
}

impl From<u32> for Accepts {
    /// The word that stands in the slot: the number counted from 1, 0 for none.
    fn from(word: u32) -> Self {
        match word {
            0 => Self::Untold,
            u32::MAX => Self::Own,
            number => Self::Lent(number as usize - 1),
        }
    }
}

/// How far a worker has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has its slot, and its app is starting up.
    Starting,
    /// Its app has started.
    Ready,
    /// It was told to end.
    Stopping,
}

impl State {
    /// The state in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its process, as it sees itself. To be checked before it is signalled: any process of the generation can write.
    pub pid: Pid,
    /// How far it has got.
    pub state: State,
    /// When it took the slot, on the kernel's monotonic clock (`CLOCK_MONOTONIC`, which Python's
    /// `time.monotonic_ns()` reads).
    pub claimed: Duration,
    /// When its event loop last ran a timer, on the same clock.
    pub heartbeat: Duration,
    /// Requests that it is working on and that count.
    pub in_flight: u32,
    /// The most that there ever were at a time.
    pub high_water: u32,
    /// Requests that it has finished, refused ones not counted. Brought up to date with the heartbeat.
    pub served: u64,
    /// Requests, streams and web sockets that it refused.
    pub rejected: u64,
    /// By how much its event loop was late the last time.
    pub lag: Duration,
    /// By how much at most.
    pub most_lag: Duration,
    /// Event streams and web sockets that are open.
    pub streams: u32,
    /// Connections that it has open, if its server tells.
    pub connections: Option<u32>,
    /// How often its event loop has looked for new clients. It moves while the loop turns and clients come.
    pub turns: u32,
    /// Where it accepts clients.
    pub accepts: Accepts,
    /// How many requests it may have in flight at present, if that is limited.
    pub limit: Option<NonZeroU32>,
    /// After how many requests it is to be replaced; 0 for never.
    pub max_requests: u64,
    /// Whether the launcher has told it to leave.
    pub is_leaving: bool,
    /// Whether SIGABRT makes it write where it is (Python's faulthandler).
    pub traceback_on_abort: bool,
    /// Whether its server speaks no lifespan protocol with the app, so that its first request is the first sign of
    /// life.
    pub no_lifespan: bool,
}

#[cfg(test)]
impl Slot {
    /// For tests: a worker that has written nothing but its process and its state.
    pub(crate) const fn blank(pid: Pid, state: State) -> Self {
        Self {
            pid,
            state,
            claimed: Duration::ZERO,
            heartbeat: Duration::ZERO,
            in_flight: 0,
            high_water: 0,
            served: 0,
            rejected: 0,
            lag: Duration::ZERO,
            most_lag: Duration::ZERO,
            streams: 0,
            connections: None,
            turns: 0,
            accepts: Accepts::Untold,
            limit: None,
            max_requests: 0,
            is_leaving: false,
            traceback_on_abort: false,
            no_lifespan: false,
        }
    }
}

/// The scoreboard of one generation.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
    slots: usize,
}

impl Scoreboard {
    /// A scoreboard for a generation of so many workers. There are more slots than that: a server may start a
    /// worker's successor before the worker ends, and may be told to have more.
    ///
    /// # Errors
    /// When the kernel has no memory or descriptor for it, or forbids memory files.
    pub fn new(generation: u32, workers: u32) -> nix::Result<Self> {
        let slots = 4 * workers as usize + 16;
        let length = NonZeroUsize::new(SLOT * (slots + 1) + TEXT).ok_or(nix::errno::Errno::EINVAL)?;
        let memory = SharedMemory::new(length)?;
        memory.set_word(header::VERSION, VERSION);
        memory.set_word(header::SLOTS, u32::try_from(slots).unwrap_or(u32::MAX));
        memory.set_word(header::GENERATION, generation);
        memory.set_word(header::LAUNCHER, std::process::id());
        memory.set_long(header::MAGIC, u64::from_ne_bytes(MAGIC));
        Ok(Self { memory, slots })
    }

    /// Its descriptor, closed at exec: a server that is to have it gets a copy.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.descriptor()
    }

    /// What all that ever took a slot say, the dead among them: a slot keeps what its last owner wrote. Of two slots
    /// with the same process number the one that was taken later counts.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = (0..self.slots).filter_map(|index| self.slot(index)).collect();
        slots.sort_by_key(|slot| (slot.pid, std::cmp::Reverse(slot.claimed)));
        slots.dedup_by_key(|slot| slot.pid);
        slots
    }

    /// Tells all workers that their generation is leaving: until when (on the clock of [`now`]) they may finish what they
    /// have, and over how much time they part from their clients. [`Duration::ZERO`] takes that back, except for what
    /// was closed already.
    ///
    /// Those that take a slot later find it in the header, the others in their slots, where they look all the time.
    pub fn retire(&self, leave_by: Duration, spread: Duration) {
        self.memory.set_word(header::SPREAD, milliseconds(spread));
        self.memory.set_long(header::LEAVE_BY, nanoseconds(leave_by));
        (0..self.slots).for_each(|index| self.retire_slot(index, leave_by, spread));
    }

    /// Tells one worker the same, if it has a slot.
    pub fn retire_worker(&self, pid: Pid, leave_by: Duration, spread: Duration) {
        let newest = (0..self.slots)
            .filter_map(|index| self.slot(index).filter(|slot| slot.pid == pid).map(|slot| (slot.claimed, index)))
            .max();
        if let Some((_, index)) = newest {
            self.retire_slot(index, leave_by, spread);
        }
    }

    fn retire_slot(&self, index: usize, leave_by: Duration, spread: Duration) {
        let at = SLOT * (index + 1);
        self.memory.set_word(at + slot::SPREAD, milliseconds(spread));
        self.memory.set_long(at + slot::LEAVE_BY, nanoseconds(leave_by));
    }

    /// Why the app could not be loaded or started, in one line, as the process that failed last put it.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let start = SLOT * (self.slots + 1);
        let length = (self.memory.word(start) as usize).min(TEXT - 4);
        let words = (0..length.div_ceil(4)).map(|index| self.memory.word(start + 4 + 4 * index).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().take(length).collect();
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|letter| !letter.is_control()).collect();
        Some(text).filter(|text| !text.is_empty())
    }

    fn slot(&self, index: usize) -> Option<Slot> {
        let at = SLOT * (index + 1);
        let word = |offset| self.memory.word(at + offset);
        let long = |offset| self.memory.long(at + offset);
        let microseconds = |offset| Duration::from_micros(word(offset).into());
        let pid = i32::try_from(word(slot::PID)).ok().filter(|pid| *pid > 0)?;
        let state = match word(slot::STATE) {
            1 => State::Starting,
            2 => State::Ready,
            3 => State::Stopping,
            _ => return None,
        };
        let flags = word(slot::FLAGS);
        Some(Slot {
            pid: Pid::from_raw(pid),
            state,
            claimed: Duration::from_nanos(long(slot::CLAIMED)),
            heartbeat: Duration::from_nanos(long(slot::HEARTBEAT)),
            in_flight: word(slot::IN_FLIGHT),
            high_water: word(slot::HIGH_WATER),
            served: long(slot::SERVED),
            rejected: long(slot::REJECTED),
            lag: microseconds(slot::LAG),
            most_lag: microseconds(slot::MOST_LAG),
            streams: word(slot::STREAMS),
            connections: (flags & flag::COUNTS_CONNECTIONS != 0).then(|| word(slot::CONNECTIONS)),
            turns: word(slot::TURNS),
            accepts: Accepts::from(word(slot::LISTENER)),
            limit: NonZeroU32::new(word(slot::LIMIT)),
            max_requests: long(slot::MAX_REQUESTS),
            is_leaving: long(slot::LEAVE_BY) != 0,
            traceback_on_abort: flags & flag::TRACEBACK_ON_ABORT != 0,
            no_lifespan: flags & flag::NO_LIFESPAN != 0,
        })
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The time on the clock that workers stamp their slots with.
#[must_use]
pub fn now() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(board: &Scoreboard, index: usize, pid: u32, state: u32, claimed: u64) {
        let at = SLOT * (index + 1);
        board.memory.set_word(at + slot::PID, pid);
        board.memory.set_word(at + slot::STATE, state);
        board.memory.set_long(at + slot::CLAIMED, claimed);
    }

    #[test]
    fn a_new_one_has_no_workers() {
        assert_eq!(Scoreboard::new(1, 2).unwrap().slots(), []);
    }

    #[test]
    fn of_a_number_that_was_used_twice_the_later_worker_counts() {
        let board = Scoreboard::new(1, 2).unwrap();
        write(&board, 0, 7, 3, 100);
        write(&board, 3, 7, 1, 200);
        write(&board, 5, 9, 2, 150);
        let found: Vec<_> = board.slots().iter().map(|slot| (slot.pid.as_raw(), slot.state)).collect();
        assert_eq!(found, [(7, State::Starting), (9, State::Ready)]);
    }

    #[test]
    fn what_a_failing_process_wrote_is_read_as_one_line() {
        use std::os::fd::AsRawFd;
        let board = Scoreboard::new(1, 2).unwrap();
        assert_eq!(board.failure(), None);
        let path = format!("/proc/{}/fd/{}", std::process::id(), board.descriptor().as_raw_fd());
        let script = "import os, struct, sys\n\
            file = os.open(sys.argv[1], os.O_RDWR)\n\
            text = 'no module\\nnamed é'.encode()\n\
            end = os.fstat(file).st_size\n\
            os.pwrite(file, struct.pack('I', len(text)) + text, end - 1024)\n";
        assert!(std::process::Command::new("python3").args(["-c", script, &path]).status().unwrap().success());
        assert_eq!(board.failure().as_deref(), Some("no modulenamed é"));
        board.memory.set_word(SLOT * (board.slots + 1), u32::MAX);
        assert!(board.failure().is_some_and(|text| text.len() <= TEXT));
    }

    #[test]
    fn one_worker_or_all_of_them_are_told_to_leave() {
        let board = Scoreboard::new(1, 2).unwrap();
        write(&board, 0, 7, 2, 1);
        write(&board, 1, 9, 2, 1);
        let told = |index: usize| board.memory.long(SLOT * (index + 1) + slot::LEAVE_BY);
        let (by, spread) = (Duration::from_secs(5), Duration::from_millis(1500));
        board.retire_worker(Pid::from_raw(9), by, spread);
        board.retire_worker(Pid::from_raw(11), by * 2, spread);
        assert_eq!([told(0), told(1)], [0, 5_000_000_000]);
        assert_eq!(board.memory.word(SLOT * 2 + slot::SPREAD), 1500);
        board.retire(Duration::from_nanos(3), spread);
        assert_eq!([told(0), told(1), board.memory.long(header::LEAVE_BY)], [3; 3]);
        assert_eq!(board.memory.word(header::SPREAD), 1500);
        board.retire(Duration::ZERO, Duration::ZERO);
        assert_eq!([told(0), told(1), board.memory.long(header::LEAVE_BY)], [0; 3]);
    }

    #[test]
    fn nonsense_in_a_slot_is_no_worker() {
        let board = Scoreboard::new(1, 2).unwrap();
        write(&board, 0, u32::MAX, 2, 1);
        write(&board, 1, 5, 77, 1);
        write(&board, 2, 0, 2, 1);
        assert_eq!(board.slots(), []);
    }
}
