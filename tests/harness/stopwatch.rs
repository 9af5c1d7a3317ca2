//! Measuring on a machine that may be busy with something else.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// Measures how long something takes that this thread and some processes do, not counting the time in which they could
/// have run and had no processor.
pub struct Stopwatch<'a> {
    processes: &'a [Pid],
    start: Instant,
    waited: Duration,
}

impl<'a> Stopwatch<'a> {
    pub fn start(processes: &'a [Pid]) -> Self {
        Self { processes, waited: waits_for_processor(processes), start: Instant::now() }
    }

    pub fn elapsed(&self) -> Duration {
        let took = self.start.elapsed();
        took.saturating_sub(waits_for_processor(self.processes).saturating_sub(self.waited))
    }
}

/// For how long this thread and those of these processes have been runnable without getting a processor.
fn waits_for_processor(processes: &[Pid]) -> Duration {
    let of = |path: PathBuf| -> u64 {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let threads = |pid: &Pid| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let theirs: u64 = processes.iter().flat_map(threads).map(|thread| of(thread.path())).sum();
    Duration::from_nanos(theirs + of("/proc/thread-self".into()))
}
