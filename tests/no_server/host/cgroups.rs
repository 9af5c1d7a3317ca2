//! Cores and memory in the layouts of distributions and container runtimes.

use std::path::Path;

use mcp_launch::host::{CpuQuota, Host};
use proptest::prelude::*;

use super::tree::Tree;

const V2: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
                  35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

fn cores(host: &Host) -> Option<(f64, &str)> {
    host.cpu.quota.as_ref().map(|CpuQuota { cores, source }| (*cores, source.to_str().unwrap()))
}

fn bytes(host: &Host) -> Option<(u64, &str)> {
    host.memory.limit.as_ref().map(|limit| (limit.bytes, limit.source.to_str().unwrap()))
}

fn request(host: &Host) -> Option<f64> {
    host.cpu.weight.as_ref().map(|weight| weight.cores)
}

#[test]
fn a_plain_host_has_no_limits() {
    let user = "/user.slice/user-1000.slice/session-1.scope";
    let v2 = Tree::machine(&format!("0::{user}\n"), V2)
        .file(&format!("sys/fs/cgroup{user}/cpu.max"), "max 100000\n")
        .file(&format!("sys/fs/cgroup{user}/cpu.weight"), "100\n")
        .file(&format!("sys/fs/cgroup{user}/memory.max"), "max\n")
        .file(&format!("sys/fs/cgroup{user}/memory.high"), "max\n")
        .file(&format!("sys/fs/cgroup{user}/memory.oom.group"), "0\n")
        .probe();
    let v1 = Tree::machine(
        "5:memory:/user.slice\n4:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/session-1.scope\n",
        "35 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
         36 24 0:31 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n",
    )
    .file("sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.cfs_quota_us", "-1\n")
    .file("sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.shares", "1024\n")
    .file("sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes", "9223372036854771712\n")
    .probe();
    for host in [v2, v1] {
        assert_eq!((cores(&host), bytes(&host), request(&host)), (None, None, None));
        assert_eq!((host.cpu.affinity, host.memory.total, host.memory.oom_group), (4, 16 << 30, false));
        assert_eq!(host.limits.somaxconn, Some(4096));
        assert_eq!(host.notes, Vec::<String>::new());
    }
}

