//! Memory: what the machine has, and what the cgroups allow.

use std::path::Path;

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
    // In version 1 the plain names in `memory.stat` cover only the group itself, in version 2 also its descendants.
    let (limits, current, inactive): (&[&str], _, _) = match cgroup.interface {
        Interface::V1 => (&["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file "),
        Interface::V2 => (&["memory.max", "memory.high"], "memory.current", "inactive_file "),
    };
    let mut read = |level: &Path| {
        let mut value = |file: &str| root.value(&level.join(file), notes);
        let limits = limits.iter().filter_map(|file| value(file)?.parse::<u64>().ok());
        let limit = limits.filter(|limit| *limit < NO_LIMIT).min()?;
        let current = value(current)?.parse().ok()?;
        let stat = value("memory.stat").unwrap_or_default();
        let inactive_file = stat.lines().find_map(|line| line.strip_prefix(inactive)?.parse().ok());
        Some(MemoryUse { limit, current, inactive_file: inactive_file.unwrap_or(0) })
    };
    cgroup.levels.iter().filter_map(|level| read(level)).collect()
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
