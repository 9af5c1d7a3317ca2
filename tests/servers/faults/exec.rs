//! Exec mode: the server replaces the launcher.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::http::get;
use crate::harness::{Launch, Running, venv, wait_until, write_program};

/// A real server that has replaced the launcher, and responds.
fn real(server: &str) -> Option<Running> {
    let launch = Launch::app(&venv()?, server, &["--workers", "1", "--mode", "exec"]);
    let running = launch.start();
    wait_until("an answer", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
    Some(running)
}

fn the_server_takes_the_launchers_place(server: &str) {
    let Some(mut running) = real(server) else { return };
    // Its arguments may have been replaced by a title.
    let program = fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
    assert!(program.file_name().unwrap().to_str().unwrap().starts_with("python"), "{}", program.display());
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn the_lock_lives_as_long_as_the_server(server: &str) {
    let Some(mut running) = real(server) else { return };
    let second = || {
        let launch = Launch::fake(server, "exit=44", &["--restart", "no"]);
        launch.env("PORT", running.port.to_string()).env("XDG_RUNTIME_DIR", running.directory.path()).finish()
    };
    let refused = second();
    assert_eq!(refused.code, 75, "{}", refused.log);
    assert!(refused.log.contains(&format!("process {}", running.pid())), "{}", refused.log);
    assert!(refused.log.contains(".lock"), "{}", refused.log);
    drop(refused);
    running.stop();
    let launch = Launch::fake(server, "exit=44", &["--restart", "no"]);
    let free = launch.env("PORT", running.port.to_string()).env("XDG_RUNTIME_DIR", running.directory.path()).finish();
    assert_eq!(free.code, 44, "{}", free.log);
}

crate::for_both_servers!(the_server_takes_the_launchers_place, the_lock_lives_as_long_as_the_server);

#[test]
fn the_servers_status_is_the_launchers() {
    let finished = Launch::fake("gunicorn", "exit=42", &["--mode", "exec"]).finish();
    assert_eq!(finished.code, 42, "{}", finished.log);
}

#[test]
fn a_term_at_any_moment_before_the_server_listens_is_not_lost() {
    for step in 0..40 {
        let wait = Duration::from_micros(500 * step);
        let mut running = Launch::fake("gunicorn", "serve", &["--mode", "exec"]).start();
        let start = Instant::now();
        while start.elapsed() < wait {
            std::hint::spin_loop();
        }
        running.signal(Signal::SIGTERM);
        let status = running.wait();
        // The signal also ends Python before it has a handler.
        assert!([0, 143].contains(&status), "{status} after {wait:?}: {}", running.log());
    }
}

#[test]
fn a_term_that_comes_before_everything_else_keeps_the_server_from_being_started() {
    // Blocked before its start, as if it came in the first instant.
    let script = "import os, signal, sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
        os.kill(os.getpid(), signal.SIGTERM)\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let launch = Launch::fake("gunicorn", "exit=42", &["--mode", "exec"]);
    let mut running = launch.through(&["/usr/bin/env", "python3", "-c", script]).start();
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert!(running.notes("starts").is_empty());
}

#[test]
fn the_server_starts_with_the_signal_state_that_the_launcher_had() {
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let launch = Launch::fake("gunicorn", "", &["--mode", "exec"]);
    write_program(&launch.directory.path().join("venv/bin/gunicorn"), &format!("#!/bin/sh\n{script}\n"));
    let ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let through = launch.through(&ignoring).finish();
    // Started in the same way as the launcher, so that both start from the same state.
    let mut direct = Launch::new(&[]);
    direct.command = std::process::Command::new("sh");
    direct.command.args(["-c", script]).current_dir("/");
    let direct = direct.through(&ignoring).finish();
    let ignored = direct.out.trim_end().rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert_eq!(ignored.map(|mask| mask & 1), Some(1), "SIGHUP is ignored: {}", direct.out);
    assert_eq!(through.out, direct.out, "{}", through.log);
}
