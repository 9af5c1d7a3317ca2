//! Our descendants, as `/proc` shows them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::file;
use super::stat::Stat;
use crate::ids::ProcessId;
use crate::sys::pidfd::PidFd;

/// A snapshot of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its pid, which may be reused after its end.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: char,
    /// When it started, in clock ticks since boot; together with the pid this identifies one process.
    pub start: u64,
    /// Whether it is ending or has ended; it can no longer do anything else.
    pub is_dying: bool,
    /// Whether it is a copy of its parent, because it has not executed a program yet. What its parent holds and how that was
    /// started does not tell what it will be.
    pub is_copy: bool,
}

impl Process {
    /// Reads `/proc/PID/stat`.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let stat = Stat::read(directory(pid))?;
        Some(Self {
            pid,
            parent: stat.parent,
            group: stat.group,
            state: stat.state,
            start: stat.start,
            is_dying: stat.is_dying(),
            is_copy: stat.is_copy(),
        })
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start }
    }

    /// Whether it has ended and waits to be reaped.
    #[must_use]
    pub const fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Sends a signal to exactly this process: its pid may have been reused.
    ///
    /// # Errors
    /// ESRCH when it no longer exists.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        self.signal_by_number(signal as i32)
    }

    /// The same with any signal, also a real-time one.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn signal_by_number(&self, signal: i32) -> nix::Result<()> {
        let is_it = || Self::read(self.pid).is_some_and(|now| now.start == self.start);
        if let Ok(handle) = PidFd::open(self.pid)
            && is_it()
        {
            return handle.signal(signal);
        }
        // Before Linux 5.3, or without a spare descriptor, checking beforehand has to suffice.
        if is_it() { crate::sys::kill(self.pid, signal) } else { Err(Errno::ESRCH) }
    }
}

