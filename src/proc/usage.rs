//! The resource use of a process, and the exit status of one that has not been reaped yet: `/proc/PID/stat`,
//! `proc_pid_stat(5)`.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::process::Process;

/// The resource use of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Since its start.
    pub age: Duration,
    /// Resident memory in bytes, shared pages included.
    pub rss: u64,
    /// CPU time of all its threads, user and system.
    pub cpu: Duration,
}

impl Usage {
    /// The resource use of a process; none if it is gone.
    #[must_use]
    pub fn read(process: &Process) -> Option<Self> {
        let stat = Stat::read(process.pid).filter(|stat| stat.start == process.start && !stat.ended)?;
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        Some(Self { age: age(process), rss: stat.pages * page.unwrap_or(4096), cpu: ticks(stat.cpu) })
    }
}

/// CPU time of a process and of the descendants that it has reaped, user and system; none if it is gone.
#[must_use]
pub fn cpu_with_reaped(pid: Pid) -> Option<Duration> {
    Stat::read(pid).map(|stat| ticks(stat.cpu + stat.reaped_cpu))
}

/// The exit status of a process that has not been reaped yet. None if it is alive or was reaped.
#[must_use]
pub fn unreaped_status(process: &Process) -> Option<ExitStatus> {
    let stat = Stat::read(process.pid).filter(|stat| stat.start == process.start && stat.ended)?;
    Some(ExitStatus::from_raw(stat.exit_code))
}

/// How long ago a process was started.
#[must_use]
pub fn age(process: &Process) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    now.saturating_sub(ticks(process.start))
}

/// How long ago we were started ourselves.
#[must_use]
pub fn uptime() -> Duration {
    Process::read(nix::unistd::getpid()).map(|own| age(&own)).unwrap_or_default()
}

fn ticks(count: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    Duration::from_millis(count.saturating_mul(1000) / per_second.filter(|ticks| *ticks > 0).unwrap_or(100))
}

/// The fields that matter here.
struct Stat {
    ended: bool,
    /// In ticks.
    cpu: u64,
    /// That of children that were reaped.
    reaped_cpu: u64,
    start: u64,
    pages: u64,
    exit_code: i32,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything. Fields are counted from 1, and the third follows the name.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        Some(Self {
            ended: matches!(field(3)?, "Z" | "X"),
            cpu: number(14)? + number(15)?,
            reaped_cpu: number(16)? + number(17)?,
            start: number(22)?,
            pages: number(24)?,
            exit_code: field(52)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn our_own_usage_is_plausible() {
        let me = Process::read(nix::unistd::getpid()).unwrap();
        let usage = Usage::read(&me).unwrap();
        assert!(usage.rss > 100_000 && usage.age < Duration::from_hours(1) && usage.cpu < Duration::from_hours(1));
        assert_eq!(unreaped_status(&me), None);
        assert_eq!(Usage::read(&Process { start: me.start + 1, ..me }), None);
    }

    #[test]
    fn what_reaped_children_used_counts_as_their_parents() {
        let before = cpu_with_reaped(nix::unistd::getpid()).unwrap();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", busy]).status().unwrap().success());
        let own = Usage::read(&Process::read(nix::unistd::getpid()).unwrap()).unwrap().cpu;
        assert!(cpu_with_reaped(nix::unistd::getpid()).unwrap() > before.max(own));
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        for (script, status) in [("exit 3", 3 << 8), ("kill -9 $$", 9)] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            let process = loop {
                let process = Process::read(pid).unwrap();
                if process.is_zombie() {
                    break process;
                }
                assert!(std::time::Instant::now() < deadline);
                std::thread::yield_now();
            };
            assert_eq!(unreaped_status(&process), Some(ExitStatus::from_raw(status)));
            assert_eq!(Usage::read(&process), None);
            child.wait().unwrap();
            assert_eq!(unreaped_status(&process), None);
        }
    }
}
