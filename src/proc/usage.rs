//! The resource use of a process, and the exit status of one that has not been reaped yet: `/proc/PID/stat`,
//! `proc_pid_stat(5)`.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, geteuid, sysconf};

use super::process::{Process, directory};
use super::stat::Stat;

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
    /// The resource use of a process; none if it no longer exists.
    #[must_use]
    pub fn read(process: &Process) -> Option<Self> {
        let stat =
            Stat::read(directory(process.pid)).filter(|stat| stat.start == process.start && !stat.has_ended())?;
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        Some(Self { age: age(process), rss: stat.pages.saturating_mul(page.unwrap_or(4096)), cpu: ticks(stat.cpu) })
    }
}

/// CPU time of a process and of the descendants that it has reaped, user and system; none if it no longer exists.
#[must_use]
pub fn cpu_with_reaped(pid: Pid) -> Option<Duration> {
    Stat::read(directory(pid)).map(|stat| ticks(stat.cpu.saturating_add(stat.reaped_cpu)))
}

/// What is known about a process that has ended, before its parent reaps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreaped {
    /// How it ended.
    Status(ExitStatus),
    /// It has ended, but we may not see how: it belongs to another user, and we may not trace it.
    Hidden,
}

/// How a process ended that has not been reaped yet. None if it is running, or was reaped.
#[must_use]
pub fn unreaped(process: &Process) -> Option<Unreaped> {
    let stat = Stat::read(directory(process.pid)).filter(|stat| stat.start == process.start && stat.has_ended())?;
    // The kernel shows 0 to a process that may not trace it.
    let is_shown = stat.exit_code != 0 || may_trace(process.pid);
    Some(if is_shown { Unreaped::Status(ExitStatus::from_raw(stat.exit_code)) } else { Unreaped::Hidden })
}

/// Whether the kernel shows us what only a process that may trace it can see: `ptrace(2)`, access modes.
fn may_trace(pid: Pid) -> bool {
    /// The bit of `CAP_SYS_PTRACE` in a set of capabilities.
    const SYS_PTRACE: u64 = 1 << 19;
    let is_ours = || std::fs::metadata(directory(pid)).is_ok_and(|status| status.uid() == geteuid().as_raw());
    let status = super::file::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let set = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    set.is_some_and(|set| set & SYS_PTRACE != 0) || is_ours()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn our_own_usage_is_plausible() {
        let me = Process::read(nix::unistd::getpid()).unwrap();
        let usage = Usage::read(&me).unwrap();
        assert!(usage.rss > 100_000 && usage.age < Duration::from_hours(1) && usage.cpu < Duration::from_hours(1));
        assert_eq!(unreaped(&me), None);
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
    fn a_zombie_of_another_user_does_not_seem_to_have_ended_well() {
        if !geteuid().is_root() {
            return;
        }
        let mut command = Command::new("setpriv");
        let mut child = command.args(["--reuid", "65534", "--clear-groups", "sh", "-c", "exit 3"]).spawn().unwrap();
        let process = Process::read(Pid::from_raw(child.id().cast_signed())).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let said = loop {
            if let Some(said) = unreaped(&process) {
                break said;
            }
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        };
        // Hidden if the test runs without CAP_SYS_PTRACE, as in containers.
        assert!([Unreaped::Status(ExitStatus::from_raw(3 << 8)), Unreaped::Hidden].contains(&said), "{said:?}");
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_shows_how_it_ended() {
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
            assert_eq!(unreaped(&process), Some(Unreaped::Status(ExitStatus::from_raw(status))));
            assert_eq!(Usage::read(&process), None);
            child.wait().unwrap();
            assert_eq!(unreaped(&process), None);
        }
    }
}
