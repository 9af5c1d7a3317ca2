//! Slow operations: nothing else waits for them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::ask::{Answer, ask, command};
use crate::harness::{Launch, Running, copy_program, is_alive, wait_until};

/// Opening a file in order to execute it waits while this process holds it, as with a virus scanner.
struct Held(Child);

impl Held {
    fn new(path: &Path) -> Self {
        let script = "import fcntl, signal, sys\n\
            signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
            file = open(sys.argv[1])\n\
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
            print('held', flush=True)\n\
            sys.stdin.read()\n";
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A launcher that has to run its server for the version, which takes this long from now on.
fn slow_to_tell_its_version(seconds: &str) -> Running {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let site = launch.directory.path().join("venv/lib/python3.11/site-packages");
    fs::remove_dir(site.join("gunicorn-27.0.1.dist-info")).unwrap();
    let mut running = launch.start();
    running.wait_log("ready generation=");
    fs::write(running.directory.path().join("state/version-takes"), seconds).unwrap();
    running
}

/// Requests a reload, and waits until the version is requested: returns the client, and the process that is asked.
fn reload_begun(running: &Running) -> (Child, Pid) {
    let mut command = command(running, &["reload"]);
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the version to be asked for", || running.notes("versions").len() == 2);
    (client, running.notes("versions")[1])
}

#[test]
fn while_a_reload_asks_for_the_version_clients_are_answered_and_a_stop_is_obeyed() {
    let mut running = slow_to_tell_its_version("5");
    let (client, asked) = reload_begun(&running);
    let status = ask(&running, &["status", "--json"]).json();
    assert!(is_alive(asked), "the status came when the version was known");
    assert_eq!(status["launcher"]["phase"], "serving");
    let start = Instant::now();
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(3), "{}", running.log());
    let answer = Answer::from(client.wait_with_output().unwrap());
    assert_eq!(answer.code, Some(1));
    assert!(answer.problem.contains("the launcher is stopping"), "{answer:?}");
    running.assert_nothing_left();
}

#[test]
fn a_child_that_ends_while_the_version_is_asked_for_is_replaced_at_once() {
    let mut running = slow_to_tell_its_version("5");
    let (client, asked) = reload_begun(&running);
    for pid in running.descendants().into_iter().filter(|pid| *pid != asked) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    wait_until("a successor", || running.notes("starts").len() >= 2);
    assert!(is_alive(asked), "the successor came when the version was known");
    assert_eq!(Answer::from(client.wait_with_output().unwrap()).code, Some(0), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// A launcher whose server has died, and whose next one is executing a program that is held.
fn executing() -> (Running, Held) {
    let mut running = Launch::fake("gunicorn", "serve", &[]).start();
    running.wait_log("ready generation=");
    let held = Held::new(&running.directory.path().join("venv/bin/gunicorn"));
    for pid in running.descendants() {
        let _ = kill(pid, Signal::SIGKILL);
    }
    running.wait_log("executing the program takes long");
    (running, held)
}

#[test]
fn an_exec_that_takes_long_is_logged_and_clients_are_still_answered() {
    let (mut running, held) = executing();
    assert_eq!(ask(&running, &["status", "--json"]).json()["launcher"]["phase"], "starting");
    drop(held);
    running.wait_log_count("ready generation=", 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_stop_does_not_wait_for_an_exec() {
    let (mut running, _held) = executing();
    let start = Instant::now();
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(5), "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn a_pre_start_command_whose_exec_takes_long_is_stopped_as_well() {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let program = launch.directory.path().join("prepare");
    copy_program("/bin/true", &program);
    let held = Held::new(&program);
    let mut running = launch.env("MCP_LAUNCH_PRE_START", program.to_str().unwrap()).start();
    running.wait_log("pre-start");
    let start = Instant::now();
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(5), "{}", running.log());
    drop(held);
}
