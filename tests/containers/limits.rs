//! The engine's limits: CPUs and memory.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::engine::{Container, engine};
use crate::harness::http::{Load, get};
use crate::harness::{skipped, wait_until};

/// The number of workers that `explain` shows, with the reason; none if the engine refuses the limit.
fn workers(options: &[&str]) -> Option<(u64, String)> {
    let finished = Container::finish(options, &["explain", "--json"])?;
    if finished.code == 125 {
        skipped(&format!("the engine refuses {options:?}: {}", finished.log));
        return None;
    }
    let explained: Value =
        serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {}", finished.log));
    let reasons = explained["plan"]["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["topic"] == "workers").unwrap();
    Some((explained["plan"]["workers"].as_u64().unwrap(), reason["because"].as_str().unwrap().to_owned()))
}

#[test]
fn workers_fit_the_processors() {
    for (options, expected) in
        [(["--cpus", "0.5"], 1), (["--cpus", "1.5"], 2), (["--cpus", "2"], 2), (["--cpuset-cpus", "0"], 1)]
    {
        let Some((found, because)) = workers(&options) else { continue };
        assert_eq!(found, expected, "{options:?}: {because}");
    }
}

#[test]
fn workers_fit_the_memory() {
    // 80 % of it, 256 MiB for each.
    for (memory, expected) in [("512m", 1), ("640m", 2)] {
        let Some((found, because)) = workers(&["--memory", memory, "--env=MCP_LAUNCH_CPUS=8"]) else { return };
        assert_eq!(found, expected, "{memory}: {because}");
        assert!(because.contains("memory"), "{because}");
    }
}

fn a_worker_that_takes_too_much_memory_is_named_as_such_and_replaced(server: &str) {
    let options = ["--memory=256m", "--memory-swap=256m"];
    let Some(mut container) = Container::ready(server, &options, &["--workers", "2"]) else { return };
    let (main, workers) = container.server();
    assert!(get(container.running.port, "/grow?mib=400").is_err(), "{}", container.running.log());
    container.running.wait_log(" cause=oom");
    wait_until("another worker", || container.server().1 != workers);
    assert_eq!(container.server().0, main, "{}", container.running.log());
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    assert_eq!(container.status()["worker_exits"]["oom"], 1);
    container.stop_well();
}

/// Makes the kernel kill the whole container when one process exceeds the memory limit, as Kubernetes does.
fn kill_all_at_once(container: &Container) -> std::io::Result<()> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.inspect("{{.State.Pid}}")))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // Not created: version 1 of the interface has no such file.
    let file = Path::new("/sys/fs/cgroup").join(group).join("memory.oom.group");
    fs::OpenOptions::new().write(true).open(file)?.write_all(b"1")
}

#[test]
fn a_memory_group_that_is_killed_as_a_whole_is_reported() {
    let Some(container) = Container::ready("granian", &["--memory=512m"], &["--workers", "2"]) else { return };
    let check = || container.exec(&["mcp-launch", "check", "--workers", "2", "hello:app"]).problem;
    assert!(!check().contains("memory.oom.group"), "{}", check());
    match kill_all_at_once(&container) {
        Ok(()) => assert!(check().contains("memory.oom.group is set"), "{}", check()),
        Err(error) => skipped(&format!("memory.oom.group cannot be set here: {error}")),
    }
    container.stop_well();
}

fn a_limit_that_changes_is_followed_without_a_lost_request(server: &str) {
    let Some(mut container) = Container::ready(server, &["--cpus=1"], &[]) else { return };
    assert_eq!(container.server().1.len(), 1, "{}", container.running.log());
    let load = Load::start(container.running.port, "/", 8);
    let update = |option: &str| engine().args(["update", option, &container.name]).output().unwrap();
    let updated = update("--cpus=2");
    if !updated.status.success() {
        skipped(&format!("the engine refuses to change a limit: {updated:?}"));
        return;
    }
    container.running.wait_log_within("limits have changed", 1, Duration::from_secs(30));
    wait_until("two workers", || container.server().1.len() == 2);
    load.assert_nothing_lost();
    let plan = container.exec(&["mcp-launch", "explain", "--running", "--json"]).json();
    assert_eq!((&plan["limits"]["cores"], &plan["workers"]), (&2.0.into(), &2.into()), "{plan}");
    container.stop_well();
}

crate::for_both_servers!(
    a_worker_that_takes_too_much_memory_is_named_as_such_and_replaced,
    a_limit_that_changes_is_followed_without_a_lost_request
);
