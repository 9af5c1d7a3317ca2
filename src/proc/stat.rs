//! `/proc/PID/stat` and `/proc/PID/task/TID/stat`: `proc_pid_stat(5)`. This is their only parser.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::file;

/// A process in `exit` has one of these among its flags (`PF_EXITING` and `PF_SIGNALED` of the kernel's
/// `include/linux/sched.h`). They are set a few instructions after a fatal signal has been removed from the pending
/// ones.
const EXITING: u64 = 0x4 | 0x400;
/// A process that was forked and has not executed a program since (`PF_FORKNOEXEC`, in the same place).
const FORKED: u64 = 0x40;
/// SIGKILL among the pending signals.
const KILL_PENDING: u64 = 1 << (Signal::SIGKILL as u64 - 1);

/// What the kernel reports about a process or a thread in one line. Times are in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: char,
    pub parent: Pid,
    pub group: Pid,
    flags: u64,
    /// CPU time, user and system.
    pub cpu: u64,
    /// CPU time of its children that have been reaped.
    pub reaped_cpu: u64,
    /// When it was started, since boot.
    pub start: u64,
    /// Resident pages.
    pub pages: u64,
    pending: u64,
    /// As `wait` returns it. 0 for a reader who may not trace the process, however it ended.
    pub exit_code: i32,
}

impl Stat {
    /// Reads it for the process or thread of this directory; none if that no longer exists.
    pub fn read(directory: impl AsRef<Path>) -> Option<Self> {
        Self::parse(&file::read(directory.as_ref().join("stat")).ok()?)
    }

    /// The name, in parentheses, may contain any bytes, including parentheses: the fields follow the last one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> =
            std::str::from_utf8(text.get(name_end + 1..)?).ok()?.split_ascii_whitespace().collect();
        // Counted from 1 as in the manual page, where the state is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        let pid = |at: usize| field(at)?.parse().ok().map(Pid::from_raw);
        Some(Self {
            state: field(3)?.chars().next()?,
            parent: pid(4)?,
            group: pid(5)?,
            flags: number(9)?,
            cpu: number(14)?.saturating_add(number(15)?),
            reaped_cpu: number(16)?.saturating_add(number(17)?),
            start: number(22)?,
            pages: number(24)?,
            pending: number(31)?,
            // Since Linux 3.5.
            exit_code: field(52).and_then(|code| code.parse().ok()).unwrap_or(0),
        })
    }

    /// Whether it has ended and waits to be reaped.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether it is a copy of its parent: it has not executed a program yet.
    pub const fn is_copy(&self) -> bool {
        self.flags & FORKED != 0
    }

    /// Whether it is about to end, or has ended; it can no longer do anything else.
    pub const fn is_dying(&self) -> bool {
        self.has_ended() || self.flags & EXITING != 0 || self.pending & KILL_PENDING != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = " S 1 42 42 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 12345 999 77 18446744073709551615 1 1 0 0 0 \
                        256 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0 9\n";

    #[test]
    fn a_name_may_be_any_bytes() {
        let names: [&[u8]; 6] = [b"sh", b"a b) (c", b")", b"", b"pr\xc3", b"\xff\xfe) S 9 9\n"];
        for name in names {
            let text = [b"42 (", name, b")", REST.as_bytes()].concat();
            let stat = Stat::parse(&text).unwrap_or_else(|| panic!("{name:?}"));
            assert_eq!((stat.state, stat.parent, stat.start, stat.pages), ('S', Pid::from_raw(1), 12_345, 77));
            assert_eq!((stat.cpu, stat.reaped_cpu, stat.exit_code), (110, 15, 9));
            assert!(stat.is_dying(), "SIGKILL is pending");
        }
    }

    #[test]
    fn half_a_line_is_nothing() {
        let text = ["42 (sh)", REST].concat();
        for length in 0..60 {
            assert_eq!(Stat::parse(&text.as_bytes()[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Stat::parse(&bytes);
        }
    }
}
