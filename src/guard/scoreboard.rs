//! The scoreboard: what the workers of one generation report, in memory that they share with us.
//!
//! One per generation, in a memory file: it needs no writable directory, and disappears with the last process that has
//! it open. Forked workers inherit its descriptor; spawned ones open it through `/proc/MAIN/fd/N`.
//!
//! A header, then the slots, each of two cache lines; then for each slot what its owner has counted, so that the part that
//! changes with each request stays small; then for each slot its owner's [`report`]; then room for a text (its length in a
//! word, then the text in UTF-8): why the app could not be loaded, which the failing process writes before it ends. Every
//! field of a slot is one aligned
//! word that one process writes (the owner of the slot) and others read, so a torn read can only mix an older with a
//! newer field of the same worker, which is no worse than having read a moment earlier or later. All numbers are in the
//! byte order of the machine.
//!
//! A worker owns a slot by a POSIX record lock on its 128 bytes. The kernel releases the lock when the process ends,
//! however it ends, so a slot can neither leak nor have two owners, and need not be freed. What the last owner wrote
//! stays until the next one begins, so readers must know which processes are alive.
//!
//! `board.py` is the other end, and has the same numbers.

mod counts;
pub mod durations;
pub mod report;

use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::unistd::Pid;

use crate::sys::shared::SharedMemory;

/// The first eight bytes, as they are in memory.
pub const MAGIC: [u8; 8] = *b"MCPLGRD1";
/// The version of the layout.
pub const VERSION: u32 = 3;
/// The size of the header, and of each slot: two cache lines, which processors fetch together.
pub const SLOT: usize = 128;

/// The space for the text at the end, including the field for its length.
pub const TEXT: usize = 1024;

/// Offsets in the header, in bytes.
mod header {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const SLOTS: usize = 12;
    pub const GENERATION: usize = 16;
    pub const LAUNCHER: usize = 20;
    /// Eight bytes that the launcher writes: see [`super::Scoreboard::retire`].
    pub const LEAVE_BY: usize = 24;
    /// Four bytes that belong to it.
    pub const SPREAD: usize = 32;
    // Offset 36 belongs to the workers: whether one of them has more in flight than its limit.
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
    /// Eight bytes that the launcher writes.
    pub const LEAVE_BY: usize = 80;
    /// Four bytes that belong to it.
    pub const SPREAD: usize = 88;
    // Then the requests in flight that are exempt from the limit; only workers look at them.
    /// Eight bytes.
    pub const MAX_REQUESTS: usize = 96;
    // Then the clients that have been accepted and have not asked yet; only workers look at them.
    pub const TIMED: usize = 108;
    /// Eight bytes.
    pub const SQUARES: usize = 112;
    pub const LATENCY: usize = 120;
    pub const STUCK: usize = 124;
}

/// Bits of a slot's flags.
mod flag {
    pub const TRACEBACK_ON_ABORT: u32 = 1;
    pub const NO_LIFESPAN: u32 = 2;
    pub const COUNTS_CONNECTIONS: u32 = 4;
    pub const WARMING_UP: u32 = 8;
    pub const MAY_SPIN: u32 = 16;
}

/// Where a worker accepts clients, as far as it reports that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// It has not reported it yet, or shares a socket with the others.
    Unknown,
    /// On a socket of its own from the launcher: the index of the one among those that its generation inherited, from
    /// 0.
    Lent(usize),
    /// On one that its server opened for it.
    Own,
}

impl From<u32> for Accepts {
    /// The value in the slot: the index counted from 1, 0 for none.
    fn from(word: u32) -> Self {
        match word {
            0 => Self::Unknown,
            u32::MAX => Self::Own,
            number => Self::Lent(number as usize - 1),
        }
    }
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has its slot, and its app is starting up.
    Starting,
    /// Its app has started.
    Ready,
    /// It was asked to end.
    Stopping,
}

impl State {
    /// The state in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

/// What a worker reports.
#[allow(clippy::struct_excessive_bools, reason = "each is a bit that the worker sets")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Which slot it is.
    pub(crate) index: usize,
    /// Its process, as it sees itself. Check it before a signal is sent: any process of the generation can write here.
    pub pid: Pid,
    /// Its state.
    pub state: State,
    /// Whether its app has started, but has not yet answered the requests that make it ready.
    pub is_warming_up: bool,
    /// When it took the slot, on the kernel's monotonic clock (`CLOCK_MONOTONIC`, which Python's
    /// `time.monotonic_ns()` reads).
    pub claimed: Duration,
    /// When its event loop last ran a timer, on the same clock.
    pub heartbeat: Duration,
    /// Requests in progress that count.
    pub in_flight: u32,
    /// The highest number of them so far.
    pub high_water: u32,
    /// Requests that it has finished, without refused ones. Updated with the heartbeat.
    pub served: u64,
    /// Requests, streams and web sockets that it refused.
    pub rejected: u64,
    /// The latest lag of its event loop.
    pub lag: Duration,
    /// The highest lag.
    pub most_lag: Duration,
    /// Event streams and web sockets that are open.
    pub streams: u32,
    /// Connections that it has open, if its server reports them.
    pub connections: Option<u32>,
    /// How often its event loop has looked for new clients. It increases while the loop runs and clients come.
    pub turns: u32,
    /// Where it accepts clients.
    pub accepts: Accepts,
    /// How many requests it may have in flight at the moment, if that is limited.
    pub limit: Option<NonZeroU32>,
    /// Requests that have ended and were timed: those that count, if their limit adapts. Updated with the heartbeat;
    /// wraps around, as do the two sums.
    pub timed: u32,
    /// The sum of their latencies in hundredths of a millisecond.
    pub latency: u32,
    /// The sum of the squares of these, in square microseconds.
    pub squares: u64,
    /// After how many requests it is to be replaced; 0 for never.
    pub max_requests: u64,
    /// Requests that should have ended, because they have taken longer than they may, and have not.
    pub stuck: u32,
    /// Whether the launcher has asked it to leave.
    pub is_leaving: bool,
    /// Whether SIGABRT makes it write where it is (Python's faulthandler).
    pub traceback_on_abort: bool,
    /// Whether it has nothing to do and uses a processor all the same. It repeats that at a regular interval.
    pub may_spin: bool,
    /// Whether its server speaks no lifespan protocol with the app, so that its first request is the first sign of
    /// life.
    pub no_lifespan: bool,
}

