use proptest::prelude::*;

use super::*;
use crate::host::{Cpu, CpuQuota, CpuWeight, Memory, MemoryLimit};
use crate::plan::tests::resolution;

fn host(affinity: u32, quota: Option<f64>, limit: Option<u64>) -> Host {
    let quota = quota.map(|cores| CpuQuota { cores, source: "/sys/fs/cgroup/cpu.max".into() });
    let limit = limit.map(|mib| MemoryLimit { bytes: mib << 20, source: "/sys/fs/cgroup/memory.max".into() });
    Host {
        cpu: Cpu { affinity, quota, weight: None },
        memory: Memory { limit, ..Memory::default() },
        ..Host::default()
    }
}

fn of(server: Server, env: &[(&str, &str)], host: &Host) -> Count {
    count(server, &resolution(env).settings, host, None)
}

#[test]
fn counts_follow_cores_caps_and_settings() {
    for (env, affinity, quota, limit, workers) in [
        (&[][..], 64, Some(2.0), None, 2),
        (&[], 8, None, None, 8),
        (&[], 64, None, None, 16),
        (&[], 8, Some(1.5), None, 2),
        (&[], 8, Some(2.5), None, 3),
        (&[], 8, Some(1.49), None, 1),
        (&[], 8, Some(0.1), None, 1),
        (&[], 2, Some(4.0), None, 2),
        (&[], 64, Some(2.0), Some(512), 1),
        (&[], 4, None, Some(1280), 4),
        (&[], 4, None, Some(1279), 3),
        (&[], 4, None, Some(64), 1),
        (&[("MCP_LAUNCH_WORKER_MEMORY", "0")], 4, None, Some(64), 4),
        (&[("MCP_LAUNCH_WORKER_MEMORY", "100M")], 4, None, Some(256), 2),
        (&[("MCP_LAUNCH_CPUS", "500m")], 8, None, None, 1),
        (&[("MCP_LAUNCH_CPUS", "12")], 2, Some(1.0), None, 12),
        (&[("MAX_WORKERS", "3")], 8, None, None, 3),
        (&[("MCP_LAUNCH_MAX_WORKERS", "5"), ("MAX_WORKERS", "3")], 8, None, None, 5),
        (&[("WEB_CONCURRENCY", "3")], 8, None, None, 3),
        (&[("WEB_CONCURRENCY", "auto")], 8, None, None, 8),
        (&[("WEB_CONCURRENCY", "")], 8, None, None, 8),
        (&[("WEB_CONCURRENCY", "3"), ("GUNICORN_WORKERS", "5"), ("GRANIAN_WORKERS", "5")], 8, None, None, 5),
        (&[("GUNICORN_WORKERS", "2n+1"), ("GRANIAN_WORKERS", "2n+1")], 4, None, Some(512), 9),
        (&[("GUNICORN_WORKERS", "2n+1"), ("GRANIAN_WORKERS", "2n+1")], 64, None, None, 16),
        (&[("GUNICORN_WORKERS", "n/2"), ("GRANIAN_WORKERS", "n/2")], 8, Some(3.0), None, 1),
        (&[("GUNICORN_WORKERS", "40"), ("GRANIAN_WORKERS", "40")], 2, None, Some(64), 40),
        (&[("GUNICORN_DEV_MODE", "true"), ("GRANIAN_DEV_MODE", "true")], 8, None, None, 2),
        (&[("GUNICORN_DEV_MODE", "true"), ("GRANIAN_DEV_MODE", "true")], 1, None, None, 1),
    ] {
        for server in [Server::Gunicorn, Server::Granian] {
            let count = of(server, env, &host(affinity, quota, limit));
            assert_eq!(count.number, workers, "{server} {env:?} on {affinity} {quota:?} {limit:?}: {count:?}");
        }
    }
}