#[test]
fn a_hybrid_host_has_its_limits_in_version_1() {
    let host = Tree::machine(
        "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n",
        "35 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
         36 24 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
         37 24 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         38 24 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    )
    .file("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "150000")
    .file("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000")
    .file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824")
    .file("sys/fs/cgroup/unified/job/cpu.max", "10000 100000")
    .probe();
    assert_eq!(cores(&host), Some((1.5, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us")));
    assert_eq!(bytes(&host), Some((1 << 30, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes")));
}

#[test]
fn docker_on_version_1_mounts_its_own_group_only() {
    let host = Tree::machine(
        "4:memory:/docker/abc\n3:cpuacct,cpu:/docker/abc\n",
        "37 24 0:32 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
         38 24 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
    )
    .file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000")
    .file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    .file("sys/fs/cgroup/cpu,cpuacct/cpu.shares", "512")
    .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912")
    .link("sys/fs/cgroup/cpu", "cpu,cpuacct")
    .probe();
    assert_eq!(cores(&host), Some((2.5, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us")));
    assert_eq!(bytes(&host), Some((512 << 20, "/sys/fs/cgroup/memory/memory.limit_in_bytes")));
    assert_eq!(request(&host), Some(0.5));
    assert_eq!(host.notes, Vec::<String>::new());
}

#[test]
fn docker_on_version_2_with_a_private_namespace_starts_at_the_root() {
    let host = Tree::machine("0::/\n", V2)
        .file("sys/fs/cgroup/cpu.max", "50000 100000\n")
        .file("sys/fs/cgroup/cpu.weight", "100\n")
        .file("sys/fs/cgroup/memory.max", "268435456\n")
        .file("sys/fs/cgroup/memory.high", "max\n")
        .file("sys/fs/cgroup/memory.oom.group", "1\n")
        .probe();
    assert_eq!(cores(&host), Some((0.5, "/sys/fs/cgroup/cpu.max")));
    assert_eq!(bytes(&host), Some((256 << 20, "/sys/fs/cgroup/memory.max")));
    assert!(host.memory.oom_group);
}

#[test]
fn docker_on_version_2_with_the_host_namespace_is_found_either_way_it_is_mounted() {
    let whole = Tree::machine("0::/system.slice/docker-abc.scope\n", V2)
        .file("sys/fs/cgroup/system.slice/docker-abc.scope/cpu.max", "100000 100000\n")
        .file("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n")
        .probe();
    assert_eq!(cores(&whole), Some((1.0, "/sys/fs/cgroup/system.slice/docker-abc.scope/cpu.max")));
    let part = V2.replace("0:30 / ", "0:30 /docker/abc ");
    let part = Tree::machine("0::/docker/abc\n", &part).file("sys/fs/cgroup/cpu.max", "100000 100000\n").probe();
    assert_eq!(cores(&part), Some((1.0, "/sys/fs/cgroup/cpu.max")));
}

#[test]
fn limits_of_a_kubernetes_pod_hold_for_a_container_that_has_none() {
    let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
    let container = format!("{slice}/cri-containerd-abc.scope");
    let host = Tree::machine(&format!("0::{container}\n"), V2)
        .file(&format!("sys/fs/cgroup{container}/cpu.max"), "max 100000\n")
        .file(&format!("sys/fs/cgroup{container}/cpu.weight"), "10\n")
        .file(&format!("sys/fs/cgroup{container}/memory.max"), "max\n")
        .file(&format!("sys/fs/cgroup{container}/memory.oom.group"), "1\n")
        .file(&format!("sys/fs/cgroup{slice}/cpu.max"), "200000 100000\n")
        .file(&format!("sys/fs/cgroup{slice}/cpu.weight"), "79\n")
        .file(&format!("sys/fs/cgroup{slice}/memory.max"), "2147483648\n")
        .file("sys/fs/cgroup/kubepods.slice/cpu.max", "max 100000\n")
        .file("sys/fs/cgroup/kubepods.slice/memory.max", "15032385536\n")
        .probe();
    assert_eq!(cores(&host), Some((2.0, format!("/sys/fs/cgroup{slice}/cpu.max").as_str())));
    assert_eq!(bytes(&host), Some((2 << 30, format!("/sys/fs/cgroup{slice}/memory.max").as_str())));
    assert_eq!(request(&host), Some(0.25), "the container's own request, not its pod's");
    assert!(host.memory.oom_group);
}

#[test]
fn a_kubernetes_request_is_found_from_the_weight_of_either_runtime() {
    let request_of =
        |weight: &str| request(&Tree::machine("0::/\n", V2).file("sys/fs/cgroup/cpu.weight", weight).probe());
    assert_eq!(request_of("20\n"), Some(0.5), "on the line");
    assert_eq!(request_of("174\n"), Some(2.0), "on the curve");
    assert_eq!(request_of("1\n"), None, "a pod without requests");
    assert_eq!(request_of("100\n"), None, "the default");
    assert_eq!(request_of("10001\n"), None);
}

#[test]
fn a_quota_on_a_systemd_slice_holds_for_its_services() {
    let service = "/web.slice/web-mcp.slice/gateway.service";
    let host = Tree::machine(&format!("0::{service}\n"), V2)
        .file(&format!("sys/fs/cgroup{service}/cpu.max"), "max 100000\n")
        .file(&format!("sys/fs/cgroup{service}/cpu.weight"), "20\n")
        .file("sys/fs/cgroup/web.slice/web-mcp.slice/cpu.max", "300000 100000\n")
        .file("sys/fs/cgroup/web.slice/cpu.max", "150000 100000\n")
        .probe();
    assert_eq!(cores(&host), Some((1.5, "/sys/fs/cgroup/web.slice/cpu.max")));
    assert_eq!(request(&host), None, "CPUWeight= weighs services and requests nothing");
}

#[test]
fn processors_that_are_only_allowed_and_not_there_do_not_count() {
    let host = |allowed: &str, online: &str| {
        Tree::machine("0::/\n", V2)
            .file("proc/self/status", &format!("Cpus_allowed_list:\t{allowed}\n"))
            .file("sys/devices/system/cpu/online", online)
            .probe()
    };
    assert_eq!(host("0,2-3", "0-15\n").cpu.affinity, 3, "a cpuset");
    assert_eq!(host("0-127", "0-1\n").cpu.affinity, 2, "room for more");
}

#[test]
fn memory_high_is_a_limit_where_it_is_lower() {
    let host = Tree::machine("0::/\n", V2)
        .file("sys/fs/cgroup/memory.max", "1073741824\n")
        .file("sys/fs/cgroup/memory.high", "805306368\n")
        .probe();
    assert_eq!(bytes(&host), Some((768 << 20, "/sys/fs/cgroup/memory.high")));
    assert!(host.notes.iter().any(|note| note.contains("memory.high throttles")), "{:?}", host.notes);
}

#[test]
fn a_limit_above_the_machines_memory_is_none() {
    let host = Tree::machine("0::/\n", V2).file("sys/fs/cgroup/memory.max", "99999999999999\n").probe();
    assert_eq!(bytes(&host), None);
}

#[test]
fn garbage_is_named_and_ignored() {
    let host = Tree::machine("0::/a\nnonsense\n", V2)
        .file("sys/fs/cgroup/a/cpu.max", "lots\n")
        .file("sys/fs/cgroup/cpu.max", "200000 100000\n")
        .file("sys/fs/cgroup/a/cpu.weight", "heavy\n")
        .file("sys/fs/cgroup/a/memory.max", "-5\n")
        .file("proc/sys/net/core/somaxconn", "many\n")
        .probe();
    assert_eq!(cores(&host), Some((2.0, "/sys/fs/cgroup/cpu.max")));
    assert_eq!((bytes(&host), request(&host), host.limits.somaxconn), (None, None, None));
    for text in ["a/cpu.max is \"lots\"", "cpu.weight is \"heavy\"", "memory.max is \"-5\"", "somaxconn is \"many\""]
    {
        assert!(host.notes.iter().any(|note| note.contains(text)), "{text}: {:?}", host.notes);
    }
}

#[test]
fn what_cannot_be_read_is_named_and_ignored() {
    // A directory in place of a file cannot be read, even by root.
    let host = Tree::machine("0::/a\n", V2)
        .directory("sys/fs/cgroup/a/cpu.max")
        .file("sys/fs/cgroup/cpu.max", "100000 100000\n")
        .directory("sys/fs/cgroup/a/memory.max")
        .probe();
    assert_eq!(cores(&host), Some((1.0, "/sys/fs/cgroup/cpu.max")));
    assert_eq!(host.notes.iter().filter(|note| note.starts_with("cannot read /sys/fs/cgroup/a/")).count(), 2);
}

#[test]
fn without_sys_the_affinity_remains() {
    let host = Tree::machine("0::/\n", "");
    std::fs::remove_dir_all(host.path("sys")).unwrap();
    let host = host.probe();
    assert_eq!((host.cpu.affinity, cores(&host), bytes(&host)), (4, None, None));
    assert!(
        host.notes.iter().any(|note| note.contains("cpu cgroup / is not below any known mount")),
        "{:?}",
        host.notes
    );
}

#[test]
fn without_proc_the_usual_mount_is_looked_at() {
    let host = Tree::new().file("sys/fs/cgroup/cpu.max", "150000 100000\n").probe();
    assert_eq!((host.cpu.affinity, host.memory.total), (1, 0));
    assert_eq!(cores(&host), Some((1.5, "/sys/fs/cgroup/cpu.max")));
    for file in ["/proc/self/cgroup", "/proc/self/mountinfo", "/proc/meminfo", "which CPUs"] {
        assert!(host.notes.iter().any(|note| note.contains(file)), "{file}: {:?}", host.notes);
    }
}

#[test]
fn nothing_at_all_is_one_processor_and_unknown_memory() {
    let host = Tree::new().probe();
    assert_eq!((host.cpu.affinity, host.memory.total), (1, 0));
    assert_eq!((cores(&host), bytes(&host)), (None, None));
}

#[test]
fn blanks_in_the_mount_point_are_undone() {
    let mounts = V2.replace("/sys/fs/cgroup", r"/mnt/c\040group");
    let host = Tree::machine("0::/\n", &mounts).file("mnt/c group/cpu.max", "100000 100000\n").probe();
    assert_eq!(host.cpu.quota.unwrap().source, Path::new("/mnt/c group/cpu.max"));
}

#[test]
fn the_mount_that_shows_most_of_the_hierarchy_is_walked() {
    let mounts = "35 24 0:30 /pods/a /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n\
                  36 24 0:30 / /host/cgroup ro - cgroup2 cgroup2 rw\n";
    let host = Tree::machine("0::/pods/a\n", mounts)
        .file("sys/fs/cgroup/cpu.max", "max 100000\n")
        .file("host/cgroup/pods/cpu.max", "100000 100000\n")
        .probe();
    assert_eq!(cores(&host), Some((1.0, "/host/cgroup/pods/cpu.max")));
}

#[test]
fn a_group_outside_every_mount_uses_the_mount_with_a_note() {
    let mounts = V2.replace("0:30 / ", "0:30 /docker/inner ");
    let host = Tree::machine("0::/docker/outer/docker/inner\n", &mounts)
        .file("sys/fs/cgroup/cpu.max", "100000 100000\n")
        .probe();
    assert_eq!(cores(&host), Some((1.0, "/sys/fs/cgroup/cpu.max")));
    assert!(host.notes.iter().any(|note| note.contains("using /sys/fs/cgroup instead")), "{:?}", host.notes);
}

/// Limit, use and what can be reclaimed, level by level.
fn memory_use(tree: &Tree) -> Vec<[u64; 3]> {
    let levels = mcp_launch::host::memory_use(&tree.path(""));
    levels.iter().map(|level| [level.limit, level.current, level.reclaimable]).collect()
}

#[test]
fn the_use_of_memory_is_read_on_every_level_that_limits_it() {
    let v2 = Tree::machine("0::/pod/app\n", V2)
        .file("sys/fs/cgroup/memory.stat", "inactive_file 7\n")
        .file("sys/fs/cgroup/pod/memory.max", "2000\n")
        .file("sys/fs/cgroup/pod/memory.high", "1800\n")
        .file("sys/fs/cgroup/pod/memory.current", "1500\n")
        .file(
            "sys/fs/cgroup/pod/memory.stat",
            "anon 1000\nfile_mapped 30\nactive_file 100\ninactive_file 400\nslab_reclaimable 7\n",
        )
        .file("sys/fs/cgroup/pod/app/memory.max", "max\n")
        .file("sys/fs/cgroup/pod/app/memory.current", "900\n");
    assert_eq!(memory_use(&v2), [[1800, 1500, 477]]);
    let both = v2
        .file("sys/fs/cgroup/pod/app/memory.max", "1000\n")
        .file("sys/fs/cgroup/pod/app/memory.stat", "inactive_file 300\n");
    assert_eq!(memory_use(&both), [[1000, 900, 300], [1800, 1500, 477]]);
}

#[test]
fn the_use_of_memory_in_version_1_counts_what_is_below() {
    let tree = Tree::machine(
        "4:memory:/docker/abc\n",
        "38 24 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
    )
    .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000")
    .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500")
    .file("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 600\ntotal_active_file 50\n");
    assert_eq!(memory_use(&tree), [[2000, 1500, 650]]);
    let unlimited = tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
    assert_eq!(memory_use(&unlimited), [[0; 3]; 0]);
}

#[test]
fn without_cgroups_no_use_of_memory_is_limited() {
    assert_eq!(memory_use(&Tree::new()), [[0; 3]; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// For every path of groups the lowest limit of all levels applies, wherever it is.
    #[test]
    fn the_least_limit_on_the_path_counts(
        quotas in prop::collection::vec(prop::option::of(1_000_u32..800_000), 1..5),
        limits in prop::collection::vec(prop::option::of(1_u64 << 20..1 << 33), 1..5),
    ) {
        let depth = quotas.len().max(limits.len());
        let path = |level: usize| (0..level).map(|name| format!("/g{name}")).collect::<Vec<_>>().concat();
        let mut tree = Tree::machine(&format!("0::{}/\n", path(depth - 1)), V2);
        for (level, quota) in quotas.iter().enumerate() {
            let quota = quota.map_or("max".into(), |quota| quota.to_string());
            tree = tree.file(&format!("sys/fs/cgroup{}/cpu.max", path(level)), &format!("{quota} 100000\n"));
        }
        for (level, limit) in limits.iter().enumerate() {
            let limit = limit.map_or("max".into(), |limit| limit.to_string());
            tree = tree.file(&format!("sys/fs/cgroup{}/memory.max", path(level)), &limit);
        }
        let host = tree.probe();
        let least = quotas.iter().flatten().min().map(|&quota| f64::from(quota) / 100_000.0);
        prop_assert_eq!(host.cpu.quota.map(|quota| quota.cores), least);
        prop_assert_eq!(host.memory.limit.map(|limit| limit.bytes), limits.into_iter().flatten().min());
    }
}