#[cfg(test)]
impl Slot {
    /// For tests: a worker that has written nothing but its process and its state.
    pub(crate) const fn blank(pid: Pid, state: State) -> Self {
        Self {
            index: 0,
            pid,
            state,
            is_warming_up: false,
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
            accepts: Accepts::Unknown,
            limit: None,
            timed: 0,
            latency: 0,
            squares: 0,
            max_requests: 0,
            stuck: 0,
            is_leaving: false,
            traceback_on_abort: false,
            may_spin: false,
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
    /// A scoreboard for a generation of this many workers. There are more slots than that: a server may start a
    /// worker's successor before the worker ends, and the number of workers can be raised.
    ///
    /// # Errors
    /// If the kernel has no memory or descriptor for it, or forbids memory files.
    pub fn new(generation: u32, workers: u32) -> nix::Result<Self> {
        let slots = 4 * workers as usize + 16;
        let length = NonZeroUsize::new(SLOT * (slots + 1) + (counts::SIZE + report::SPACE) * slots + TEXT)
            .ok_or(nix::errno::Errno::EINVAL)?;
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

    /// The reports of all processes that ever took a slot, including those that have ended: a slot keeps what its last
    /// owner wrote. Of two slots with the same process number, the one that was taken later counts.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = (0..self.slots).filter_map(|index| self.slot(index)).collect();
        slots.sort_by_key(|slot| (slot.pid, std::cmp::Reverse(slot.claimed)));
        slots.dedup_by_key(|slot| slot.pid);
        slots
    }

    /// Tells all workers that their generation is stopping: until when (on the clock of [`now`]) they may finish their
    /// requests, and over how much time they close their connections. [`Duration::ZERO`] takes that back, except for
    /// connections that are closed already.
    ///
    /// Those that take a slot later find it in the header, the others in their slots, where they look all the time.
    pub fn retire(&self, leave_by: Duration, spread: Duration) {
        self.memory.set_word(header::SPREAD, milliseconds(spread));
        self.memory.set_long(header::LEAVE_BY, nanoseconds(leave_by));
        (0..self.slots).for_each(|index| self.retire_slot(index, leave_by, spread));
    }

    /// Asks one worker to leave in the same way, if it has a slot.
    pub fn retire_worker(&self, pid: Pid, leave_by: Duration, spread: Duration) {
        if let Some(index) = self.newest(pid) {
            self.retire_slot(index, leave_by, spread);
        }
    }

    /// Changes how many requests a worker may have in flight, if it has a slot.
    pub fn set_limit(&self, pid: Pid, limit: u32) {
        if let Some(index) = self.newest(pid) {
            self.memory.set_word(SLOT * (index + 1) + slot::LIMIT, limit);
        }
    }

    /// How many slots it has.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots
    }

    /// The index of the slot that a process took last.
    #[must_use]
    pub fn newest(&self, pid: Pid) -> Option<usize> {
        let slots = (0..self.slots).filter_map(|index| self.slot(index).map(|slot| (slot, index)));
        slots.filter(|(slot, _)| slot.pid == pid).max_by_key(|(slot, _)| slot.claimed).map(|(_, index)| index)
    }

    fn retire_slot(&self, index: usize, leave_by: Duration, spread: Duration) {
        let at = SLOT * (index + 1);
        self.memory.set_word(at + slot::SPREAD, milliseconds(spread));
        self.memory.set_long(at + slot::LEAVE_BY, nanoseconds(leave_by));
    }

    /// Why the app could not be loaded or started, in one line, as the process that failed last reported it.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let bytes = self.text(self.space(self.slots), TEXT);
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|letter| !letter.is_control()).collect();
        Some(text).filter(|text| !text.is_empty())
    }

    /// The text in a space that begins with its length.
    fn text(&self, start: usize, space: usize) -> Vec<u8> {
        let length = (self.memory.word(start) as usize).min(space - 4);
        let words = (0..length.div_ceil(4)).map(|index| self.memory.word(start + 4 + 4 * index).to_ne_bytes());
        words.flatten().take(length).collect()
    }

    /// As a process of the generation that writes anything, into the slot with this index or into the text after them.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn overwrite(&self, index: usize, bytes: &[u8]) {
        let at = SLOT * (index.min(self.slots) + 1);
        for (word, bytes) in bytes.chunks_exact(4).enumerate() {
            let value = u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
            self.memory.set_word(at + 4 * word, value);
        }
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
            index,
            pid: Pid::from_raw(pid),
            state,
            is_warming_up: state == State::Starting && flags & flag::WARMING_UP != 0,
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
            timed: word(slot::TIMED),
            latency: word(slot::LATENCY),
            squares: long(slot::SQUARES),
            max_requests: long(slot::MAX_REQUESTS),
            stuck: word(slot::STUCK),
            is_leaving: long(slot::LEAVE_BY) != 0,
            traceback_on_abort: flags & flag::TRACEBACK_ON_ABORT != 0,
            may_spin: flags & flag::MAY_SPIN != 0,
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

/// The time on the clock that workers use for their slots.
#[must_use]
pub fn now() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests;
