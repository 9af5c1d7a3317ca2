//! Limits that change while a server runs, in the test's own control group.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::ask::ask;
use crate::harness::http::Load;
use crate::harness::{Launch, Running, is_root, skipped, venv, wait_until};

crate::for_both_servers!(
    a_memory_limit_that_shrinks_takes_workers_away_and_no_request_is_lost,
    a_quota_that_shrinks_takes_workers_away_and_no_request_is_lost,
    a_number_of_workers_that_was_set_stays_and_that_is_logged
);

/// A control group with limits. It is removed when it goes out of scope, and must be empty by then.
pub struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Group {
    /// A new one with a quota of this many cores, if this machine permits it.
    fn with_cores(name: &str, cores: u32) -> Option<Self> {
        Self::new("cpu", name, |group| group.set_cores(cores))
    }

    /// A new one with this much memory.
    pub fn with_memory(name: &str, mebibytes: u64) -> Option<Self> {
        Self::new("memory", name, |group| group.set_memory(mebibytes))
    }

    fn new(controller: &str, name: &str, set: impl Fn(&Self) -> bool) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let parent = [root.join(controller), root.to_owned()].into_iter().find(|path| path.is_dir())?;
        let group = Self(parent.join(format!("mcp-launch-test-{}-{name}", std::process::id())));
        let made = is_root() && fs::create_dir(&group.0).is_ok() && set(&group);
        if !made {
            skipped(&format!(
                "a control group with a limit of {controller} needs root and a writable /sys/fs/cgroup"
            ));
        }
        made.then_some(group)
    }

    fn set_memory(&self, mebibytes: u64) -> bool {
        let bytes = (mebibytes << 20).to_string();
        self.write("memory.max", &bytes) || self.write("memory.limit_in_bytes", &bytes)
    }

    fn write(&self, file: &str, text: &str) -> bool {
        self.0.join(file).exists() && fs::write(self.0.join(file), text).is_ok()
    }

    fn set_cores(&self, cores: u32) -> bool {
        let quota = u64::from(cores) * 100_000;
        self.write("cpu.max", &format!("{quota} 100000")) || self.write("cpu.cfs_quota_us", &quota.to_string())
    }

    /// A launcher in this group.
    pub fn start(&self, venv: &Path, server: &str, arguments: &[&str]) -> Running {
        self.launch(Launch::app(venv, server, arguments).without("MCP_LAUNCH_CPUS"))
    }

    fn launch(&self, launch: Launch) -> Running {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        let launch = launch.through(&["sh", "-c", &script, "sh"]);
        let mut running = launch.start();
        running.wait_log(" ready ");
        running
    }
}

fn workers(running: &Running) -> usize {
    let status = ask(running, &["status", "--json"]).json();
    let generations = status["generations"].as_array().unwrap();
    if generations.len() == 1 { generations[0]["workers"].as_array().unwrap().len() } else { 0 }
}

fn a_quota_that_shrinks_takes_workers_away_and_no_request_is_lost(server: &str) {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_cores(&format!("follow-{server}"), 2) else { return };
    let mut running = group.start(&venv, server, &[]);
    wait_until("two workers", || workers(&running) == 2);
    let load = Load::start(running.port, "/", 8);
    assert!(group.set_cores(1));
    running.wait_log_within(
        "limits have changed: the number of workers follows from=2 cores",
        1,
        Duration::from_secs(30),
    );
    wait_until("one worker", || workers(&running) == 1);
    load.assert_nothing_lost();
    let plan = ask(&running, &["explain", "--running"]).out;
    assert!(plan.contains("limits       1 core, "), "{plan}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Gunicorn's go first, one by one, because a reload needs memory. Then the smaller number is made to last.
fn a_memory_limit_that_shrinks_takes_workers_away_and_no_request_is_lost(server: &str) {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_memory(&format!("memory-{server}"), 600) else { return };
    let launch = Launch::app(&venv, server, &[]).env("MCP_LAUNCH_CPUS", "3").env("MCP_LAUNCH_WORKER_MEMORY", "160M");
    let mut running = group.launch(launch);
    wait_until("three workers", || workers(&running) == 3);
    let load = Load::start(running.port, "/", 8);
    assert!(group.set_memory(200), "{}", running.log());
    if server == "gunicorn" {
        running.wait_log_within("less memory: workers are taken away", 1, Duration::from_secs(30));
    }
    running.wait_log_within("limits have changed: the number of workers follows", 1, Duration::from_secs(30));
    running.wait_log_within("ready generation=2", 1, Duration::from_secs(30));
    wait_until("one worker", || workers(&running) == 1);
    load.assert_nothing_lost();
    let exits = &ask(&running, &["status", "--json"]).json()["worker_exits"];
    assert_eq!((&exits["oom"], &exits["unknown"]), (&0.into(), &0.into()), "{exits}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_number_of_workers_that_was_set_stays_and_that_is_logged(server: &str) {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_cores(&format!("set-{server}"), 2) else { return };
    let mut running = group.start(&venv, server, &["--workers", "2"]);
    assert!(group.set_cores(1));
    running.wait_log_within("the number of workers was set and stays", 1, Duration::from_secs(30));
    assert!(running.log().contains("set_by=command line --workers"), "{}", running.log());
    assert_eq!(workers(&running), 2);
    assert!(!running.log().contains("reloading"), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_limit_that_changes_every_second_is_followed_once_it_has_settled() {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_cores("flaps", 2) else { return };
    let mut running = group.start(&venv, "gunicorn", &[]);
    wait_until("two workers", || workers(&running) == 2);
    for second in 0..6 {
        assert!(group.set_cores(1 + second % 2));
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(!running.log().contains("limits have changed"), "{}", running.log());
    assert!(group.set_cores(1));
    running.wait_log_within("the number of workers follows from=2 cores", 1, Duration::from_secs(30));
    wait_until("one worker", || workers(&running) == 1);
    assert_eq!(running.log().matches("limits have changed").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_memory_limit_below_what_one_worker_needs_keeps_one_and_is_logged() {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_memory("small", 600) else { return };
    let launch =
        Launch::app(&venv, "gunicorn", &[]).env("MCP_LAUNCH_CPUS", "1").env("MCP_LAUNCH_WORKER_MEMORY", "400M");
    let mut running = group.launch(launch);
    assert!(group.set_memory(300), "{}", running.log());
    running.wait_log_within(
        "1 worker (from default) may need more memory than is available: memory 300 MiB",
        1,
        Duration::from_secs(30),
    );
    assert_eq!(workers(&running), 1);
    assert!(!running.log().contains("reloading"), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}
