//! `mcp-launch health` if the server does not listen on a TCP port.

use std::process::{Command, Output};

use crate::harness::ask::all_are_ready;
use crate::harness::{Launch, PROGRAM, Running, children, venv, wait_until};
use nix::sys::signal::{Signal, kill};

fn health(running: &Running, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("health").args(arguments).env_clear().env("XDG_RUNTIME_DIR", running.directory.path());
    command.output().unwrap()
}

fn a_server_on_a_unix_socket_is_asked_there(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1"]);
    let path = launch.directory.path().join("app.sock");
    let mut running = launch.env("MCP_LAUNCH_UDS", &path).start();
    running.wait_log(" ready ");
    let place = path.to_str().unwrap();
    for (probe, said) in [("--ready", "ready: serving\n"), ("--live", "live: ")] {
        let output = health(&running, &[probe, "--uds", place]);
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && line.starts_with(said), "{probe}: {line}\n{}", running.log());
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert_eq!(health(&running, &["--uds", place]).status.code(), Some(3));
}

/// The main process is stopped, so that the killed workers are not replaced.
fn without_a_worker_that_can_answer_it_is_not_ready(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "2"]).in_turn().start();
    running.wait_log(" ready ");
    wait_until("all workers", || all_are_ready(&running));
    let main = running.children()[0];
    kill(main, Signal::SIGSTOP).unwrap();
    for worker in children(main) {
        kill(worker, Signal::SIGKILL).unwrap();
    }
    let is_ready = || health(&running, &["--ready"]).status.code() == Some(0);
    assert!(is_ready(), "less than 5 s have passed");
    wait_until("it to be not ready", || !is_ready());
    kill(main, Signal::SIGCONT).unwrap();
    wait_until("it to be ready again", is_ready);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_both_servers!(a_server_on_a_unix_socket_is_asked_there, without_a_worker_that_can_answer_it_is_not_ready);
