//! Memory: what the machine has, and what the cgroups allow.

use std::path::{Path, PathBuf};

use super::cgroup::{Cgroup, Cgroups, Interface};
use super::root::Root;
use super::{Memory, MemoryLimit, MemoryUse};

/// Values from here on mean no limit: version 1 shows the largest multiple of a page in that case.
const NO_LIMIT: u64 = 1 << 60;

/// Reads what limits the memory of this process.
pub(super) fn memory(root: &Root, cgroups: &Cgroups, notes: &mut Vec<String>) -> Memory {
    let total = total(root, notes);
    let Some(cgroup) = cgroups.of("memory", notes) else { return Memory { total, ..Memory::default() } };
    let bound = if total > 0 { total } else { NO_LIMIT };
    let limit = match cgroup.interface {
        Interface::V1 => least(root, &cgroup, "memory.limit_in_bytes", notes),
        Interface::V2 => {
            let max = least(root, &cgroup, "memory.max", notes);
            // Above memory.high the kernel throttles and reclaims, so workers become slow well before memory.max.
            let high = least(root, &cgroup, "memory.high", notes)
                .filter(|high| high.bytes < max.as_ref().map_or(bound, |max| max.bytes));
            if let Some(high) = &high {
                let (bytes, source) = (high.bytes, high.source.display());
                notes.push(format!("{source} throttles above {bytes} bytes, which is taken as the memory limit"));
            }
            high.or(max)
        }
    };
    let oom_group = cgroup.values(root, "memory.oom.group", notes).next().is_some_and(|(_, value)| value == "1");
    Memory { total, limit: limit.filter(|limit| limit.bytes < bound), oom_group }
}

/// The use of memory on every level that limits it.
pub(super) fn memory_use(root: &Root, cgroups: &Cgroups, notes: &mut Vec<String>) -> Vec<MemoryUse> {
    let Some(cgroup) = cgroups.of("memory", notes) else { return Vec::new() };
    let (limits, current): (&[&str], _) = match cgroup.interface {
        Interface::V1 => (&["memory.limit_in_bytes"], "memory.usage_in_bytes"),
        Interface::V2 => (&["memory.max", "memory.high"], "memory.current"),
    };
    let mut read = |level: &Path| {
        let mut value = |file: &str| root.value(&level.join(file), notes);
        let limits = limits.iter().filter_map(|file| value(file)?.parse::<u64>().ok());
        let limit = limits.filter(|limit| *limit < NO_LIMIT).min()?;
        let current = value(current)?.parse().ok()?;
        let reclaimable = reclaimable(cgroup.interface, &value("memory.stat").unwrap_or_default());
        Some(MemoryUse { limit, current, reclaimable })
    };
    cgroup.levels.iter().filter_map(|level| read(level)).collect()
}

/// What the kernel can reclaim when memory is short, according to `memory.stat`: page cache, recently used or not,
/// unless a process has it mapped, and the kernel's own caches (version 1 does not show how much of these).
pub(super) fn reclaimable(interface: Interface, stat: &str) -> u64 {
    // In version 1 the plain names cover only the group itself, in version 2 also its descendants.
    let [inactive, active, mapped, slab] = match interface {
        Interface::V1 => ["total_inactive_file", "total_active_file", "total_mapped_file", "slab_reclaimable"],
        Interface::V2 => ["inactive_file", "active_file", "file_mapped", "slab_reclaimable"],
    };
    let value = |name: &str| {
        let found = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        found.unwrap_or(0_u64)
    };
    // Programs and libraries that run are mapped; of these, too, what has not been used lately can be reclaimed.
    let unmapped = value(inactive).saturating_add(value(active)).saturating_sub(value(mapped));
    unmapped.max(value(inactive)).saturating_add(value(slab))
}

/// The counter of the processes in our memory cgroup that the kernel killed for lack of memory. It shows how many, not
/// which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKills(PathBuf);

impl OomKills {
    /// The file of the counter; none without a memory cgroup, or if it has no counter (version 1 before Linux 4.13).
    pub(super) fn find(root: &Root, cgroups: &Cgroups, notes: &mut Vec<String>) -> Option<Self> {
        let cgroup = cgroups.of("memory", notes)?;
        let file = match cgroup.interface {
            Interface::V1 => "memory.oom_control",
            Interface::V2 => "memory.events",
        };
        let (path, text) = cgroup.values(root, file, notes).next()?;
        kills(&text).map(|_| Self(path))
    }

    /// The number of processes killed so far.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        kills(&std::fs::read_to_string(&self.0).ok()?)
    }
}

/// `oom_kill` in `memory.events`, `Documentation/admin-guide/cgroup-v2.rst`, and in version 1's `memory.oom_control`.
pub(super) fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// `MemTotal` in bytes; 0 and a note if it cannot be read.
fn total(root: &Root, notes: &mut Vec<String>) -> u64 {
    const MEMINFO: &str = "/proc/meminfo";
    let kibibytes = root.read(MEMINFO).map_err(|error| error.to_string()).and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .ok_or_else(|| "no MemTotal".to_owned())
    });
    kibibytes.map_or_else(
        |error| {
            notes.push(format!("cannot read {MEMINFO}: {error}; the machine's memory is unknown"));
            0
        },
        |kibibytes| kibibytes.saturating_mul(1024),
    )
}

/// The smallest limit that a file sets on any level.
fn least(root: &Root, cgroup: &Cgroup, file: &str, notes: &mut Vec<String>) -> Option<MemoryLimit> {
    let values: Vec<_> = cgroup.values(root, file, notes).collect();
    let mut limits = Vec::new();
    for (source, text) in values {
        match text.parse::<u64>() {
            Ok(bytes) if bytes < NO_LIMIT => limits.push(MemoryLimit { bytes, source }),
            Ok(_) => {}
            Err(_) if text == "max" || text == "-1" => {}
            Err(_) => notes.push(format!("{} is {text:?}, not a number of bytes; ignored", source.display())),
        }
    }
    limits.into_iter().min_by_key(|limit| limit.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_the_same_kills() {
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn page_cache_and_slab_are_given_up_and_what_is_mapped_is_not() {
        let v2 = "anon 1000\nfile 700\nfile_mapped 150\nactive_file 400\ninactive_file 200\nslab_reclaimable 30\n";
        assert_eq!(reclaimable(Interface::V2, v2), 400 + 200 - 150 + 30);
        assert_eq!(reclaimable(Interface::V2, &v2.replace("file_mapped 150", "file_mapped 5000")), 200 + 30);
        let v1 =
            "inactive_file 1\nmapped_file 1\ntotal_mapped_file 150\ntotal_inactive_file 200\ntotal_active_file 400\n";
        assert_eq!(reclaimable(Interface::V1, v1), 450);
        assert_eq!(reclaimable(Interface::V2, ""), 0);
    }
}
