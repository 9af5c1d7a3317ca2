//! Carrying out a plan: becoming the server, or supervising it.

pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod listener;
pub(crate) mod lock;
pub mod memfd;
pub(crate) mod notify;
pub(crate) mod prestart;
pub(crate) mod signals;
pub(crate) mod stop_sequence;
pub(crate) mod termination;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::poll::PollTimeout;
use nix::sys::signal::Signal;

use crate::proc::process::Process;

/// The exit status for the way in which a process ended: its own, or 128 and the signal.
pub(crate) fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// Whether we are in the foreground of the terminal on standard input: then our children may use it as well.
pub(crate) fn has_terminal() -> bool {
    nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Makes orphaned descendants our children. PID 1 gets them anyway.
pub(crate) fn adopt_orphans() {
    if nix::unistd::getpid().as_raw() != 1 {
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
}

/// Sends a signal to processes, and continues those that are stopped so that they can act on it.
pub(crate) fn signal_all(processes: &[Process], signal: Signal) {
    for process in processes.iter().filter(|process| !process.is_zombie()) {
        let _ = process.signal(signal);
        // Only those that are stopped: others would see the signal with the higher number first, and act on it.
        let is_stopped = || Process::read(process.pid).is_some_and(|now| now.state == 'T');
        if signal != Signal::SIGKILL && is_stopped() {
            let _ = process.signal(Signal::SIGCONT);
        }
    }
}

/// A timeout for `poll`, rounded up so that it does not end just before the time; none means without limit.
pub(crate) fn poll_timeout(wait: Option<Duration>) -> PollTimeout {
    let millis =
        |wait: Duration| i32::try_from(wait.as_millis() + u128::from(!wait.subsec_nanos().is_multiple_of(1_000_000)));
    wait.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(millis(wait).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    })
}
