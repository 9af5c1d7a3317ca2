//! The state of a process's threads: their CPU time, and whether one of them is blocked because its output is not read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::file;
use super::process::{self, Process};
use super::stat::Stat;

/// The state of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadStats {
    /// CPU time of all its live threads.
    pub cpu: Duration,
    /// How long its threads were runnable but had to wait for a CPU.
    pub delay: Duration,
    /// The state of its main thread, as in `proc_pid_stat(5)`.
    pub state: char,
    /// Whether one of its threads is runnable.
    pub is_runnable: bool,
    /// Whether one of its threads waits until its standard output or standard error is read.
    pub is_writing: bool,
}

impl ThreadStats {
    /// The state of a process; none if it no longer exists.
    #[must_use]
    pub fn read(process: &Process) -> Option<Self> {
        let root = process::directory(process.pid);
        let threads: Vec<Thread> =
            fs::read_dir(root.join("task")).ok()?.flatten().filter_map(|entry| Thread::read(&entry.path())).collect();
        let now = Process::read(process.pid).filter(|now| now.start == process.start && !now.is_zombie())?;
        Some(Self {
            cpu: threads.iter().map(|thread| thread.cpu).sum(),
            delay: threads.iter().map(|thread| thread.delay).sum(),
            state: now.state,
            is_runnable: threads.iter().any(|thread| thread.state == 'R'),
            is_writing: now.state != 'T' && threads.iter().any(|thread| thread.is_writing(&root)),
        })
    }

    /// Whether it is stopped by a signal.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.state == 'T'
    }
}

/// The main thread of a process at one moment, and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MainThread {
    /// Whether it is running, or could if it had a CPU.
    pub is_running: bool,
    /// How long it has run.
    pub cpu: Duration,
    /// How often it has waited for something.
    pub waits: u64,
    /// How long the other threads have run.
    pub others_cpu: Duration,
}

impl MainThread {
    /// The main thread of a process; none if that no longer exists.
    #[must_use]
    pub fn read(process: &Process) -> Option<Self> {
        let directory = process::directory(process.pid).join(format!("task/{}", process.pid));
        let main = Thread::read(&directory)?;
        let all = ThreadStats::read(process)?;
        let status = file::read_text(directory.join("status")).ok()?;
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some(Self {
            is_running: main.state == 'R',
            cpu: main.cpu,
            waits: waits.and_then(|waits| waits.trim().parse().ok()).unwrap_or(0),
            others_cpu: all.cpu.saturating_sub(main.cpu),
        })
    }
}

struct Thread {
    state: char,
    cpu: Duration,
    delay: Duration,
    waits_in: WaitsIn,
}

/// Where a thread is in the kernel.
pub(super) enum WaitsIn {
    /// In a system call that writes to this descriptor.
    Write(u64),
    /// In the kernel function that waits for space in a pipe, as far as is known.
    Pipe,
    Elsewhere,
}

impl Thread {
    /// Reads `/proc/PID/task/TID`.
    fn read(directory: &Path) -> Option<Self> {
        let read = |name: &str| file::read_text(directory.join(name));
        let state = Stat::read(directory)?.state;
        // Documentation/scheduler/sched-stats.rst: nanoseconds on a processor, nanoseconds waiting for one.
        let times = read("schedstat").unwrap_or_default();
        let mut times =
            times.split_ascii_whitespace().map(|word| word.parse().map_or(Duration::ZERO, Duration::from_nanos));
        let (cpu, delay) = (times.next().unwrap_or_default(), times.next().unwrap_or_default());
        let waits_in = match read("syscall") {
            Ok(call) => called(&call),
            // Some containers forbid this.
            Err(_) => match read("wchan") {
                Ok(function) if function.trim_end().ends_with("pipe_write") => WaitsIn::Pipe,
                _ => WaitsIn::Elsewhere,
            },
        };
        Some(Self { state, cpu, delay, waits_in })
    }

    fn is_writing(&self, process: &Path) -> bool {
        let target = |descriptor: u64| fs::read_link(process.join(format!("fd/{descriptor}"))).ok();
        match (self.state, &self.waits_in) {
            ('R', _) | (_, WaitsIn::Elsewhere) => false,
            (_, WaitsIn::Pipe) => true,
            // It may be writing to the same pipe through another descriptor.
            (_, WaitsIn::Write(descriptor)) => {
                let to = target(*descriptor);
                to.is_some() && (to == target(1) || to == target(2))
            }
        }
    }
}

/// The contents of `/proc/PID/syscall`: the number of the call and its arguments, `running`, or -1.
pub(super) fn called(text: &str) -> WaitsIn {
    let mut words = text.split_ascii_whitespace();
    let number = words.next().and_then(|word| word.parse::<libc::c_long>().ok());
    let first = words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    match (number, first) {
        (Some(libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg), Some(descriptor)) => {
            WaitsIn::Write(descriptor)
        }
        _ => WaitsIn::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    fn condition(child: &Child) -> ThreadStats {
        let process = Process::read(Pid::from_raw(child.id().cast_signed())).unwrap();
        ThreadStats::read(&process).unwrap()
    }

    #[track_caller]
    fn becomes(child: &Child, what: impl Fn(&ThreadStats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what(&condition(child)) {
            assert!(Instant::now() < deadline, "{:?}", condition(child));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn who_fills_a_pipe_that_nobody_reads_is_writing() {
        let mut child = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        becomes(&child, |it| it.is_writing);
        drop(child.stdout.take());
        child.wait().unwrap();
    }

    #[test]
    fn who_writes_to_another_pipe_has_himself_to_blame() {
        let script = "exec tee /dev/fd/3 </dev/zero 3>&1 >/dev/null 2>&1";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        becomes(&child, |it| it.state == 'S');
        assert!(!condition(&child).is_writing);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_loops_takes_processor_time_and_who_sleeps_does_not() {
        let mut looping = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let mut asleep = Command::new("sleep").arg("60").spawn().unwrap();
        becomes(&asleep, |it| it.state == 'S' && !it.is_runnable);
        let (loops, sleeps) = (condition(&looping), condition(&asleep));
        becomes(&looping, |it| it.is_runnable && it.cpu > loops.cpu + Duration::from_millis(50));
        assert!(condition(&asleep).cpu < sleeps.cpu + Duration::from_millis(50));
        for child in [&mut looping, &mut asleep] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
