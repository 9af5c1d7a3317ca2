//! Processes that the kernel killed for lack of memory.

use std::path::{Path, PathBuf};

use super::cgroup::{Cgroups, Interface};
use super::root::Root;

/// The counter of our memory cgroup. It says how many processes were killed, not which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKills(PathBuf);

impl OomKills {
    /// Where the counter is; none without a memory cgroup, or if it has no counter (version 1 before Linux 4.13).
    #[must_use]
    pub fn find() -> Option<Self> {
        let root = Root::new(Path::new("/"));
        // Whoever reads the limits reports what could not be read.
        let mut notes = Vec::new();
        let cgroup = Cgroups::read(&root, &mut notes).of("memory", &mut notes)?;
        let file = match cgroup.interface {
            Interface::V1 => "memory.oom_control",
            Interface::V2 => "memory.events",
        };
        let (path, text) = cgroup.values(&root, file, &mut notes).next()?;
        count(&text).map(|_| Self(path))
    }

    /// The number of processes killed so far.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        count(&std::fs::read_to_string(&self.0).ok()?)
    }
}

/// `oom_kill` in `memory.events`, `Documentation/admin-guide/cgroup-v2.rst`, and in version 1's `memory.oom_control`.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_the_same() {
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
