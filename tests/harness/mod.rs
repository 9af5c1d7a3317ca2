//! What the tests share: a launcher under test, limited waits, a small HTTP client.
//!
//! Nothing here sleeps for a fixed time: everything waits for a condition, with a deadline.

#![allow(dead_code, missing_docs)]

pub mod ask;
pub mod fake;
pub mod http;
mod installed;
pub mod matrix;
mod ports;
mod processes;
mod programs;
mod skips;
pub mod stopwatch;
mod turn;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use installed::*;
pub use ports::*;
pub use processes::*;
pub use programs::*;
pub use skips::*;
pub use turn::{Turn, take_turn};

/// Far longer than anything takes: a test that waits this long has failed. An emulated processor takes longer:
/// `scripts/cross` says so when it compiles the tests.
pub const LONG: Duration =
    Duration::from_secs(if option_env!("MCP_LAUNCH_TEST_EMULATED").is_some() { 240 } else { 40 });

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-launch");

/// Waits until the condition returns something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} took too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// A directory under `tests/`.
pub fn tests_directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A launcher that is about to be started, in a clean environment of its own.
pub struct Launch {
    pub command: Command,
    pub directory: tempfile::TempDir,
    pub port: u16,
    turn: Option<Turn>,
}

impl Launch {
    /// With the program's arguments; the environment contains only what every process needs.
    pub fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .current_dir(directory.path())
            .stdin(Stdio::null());
        Self { command, directory, port, turn: None }
    }

    /// A server with one of the small apps under `tests/apps`.
    pub fn app(venv: &Path, server: &str, arguments: &[&str]) -> Self {
        let mut launch = Self::new(&[]);
        launch
            .command
            .args(["--server", server])
            .args(arguments)
            .arg("hello:app")
            .env("VIRTUAL_ENV", venv)
            .env("PYTHONPATH", tests_directory("apps"))
            .env("MCP_LAUNCH_CPUS", "2");
        launch
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes what would find a launcher.
    pub fn without_launcher(self) -> Self {
        let nowhere = self.directory.path().join("nobody.sock");
        self.env("MCP_LAUNCH_SOCKET", nowhere)
    }

    /// Makes other tests that take turns wait until it has ended: see [`take_turn`].
    pub fn in_turn(mut self) -> Self {
        self.turn = Some(take_turn());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Without one of its arguments.
    pub fn without_argument(self, argument: &str) -> Self {
        let kept = self.arguments().filter(|found| found != argument).collect();
        let program = self.command.get_program().to_owned();
        self.with_command(program, kept)
    }

    /// With one of its arguments replaced.
    pub fn replacing_argument(self, argument: &str, by: &str) -> Self {
        let replaced = self.arguments().map(|found| if found == argument { by.into() } else { found }).collect();
        let program = self.command.get_program().to_owned();
        self.with_command(program, replaced)
    }

    /// Has another program execute it, which must replace itself with it.
    pub fn through(self, wrapper: &[&str]) -> Self {
        let own = std::iter::once(self.command.get_program().to_owned()).chain(self.arguments());
        let arguments = wrapper[1..].iter().map(OsString::from).chain(own).collect();
        self.with_command(wrapper[0].into(), arguments)
    }

    fn arguments(&self) -> impl Iterator<Item = OsString> {
        self.command.get_args().map(OsStr::to_owned)
    }

    /// With another command, in the same environment and directory.
    fn with_command(mut self, program: OsString, arguments: Vec<OsString>) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(self.command.get_current_dir().unwrap())
            .stdin(Stdio::null());
        self.command = command;
        self
    }

    /// Starts it; its output is kept for the test.
    pub fn start(self) -> Running {
        self.start_with_stderr(Stdio::piped())
    }

    /// Starts it with this as standard error; if it is a pipe of the test, the output is kept.
    pub fn start_with_stderr(mut self, stderr: impl Into<Stdio>) -> Running {
        let mut child = self.command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let out = Output::collect(child.stdout.take().unwrap());
        let log = child.stderr.take().map_or_else(Output::default, Output::collect);
        Running {
            child,
            out,
            log,
            directory: self.directory,
            port: self.port,
            status: None,
            seen: RefCell::default(),
            _turn: self.turn,
        }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        let mut running = self.start();
        let status = running.wait();
        running.finished(status)
    }
}

/// What a process writes.
#[derive(Default)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    /// Whether the last writer has closed its end, and all was read.
    fn is_complete(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

/// How a launcher ended.
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub log: String,
}

/// A running launcher. Its remaining processes are killed when the test ends.
pub struct Running {
    child: Child,
    out: Output,
    log: Output,
    pub directory: tempfile::TempDir,
    pub port: u16,
    status: Option<ExitStatus>,
    /// Descendants that were seen at any time.
    seen: RefCell<BTreeSet<Pid>>,
    _turn: Option<Turn>,
}

impl Running {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    pub fn out(&self) -> String {
        self.out.text()
    }

    /// From now on its standard error, a pipe that was given to it, is read.
    pub fn read_log_from(&mut self, pipe: impl Read + Send + 'static) {
        self.log = Output::collect(pipe);
    }

    /// Waits for a text in its log.
    #[track_caller]
    pub fn wait_log(&mut self, text: &str) {
        self.wait_log_count(text, 1);
    }

    /// Waits until a text has occurred this many times in its log.
    #[track_caller]
    pub fn wait_log_count(&mut self, text: &str, count: usize) {
        self.wait_log_within(text, count, LONG);
    }

    /// The same for what may take longer, such as the start of a large application.
    #[track_caller]
    pub fn wait_log_within(&mut self, text: &str, count: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.log().matches(text).count() < count {
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < deadline && ended.is_none(),
                "no {text:?} ({ended:?}) in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end and returns the status as in a shell.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        self.descendants();
        let deadline = Instant::now() + LONG;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        self.status = Some(status);
        // Its last output may not have been read yet, and processes that it left behind may keep the pipe open.
        let patience = Instant::now() + Duration::from_secs(2);
        while !(self.out.is_complete() && self.log.is_complete()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Its running children.
    pub fn children(&self) -> Vec<Pid> {
        children(self.pid())
    }

    /// All its running descendants.
    pub fn descendants(&self) -> Vec<Pid> {
        let found = descendants(self.pid());
        self.seen.borrow_mut().extend(&found);
        found
    }

    /// The processes that it started and that are still alive: descendants that were seen, and processes with its
    /// environment.
    pub fn leftovers(&self) -> Vec<Pid> {
        let mark = self.directory.path().as_os_str().as_bytes();
        let marked = |pid: &Pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|part| part == mark)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)));
        let mut found: BTreeSet<Pid> = pids.filter(marked).chain(self.seen.borrow().iter().copied()).collect();
        found.retain(|pid| is_alive(*pid));
        found.remove(&self.pid());
        found.into_iter().collect()
    }

    /// After its end: none of its processes is left, and no process listens on its port.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.leftovers(), [], "processes are left; its log:\n{}", self.log());
        std::net::TcpListener::bind(("127.0.0.1", self.port)).expect("the port must be free");
    }

    pub fn finished(self, code: i32) -> Finished {
        Finished { code, out: self.out(), log: self.log() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.descendants();
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // A process that forks while it is killed leaves a child that was not seen.
        for _ in 0..100 {
            let left = self.leftovers();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether we have root's privileges (to make namespaces).
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
