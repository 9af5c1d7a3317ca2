//! What a process does with a signal: whether it has a handler, and whether that is running.

use std::collections::BTreeSet;
use std::path::Path;

use super::file;
use super::process::{self, Process};

/// What a process does with one signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalStatus {
    /// Whether it has a handler. If it has none, most signals end it.
    pub is_caught: bool,
    /// Whether it was sent and no thread has begun to handle it.
    pub is_pending: bool,
    /// The threads that block it; a thread also does so while its handler runs.
    pub blocking: BTreeSet<u32>,
}

impl SignalStatus {
    /// Reads `/proc/PID/status` and those of its threads. None if the process no longer exists.
    #[must_use]
    pub fn read(process: &Process, signal: i32) -> Option<Self> {
        let root = process::directory(process.pid);
        let own = Sets::read(&root, signal)?;
        let mut status = Self { is_caught: own.caught, is_pending: own.pending, blocking: BTreeSet::new() };
        for entry in std::fs::read_dir(root.join("task")).ok()?.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(sets) = Sets::read(&entry.path(), signal) else { continue };
            status.is_pending |= sets.pending;
            if sets.blocked {
                status.blocking.insert(thread);
            }
        }
        Process::read(process.pid).filter(|now| now.start == process.start).map(|_| status)
    }

    /// Whether a signal that was sent after `before` was read has been handled completely.
    #[must_use]
    pub fn has_handled(&self, before: &Self) -> bool {
        !self.is_pending && self.blocking.is_subset(&before.blocking)
    }
}

/// Whether a signal is in the sets of signals of a thread or process.
struct Sets {
    pending: bool,
    blocked: bool,
    caught: bool,
}

impl Sets {
    fn read(directory: &Path, signal: i32) -> Option<Self> {
        // Its name may be anything, so it is no text.
        let status = file::read(directory.join("status")).ok()?;
        let contains = |name: &[u8]| {
            let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
            let set = line.and_then(|line| std::str::from_utf8(line).ok());
            let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
            set.is_some_and(|set| set >> (signal - 1) & 1 != 0)
        };
        Some(Self {
            pending: contains(b"SigPnd:") || contains(b"ShdPnd:"),
            blocked: contains(b"SigBlk:"),
            caught: contains(b"SigCgt:"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::unistd::Pid;

    use super::*;

    const SIGNAL: i32 = 52;

    /// A Python that has said that it is ready.
    fn python(script: &str) -> (Child, Process) {
        let mut child = Command::new("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let process = Process::read(Pid::from_raw(child.id().cast_signed())).unwrap();
        (child, process)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_handler_is_seen_and_so_is_its_end() {
        let script = "import faulthandler, time\n\
            faulthandler.register(52, file=open('/dev/null', 'w'))\n\
            print(flush=True)\n\
            while True: time.sleep(60)";
        let (child, process) = python(script);
        let before = SignalStatus::read(&process, SIGNAL).unwrap();
        assert_eq!((before.is_caught, before.is_pending, before.blocking.len()), (true, false, 0));
        process.signal_by_number(SIGNAL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !SignalStatus::read(&process, SIGNAL).unwrap().has_handled(&before) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        end(child);
    }

    #[test]
    fn a_signal_that_is_blocked_is_pending() {
        let script = "import signal, time\n\
            signal.pthread_sigmask(signal.SIG_BLOCK, [52])\n\
            print(flush=True)\n\
            while True: time.sleep(60)";
        let (child, process) = python(script);
        let before = SignalStatus::read(&process, SIGNAL).unwrap();
        assert_eq!((before.is_caught, before.is_pending, before.blocking.len()), (false, false, 1));
        process.signal_by_number(SIGNAL).unwrap();
        assert!(!SignalStatus::read(&process, SIGNAL).unwrap().has_handled(&before));
        end(child);
    }
}
