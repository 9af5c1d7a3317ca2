//! The files of the limits from which the number of workers is computed.

use std::path::PathBuf;

use super::cgroup::{Cgroups, Interface};
use super::root::Root;

/// Those that exist, on every level that limits this process. A limit is changed by writing to one of them.
pub(super) fn limit_files(root: &Root, cgroups: &Cgroups, notes: &mut Vec<String>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for controller in ["cpu", "cpuset", "memory"] {
        let Some(cgroup) = cgroups.of(controller, notes) else { continue };
        let names: &[&str] = match (controller, cgroup.interface) {
            ("cpu", Interface::V1) => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
            ("cpu", Interface::V2) => &["cpu.max"],
            ("memory", Interface::V1) => &["memory.limit_in_bytes"],
            ("memory", Interface::V2) => &["memory.max", "memory.high"],
            _ => &["cpuset.cpus"],
        };
        for name in names {
            files.extend(cgroup.values(root, name, notes).map(|(path, _)| root.path(&path)));
        }
    }
    files
}