/// The directory of a process in `/proc`.
pub(super) fn directory(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The name of a process, as far as it is text; none if it no longer exists.
#[must_use]
pub fn name(pid: Pid) -> Option<String> {
    let name = file::read(directory(pid).join("comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// The arguments that a process was started with, each ended by a NUL byte; empty if it no longer exists.
#[must_use]
pub fn command_line(pid: Pid) -> Vec<u8> {
    file::read(directory(pid).join("cmdline")).unwrap_or_default()
}

/// Whether `/proc` can be read, which needs a spare descriptor. If not, only process groups can be reached.
#[must_use]
pub fn are_visible() -> bool {
    fs::File::open("/proc/self/stat").is_ok()
}

/// Whether processes in this group are children of ours, including those that have ended but were not reaped.
#[must_use]
pub fn has_children_in(group: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::PGid(group), look) != Err(Errno::ECHILD)
}

/// Signals a group if it contains a child of ours; stopped processes are continued so that they act on it. Needs no
/// descriptor.
pub fn signal_group(group: Pid, signal: Signal) {
    if has_children_in(group) {
        let _ = killpg(group, signal);
        let _ = killpg(group, Signal::SIGCONT);
    }
}

/// All descendants of a process, without itself, including zombies.
#[must_use]
pub fn descendants(ancestor: Pid) -> Vec<Process> {
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    while let Some(pid) = open.pop() {
        let Some(children) = children(pid) else { return descendants_by_scan(ancestor) };
        for child in children.into_iter().filter_map(Process::read) {
            open.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// The children of a process, including zombies.
#[must_use]
pub fn children_of(parent: Pid) -> Vec<Process> {
    let Some(pids) = children(parent) else {
        return descendants_by_scan(parent).into_iter().filter(|process| process.parent == parent).collect();
    };
    pids.into_iter().filter_map(Process::read).collect()
}

/// The children of all threads of a process; none if this kernel does not list them (`CONFIG_PROC_CHILDREN`).
fn children(pid: Pid) -> Option<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in list(directory(pid).join("task")) {
        match file::read_text(thread.join("children")) {
            Ok(text) => children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // The thread may have ended, and so may the process.
            Err(_) if thread.join("stat").exists() => return None,
            Err(_) => {}
        }
    }
    Some(children.into_iter().map(Pid::from_raw).collect())
}

/// The entries of a directory. It is closed before they are used, because one descriptor must suffice for all of this.
fn list(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn descendants_by_scan(ancestor: Pid) -> Vec<Process> {
    let entries = list("/proc");
    let pids = entries.iter().filter_map(|entry| entry.file_name()?.to_str()?.parse().ok());
    let mut rest: Vec<Process> = pids.map(Pid::from_raw).filter_map(Process::read).collect();
    let mut family = HashSet::from([ancestor]);
    let mut found = Vec::new();
    loop {
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|p| family.contains(&p.parent));
        if children.is_empty() {
            return found;
        }
        family.extend(children.iter().map(|process| process.pid));
        found.extend(children);
        rest = others;
    }
}

/// The processes of a generation among our descendants: its main process, its descendants, what is in its process
/// group (workers that lost the main process stay there), and what was seen in it before.
#[must_use]
pub fn members(all: &[Process], main: Pid, seen: &BTreeSet<ProcessId>) -> Vec<Process> {
    let root = |p: &&Process| p.pid == main || p.group == main || seen.contains(&p.id());
    let mut members: Vec<Process> = all.iter().filter(root).copied().collect();
    let mut known: HashSet<Pid> = members.iter().map(|process| process.pid).collect();
    loop {
        let more: Vec<Process> =
            all.iter().filter(|p| known.contains(&p.parent) && !known.contains(&p.pid)).copied().collect();
        if more.is_empty() {
            return members;
        }
        known.extend(more.iter().map(|process| process.pid));
        members.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn descendants_are_found_both_ways() {
        let mut child =
            Command::new("sh").args(["-c", "sleep 60 & read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while descendants(pid).is_empty() {
            assert!(std::time::Instant::now() < deadline, "the grandchild did not appear");
            std::thread::yield_now();
        }
        let (listed, scanned) = (descendants(pid), descendants_by_scan(pid));
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].pid, scanned[0].pid);
        assert_eq!(listed[0].parent, pid);
        listed[0].signal(Signal::SIGKILL).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(descendants(pid).is_empty());
    }

    #[test]
    fn a_process_whose_name_is_cut_in_the_middle_of_a_letter_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        // The kernel keeps 15 bytes, and the last letter takes two of them.
        let program = folder.path().join("fifteen-bytes-é");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let comm = || fs::read(directory(pid).join("comm")).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // The parent of a process continues shortly before the child has its new name.
        while String::from_utf8(comm()).is_ok() {
            assert!(std::time::Instant::now() < deadline, "{:?}", comm());
            std::thread::yield_now();
        }
        assert!(Process::read(pid).is_some() && children_of(nix::unistd::getpid()).iter().any(|it| it.pid == pid));
        assert!(name(pid).is_some_and(|name| name.starts_with("fifteen-bytes-")));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_dying_from_the_moment_it_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = || Process::read(Pid::from_raw(child.id().cast_signed())).unwrap();
        assert!(!process().is_dying);
        process().signal(Signal::SIGKILL).unwrap();
        // It may take several looks, because the process may be changing from one indication to the other.
        assert!((0..3).any(|_| process().is_dying));
        child.wait().unwrap();
    }

    #[test]
    fn a_group_is_known_by_its_children() {
        use std::os::unix::process::CommandExt;
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_raw(child.id().cast_signed());
        assert!(has_children_in(group));
        signal_group(group, Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!has_children_in(group));
    }

    #[test]
    fn a_process_that_took_over_the_number_is_not_signalled() {
        let me = Process::read(nix::unistd::getpid()).unwrap();
        let other = Process { start: me.start + 1, ..me };
        assert_eq!(other.signal(Signal::SIGKILL), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn members_are_kin_group_and_those_seen_before() {
        let p = |pid, parent, group| Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            group: Pid::from_raw(group),
            state: 'S',
            start: 0,
            is_dying: false,
            is_copy: false,
        };
        let all =
            [p(10, 1, 10), p(11, 10, 10), p(12, 11, 99), p(20, 1, 20), p(21, 1, 10), p(30, 1, 30), p(31, 30, 31)];
        let seen = BTreeSet::from([ProcessId { pid: Pid::from_raw(30), start: 0 }]);
        let mut pids: Vec<i32> = members(&all, Pid::from_raw(10), &seen).iter().map(|p| p.pid.as_raw()).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 12, 21, 30, 31]);
    }
}