#[test]
fn the_reason_begins_with_what_binds_and_names_every_other_input() {
    let because = |env, host: &Host| of(Server::Gunicorn, env, host).reason.because;
    assert_eq!(
        because(&[], &host(64, Some(2.0), Some(8192))),
        "cpu quota 2.0 (/sys/fs/cgroup/cpu.max) of 64 processors; max_workers 16 (default) allows 16; memory 8192 MiB \
         (/sys/fs/cgroup/memory.max), 80 % of it at 256 MiB per worker allows 25"
    );
    assert_eq!(
        because(&[], &host(64, Some(2.0), Some(512))),
        "memory 512 MiB (/sys/fs/cgroup/memory.max), 80 % of it at 256 MiB per worker; cpu quota 2.0 \
         (/sys/fs/cgroup/cpu.max) of 64 processors allows 2; max_workers 16 (default) allows 16"
    );
    assert_eq!(
        because(&[("GUNICORN_WORKERS", "3"), ("WEB_CONCURRENCY", "7")], &host(1, None, None)),
        "set by environment GUNICORN_WORKERS; 1 processor, no cpu quota; takes precedence over 7 by environment \
         WEB_CONCURRENCY"
    );
}

#[test]
fn an_argument_for_gunicorn_is_between_its_own_setting_and_web_concurrency() {
    let settings = resolution(&[("WEB_CONCURRENCY", "7")]).settings;
    assert_eq!(
        count(Server::Gunicorn, &settings, &host(2, None, None), Some((3, Origin::Env("GUNICORN_CMD_ARGS".into()))))
            .number,
        3
    );
    assert_eq!(
        count(Server::Granian, &settings, &host(2, None, None), Some((3, Origin::Env("GUNICORN_CMD_ARGS".into()))))
            .number,
        7
    );
    let settings = resolution(&[("GUNICORN_WORKERS", "5")]).settings;
    assert_eq!(
        count(Server::Gunicorn, &settings, &host(2, None, None), Some((3, Origin::Env("GUNICORN_CMD_ARGS".into()))))
            .number,
        5
    );
}

#[test]
fn counts_that_the_machine_may_not_carry_are_warned_about() {
    let warnings = |env, host: &Host| of(Server::Granian, env, host).warnings;
    assert!(warnings(&[("GRANIAN_WORKERS", "8")], &host(2, None, None)).is_empty());
    let far = warnings(&[("GRANIAN_WORKERS", "9")], &host(2, None, None));
    assert!(far[0].contains("9 workers") && far[0].contains("2 cores"), "{far:?}");
    let memory = warnings(&[("GRANIAN_WORKERS", "3")], &host(2, None, Some(512)));
    assert!(memory[0].contains("512 MiB"), "{memory:?}");
    let one = warnings(&[], &host(2, None, Some(64)));
    assert!(one[0].starts_with("1 worker ") && one[0].contains("memory 64 MiB"), "{one:?}");
    assert!(warnings(&[], &host(2, None, Some(256))).is_empty(), "there is room for one, though not for peaks");

    let mut weighted = host(8, None, None);
    weighted.cpu.weight = Some(CpuWeight { cores: 0.5, source: "/sys/fs/cgroup/cpu.weight".into() });
    let warning = &warnings(&[], &weighted)[0];
    assert!(warning.contains("MCP_LAUNCH_CPUS") && warning.contains("0.5 core "), "{warning}");
    assert!(warnings(&[("MCP_LAUNCH_CPUS", "2")], &weighted).is_empty());
    weighted.cpu.quota = Some(CpuQuota { cores: 4.0, source: "/sys/fs/cgroup/cpu.max".into() });
    assert!(warnings(&[], &weighted).is_empty());
}

proptest! {
    #[test]
    fn every_computed_count_is_within_its_caps(
        affinity in 1_u32..300,
        quota in proptest::option::of(0.01_f64..300.0),
        limit in proptest::option::of(1_u64..1 << 20),
        max in 1_u32..100,
        worker in 1_u64..4096,
    ) {
        let (max_text, worker_text) = (max.to_string(), format!("{worker}M"));
        let env = [("MAX_WORKERS", max_text.as_str()), ("MCP_LAUNCH_WORKER_MEMORY", worker_text.as_str())];
        let host = host(affinity, quota, limit);
        let auto = of(Server::Granian, &env, &host).number;
        prop_assert!(auto >= 1 && auto <= max && auto <= affinity);
        if let Some(cores) = quota {
            prop_assert!(auto == 1 || f64::from(auto) <= cores + 0.5);
        }
        if let Some(limit) = limit {
            prop_assert!(auto == 1 || u64::from(auto) * worker * 10 <= limit * 8);
        }
        prop_assert_eq!(auto, of(Server::Gunicorn, &env, &host).number);
        let formula = of(Server::Granian, &[env[0], env[1], ("GRANIAN_WORKERS", "3n+2")], &host).number;
        prop_assert!(formula >= 1 && formula <= max);
    }
}
