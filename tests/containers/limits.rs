//! What the engine limits: processors and memory.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::engine::Container;
use crate::harness::http::get;
use crate::harness::wait_until;

/// The number of workers that `explain` gives, with the reason; none where the engine refuses the limit.
fn workers(options: &[&str]) -> Option<(u64, String)> {
    let finished = Container::finish(options, &["explain", "--json"])?;
    if finished.code == 125 {
        eprintln!("SKIPPED: the engine refuses {options:?}: {}", finished.log);
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

/// Has the kernel kill all of the container when one of it takes too much memory, as Kubernetes does.
fn kill_all_at_once(container: &Container) -> std::io::Result<()> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.inspect("{{.State.Pid}}")))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // Not created: with version 1 of the interface there is no such file.
    let file = Path::new("/sys/fs/cgroup").join(group).join("memory.oom.group");
    fs::OpenOptions::new().write(true).open(file)?.write_all(b"1")
}

#[test]
fn that_one_worker_would_take_all_with_it_is_said() {
    let Some(container) = Container::ready("granian", &["--memory=512m"], &["--workers", "2"]) else { return };
    let check = || container.exec(&["mcp-launch", "check", "--workers", "2", "hello:app"]).problem;
    assert!(!check().contains("memory.oom.group"), "{}", check());
    match kill_all_at_once(&container) {
        Ok(()) => assert!(check().contains("memory.oom.group is set"), "{}", check()),
        Err(error) => eprintln!("SKIPPED: memory.oom.group cannot be set here: {error}"),
    }
    container.stop_well();
}

crate::for_both_servers!(a_worker_that_takes_too_much_memory_is_named_as_such_and_replaced);
