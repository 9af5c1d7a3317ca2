//! The machine that the tests run on.

use std::collections::BTreeMap;

use mcp_launch::host::{Query, probe};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;

#[test]
fn this_machine_is_as_the_kernel_reports() {
    let env: BTreeMap<_, _> = std::env::vars_os().collect();
    let host = probe(&Query::new(&env, std::env::current_dir().unwrap()));
    let mask = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let processors = (0..CpuSet::count()).filter(|&processor| mask.is_set(processor).unwrap()).count();
    assert_eq!(host.cpu.affinity as usize, processors);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!((host.limits.open_files, host.limits.open_files_max), (soft, hard));
    assert_eq!(host.memory.total, nix::sys::sysinfo::sysinfo().unwrap().ram_total());
    assert!(host.memory.limit.is_none_or(|limit| limit.bytes < host.memory.total && limit.source.is_file()));
    assert!(host.cpu.quota.is_none_or(|quota| quota.cores > 0.0 && quota.source.is_file()));
    assert_eq!(host.arch, std::env::consts::ARCH);
}
