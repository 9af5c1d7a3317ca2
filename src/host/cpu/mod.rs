//! CPUs: the affinity mask, quotas, and the weight that results from a CPU request.

mod weight;

use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::cgroup::{Cgroup, Cgroups, Interface};
use super::root::Root;
use super::{Cpu, CpuQuota};

/// Reads what limits this process's use of CPUs.
pub(super) fn cpu(root: &Root, cgroups: &Cgroups, notes: &mut Vec<String>) -> Cpu {
    let affinity = affinity(root, notes);
    let Some(cgroup) = cgroups.of("cpu", notes) else { return Cpu { affinity, ..Cpu::default() } };
    let quota = quotas(root, &cgroup, notes).into_iter().min_by(|one, other| one.cores.total_cmp(&other.cores));
    Cpu { affinity, quota, weight: weight::weight(root, &cgroup, notes) }
}

/// CPUs that this process may use. The kernel is asked; files are read for a machine that is only described, or that
/// has more than the 1024 CPUs of a `cpu_set_t`.
fn affinity(root: &Root, notes: &mut Vec<String>) -> u32 {
    let kernel = root.is_live().then(|| sched_getaffinity(Pid::from_raw(0)).ok()).flatten().map(|set| {
        let processors = (0..CpuSet::count()).filter(|&processor| set.is_set(processor).unwrap_or(false)).count();
        u32::try_from(processors).unwrap_or(u32::MAX)
    });
    kernel.or_else(|| affinity_from_files(root)).filter(|&processors| processors > 0).unwrap_or_else(|| {
        notes.push("cannot determine which CPUs this process may use; assuming 1".into());
        1
    })
}

/// The list in the status file may include CPUs that are not present; virtual machines announce them in advance.
fn affinity_from_files(root: &Root) -> Option<u32> {
    let status = root.read("/proc/self/status").ok()?;
    processors(&status, &root.read("/sys/devices/system/cpu/online").unwrap_or_default())
}

/// How many processors are allowed and, as far as that is known, online.
pub(super) fn processors(status: &str, online: &str) -> Option<u32> {
    let allowed = ranges(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let online = ranges(online).unwrap_or_else(|| vec![(0, u32::MAX)]);
    let overlap = |&(first, last): &(u32, u32), &(low, high): &(u32, u32)| {
        (last.min(high).saturating_add(1)).saturating_sub(first.max(low))
    };
    let both = allowed.iter().flat_map(|range| online.iter().map(move |other| overlap(range, other)));
    Some(both.fold(0, u32::saturating_add))
}

/// Reads a list such as `0-3,8`.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    text.trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        })
        .collect()
}

/// The quota of each group that has one.
fn quotas(root: &Root, cgroup: &Cgroup, notes: &mut Vec<String>) -> Vec<CpuQuota> {
    let file = match cgroup.interface {
        Interface::V1 => "cpu.cfs_quota_us",
        Interface::V2 => "cpu.max",
    };
    let values: Vec<_> = cgroup.values(root, file, notes).collect();
    let mut quotas = Vec::new();
    for (source, text) in values {
        let cores = match cgroup.interface {
            Interface::V1 => v1_cores(root, &source, &text, notes),
            Interface::V2 => v2_cores(&text),
        };
        match cores {
            Ok(Some(cores)) => quotas.push(CpuQuota { cores, source }),
            Ok(None) => {}
            Err(()) => notes.push(format!("{} is {text:?}, not a quota; ignored", source.display())),
        }
    }
    quotas
}

/// Version 1 has separate files for quota and period; a quota of -1 means none.
fn v1_cores(root: &Root, source: &Path, quota: &str, notes: &mut Vec<String>) -> Result<Option<f64>, ()> {
    if quota == "-1" {
        return Ok(None);
    }
    let path = source.with_file_name("cpu.cfs_period_us");
    match root.value(&path, notes) {
        Some(period) => cores(quota, &period).map(Some),
        None => Ok(None),
    }
}

/// Version 2: `QUOTA PERIOD` in microseconds, or `max PERIOD`. The period has a default.
pub(super) fn v2_cores(text: &str) -> Result<Option<f64>, ()> {
    let (quota, period) = text.split_once(' ').unwrap_or((text, "100000"));
    if quota == "max" { Ok(None) } else { cores(quota, period).map(Some) }
}

fn cores(quota: &str, period: &str) -> Result<f64, ()> {
    let microseconds = |text: &str| text.trim().parse::<u32>().map(f64::from).ok().filter(|&number| number > 0.0);
    Ok(microseconds(quota).ok_or(())? / microseconds(period).ok_or(())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotas_are_fractional() {
        assert_eq!(v2_cores("50000 100000"), Ok(Some(0.5)));
        assert_eq!(v2_cores("150000 100000"), Ok(Some(1.5)));
        assert_eq!(v2_cores("max 100000"), Ok(None));
        assert_eq!(v2_cores("200000"), Ok(Some(2.0)));
        for text in ["", "0 100000", "-1 100000", "1 0", "fast", "1.5 100000", "nan 1", "1 2 3"] {
            assert_eq!(v2_cores(text), Err(()), "{text:?}");
        }
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(ranges("0-3,8\n"), Some(vec![(0, 3), (8, 8)]));
        assert_eq!(ranges(""), None);
        assert_eq!(ranges("a-b"), None);
    }

    proptest! {
        #[test]
        fn a_quota_is_quota_over_period(quota in 1_000_u32..10_000_000, period in 1_000_u32..1_000_000) {
            let cores = v2_cores(&format!("{quota} {period}")).unwrap().unwrap();
            prop_assert!((cores - f64::from(quota) / f64::from(period)).abs() < 1e-9);
        }
    }
}
