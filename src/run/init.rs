//! A plain init for any command: it forwards signals, reaps, and exits with the command's status.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::signals::BlockedSignals;
use super::status_of;
use crate::host::Environment;
use crate::problem::{Exit, Problem};
use crate::proc::process::descendants;
use crate::sys::SignalState;
use crate::sys::spawn::{Group, Image, Setup, SpawnError, SpawnStage, begin};
use crate::sys::wait::{Reaped, reap};

/// How long the processes that the command left behind have from TERM to KILL.
const KILL_AFTER: Duration = Duration::from_millis(1500);
/// The interval at which those that are found later are killed again.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long after TERM we give up waiting for them.
const LEAVE_AFTER: Duration = Duration::from_secs(2);

/// Everything that a process can handle: even signals that it could raise itself are forwarded if another process sends
/// them to us.
/// Numbers 32 and 33 belong to the C library.
fn handled() -> Vec<i32> {
    (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(signal)).collect()
}

/// Runs a command to its end.
///
/// # Errors
/// The problem that prevented it from being started.
pub fn run(program: &Path, argv: &[OsString], env: &Environment, inherited: SignalState) -> Result<u8, Problem> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        Problem::new(Exit::NotExecutable, format!("cannot run {}: {what}: {error}", program.display()))
    };
    let mut signals = BlockedSignals::install(&handled(), inherited).map_err(|error| cannot("handlers", &error))?;
    super::adopt_orphans();
    let image = Image::new(program, argv, env).map_err(|errno| cannot("arguments", &errno.desc()))?;
    let home = leave_directory();
    let setup = Setup {
        cwd: home.as_deref(),
        descriptors: &[],
        group: if super::has_terminal() { Group::Foreground } else { Group::Own },
        death_signal: None,
        open_files: None,
        signals: inherited,
    };
    let not_started = |error: SpawnError| {
        let exit = if error.stage == SpawnStage::Exec && error.errno == nix::errno::Errno::ENOENT {
            Exit::NotFound
        } else {
            Exit::NotExecutable
        };
        Problem { exit, ..cannot("it could not be started", &error) }
    };
    let (child, report) = begin(&image, &setup).map_err(not_started)?;
    let status = forward_until_exit(child, &mut signals);
    end_descendants(&mut signals);
    report.failure().map_or(Ok(status), |error| Err(not_started(error)))
}

/// Leaves the working directory, which could not be unmounted while we are in it, and returns it for the command, which
/// keeps it open itself. If there is no way back by its path, we stay.
fn leave_directory() -> Option<PathBuf> {
    let home = std::env::current_dir().ok()?;
    nix::unistd::chdir(&home).and_then(|()| nix::unistd::chdir("/")).ok()?;
    Some(home)
}

fn wait_for_signal(signals: &BlockedSignals, timeout: PollTimeout) {
    let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(signals), PollFlags::POLLIN)];
    let _ = poll(&mut fds, timeout);
}

fn forward_until_exit(child: Pid, signals: &mut BlockedSignals) -> u8 {
    loop {
        loop {
            match reap() {
                Reaped::Child(pid, status) if pid == child => return status_of(status),
                Reaped::Child(..) => {}
                Reaped::NoneEnded => break,
                // Another process has reaped the child; there is nothing left to wait for.
                Reaped::NoChildren => return Exit::No.code(),
            }
        }
        wait_for_signal(signals, PollTimeout::NONE);
        for signal in signals.drain() {
            forward(child, signal);
        }
    }
}

fn forward(child: Pid, signal: i32) {
    match signal {
        libc::SIGCHLD => {}
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => stop_with_group(child),
        // It may have been stopped with its whole group.
        libc::SIGCONT => _ = killpg(child, Signal::SIGCONT),
        _ => crate::sys::send(child, signal),
    }
}

/// Stops the command's process group and then ourselves, until we are continued: a shell with job control stops the job
/// that it started, whatever its processes do with the signal. As PID 1, the kernel does not stop us.
fn stop_with_group(child: Pid) {
    let _ = killpg(child, Signal::SIGSTOP);
    let _ = kill(nix::unistd::getpid(), Signal::SIGSTOP);
}

/// Ends what the command left behind: TERM, and KILL for what remains.
fn end_descendants(signals: &mut BlockedSignals) {
    let start = Instant::now();
    let mut asked = false;
    loop {
        while let Reaped::Child(..) = reap() {}
        if reap() == Reaped::NoChildren {
            return;
        }
        let waited = start.elapsed();
        let next = if waited >= LEAVE_AFTER {
            return;
        } else if waited >= KILL_AFTER {
            // Repeatedly: a process that forks while we look may leave a child that we have not seen.
            super::signal_all(&descendants(nix::unistd::getpid()), Signal::SIGKILL);
            waited + KILL_AGAIN_AFTER
        } else {
            if !asked {
                super::signal_all(&descendants(nix::unistd::getpid()), Signal::SIGTERM);
                asked = true;
            }
            KILL_AFTER
        };
        wait_for_signal(signals, super::poll_timeout(Some(next.saturating_sub(start.elapsed()))));
        signals.drain();
    }
}
