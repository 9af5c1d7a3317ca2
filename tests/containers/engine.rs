//! Containers under test. They are removed when they go out of scope, even if a test fails.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::ask::Answer;
use crate::harness::{Finished, Launch, Running, skipped, tests_directory, wait_for};

/// The engine's client.
pub fn engine() -> Command {
    let mut command = Command::new(std::env::var_os("CONTAINER_ENGINE").unwrap_or_else(|| "docker".into()));
    command.stdin(Stdio::null());
    command
}

/// The image with mcp-launch, both servers and the gateway.
pub fn image() -> Option<String> {
    let image = std::env::var("MCP_LAUNCH_TEST_IMAGE").ok();
    if image.is_none() {
        skipped("MCP_LAUNCH_TEST_IMAGE is not set; scripts/test builds the image and sets it");
    }
    image
}

/// A unique name. `scripts/test` uses it to find what is left when the tests themselves were killed.
pub fn unique(what: &str) -> String {
    let own = std::process::id();
    let run = std::env::var("MCP_LAUNCH_TEST_RUN").unwrap_or_else(|_| own.to_string());
    format!("mcp-launch-test-{run}-{own}-{what}")
}

/// An image that is removed at the end.
pub struct Image(pub String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = engine().args(["rmi", "--force", &self.0]).output();
    }
}

/// A process in a container's PID namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub pid: i32,
    pub parent: i32,
    pub state: char,
    pub name: String,
}

/// A container that runs in the foreground of the engine's client.
pub struct Container {
    pub running: Running,
    pub name: String,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = engine().args(["rm", "--force", "--volumes", &self.name]).output();
    }
}

/// `docker run` with these options and arguments, with the small apps on the import path. Unless the options choose a
/// network, port 4444 is published on the loopback address.
pub fn launch(image: &str, options: &[&str], arguments: &[&str]) -> (Launch, String) {
    let mut launch = Launch::new(&[]);
    let name = unique(&launch.port.to_string());
    let mut command = engine();
    command.args(["run", "--name", &name, "--env=PYTHONPATH=/apps"]);
    command.arg(format!("--volume={}:/apps:ro", tests_directory("apps").display()));
    if !options.iter().any(|option| option.starts_with("--network")) {
        command.arg(format!("--publish=127.0.0.1:{}:4444", launch.port));
    }
    command.args(options).arg(image).args(arguments);
    launch.command = command;
    (launch, name)
}

impl Container {
    /// Starts it.
    pub fn start(options: &[&str], arguments: &[&str]) -> Option<Self> {
        Some(Self::start_image(&image()?, options, arguments))
    }

    /// Starts another image.
    pub fn start_image(image: &str, options: &[&str], arguments: &[&str]) -> Self {
        let (launch, name) = launch(image, options, arguments);
        Self { running: launch.start(), name }
    }

    /// A ready server with the small app.
    #[track_caller]
    pub fn ready(server: &str, options: &[&str], arguments: &[&str]) -> Option<Self> {
        let arguments = [&["--server", server], arguments, &["hello:app"]].concat();
        let mut container = Self::start(options, &arguments)?;
        container.running.wait_log(" ready generation=1");
        Some(container)
    }

    /// Runs one to its end.
    #[track_caller]
    pub fn finish(options: &[&str], arguments: &[&str]) -> Option<Finished> {
        let mut container = Self::start(options, arguments)?;
        let code = container.running.wait();
        Some(Finished { code, out: container.running.out(), log: container.running.log() })
    }

    /// Runs another command in it.
    pub fn exec(&self, command: &[&str]) -> Answer {
        engine().args(["exec", &self.name]).args(command).output().unwrap().into()
    }

    /// The output of `mcp-launch status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.exec(&["mcp-launch", "status", "--json"]);
        serde_json::from_str(&answer.out)
            .unwrap_or_else(|error| panic!("{error}: {answer:?}\n{}", self.running.log()))
    }

    /// The main process of the generation that serves, and its workers.
    #[track_caller]
    pub fn server(&self) -> (i64, BTreeSet<i64>) {
        wait_for("a generation with all its workers", || {
            let status = self.status();
            let serving = status["generations"].as_array()?.iter().find(|found| found["state"] == "serving")?.clone();
            let workers = serving["workers"].as_array()?.iter().filter_map(|worker| worker["pid"].as_i64());
            let workers: BTreeSet<i64> = workers.collect();
            (workers.len() as u64 == serving["workers_planned"].as_u64()?)
                .then_some((serving["main_pid"].as_i64()?, workers))
        })
    }

    /// Sends a signal to one of its processes.
    #[track_caller]
    pub fn kill(&self, signal: &str, pid: i64) {
        let answer = self.exec(&["sh", "-c", &format!("kill -{signal} {pid}")]);
        assert_eq!((answer.code, answer.problem.as_str()), (Some(0), ""));
    }

    /// The processes in it, except those that inspect it.
    pub fn processes(&self) -> Vec<Seen> {
        let answer = self.exec(&["sh", "-c", "echo $$; cat /proc/[0-9]*/stat 2>/dev/null"]);
        let mut lines = answer.out.lines();
        let observer: i32 = lines.next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
        let all = lines.filter_map(|line| {
            let (pid, rest) = line.split_once(" (")?;
            let (name, rest) = rest.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let state = fields.next()?.chars().next()?;
            let parent = fields.next()?.parse().ok()?;
            Some(Seen { pid: pid.parse().ok()?, parent, state, name: name.to_owned() })
        });
        all.filter(|seen| seen.pid != observer && seen.parent != observer).collect()
    }

    /// A field of the engine's information about it, by the name that its templates use.
    pub fn inspect(&self, field: &str) -> String {
        let inspected = engine().args(["inspect", "--format", field, &self.name]).output().unwrap();
        Answer::from(inspected).out.trim().to_owned()
    }

    /// `docker stop`: the exit status, and how long it took.
    #[track_caller]
    pub fn stop(&mut self) -> (i32, Duration) {
        let start = Instant::now();
        let answer = Answer::from(engine().args(["stop", "--time", "30", &self.name]).output().unwrap());
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let took = start.elapsed();
        (self.running.wait(), took)
    }

    /// The same, for a container that should end soon and successfully.
    #[track_caller]
    pub fn stop_well(mut self) {
        let (code, took) = self.stop();
        assert_eq!(code, 0, "{}", self.running.log());
        assert!(took < Duration::from_secs(10), "{took:?}\n{}", self.running.log());
    }
}
