//! Carrying out a plan: becoming the server, or staying with it.

pub mod exec;
pub mod init;
pub mod listener;
pub mod lock;
pub mod memfd;
pub mod notify;
pub mod prestart;
pub mod signals;
pub mod stop_sequence;
pub mod termination;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};

use crate::host::Environment;
use crate::plan::Bind;
use crate::proc::process::Process;

/// Where a file of a running launcher lies: `mcp-launch-PORT.EXTENSION` in the first writable directory of
/// `$XDG_RUNTIME_DIR`, `/run` and `/tmp`; none if there is none.
#[must_use]
pub fn runtime_path(env: &Environment, bind: &Bind, extension: &str) -> Option<PathBuf> {
    Some(runtime_directory(env)?.join(format!("{}.{extension}", runtime_name(bind))))
}

/// The first of the [`runtime_directories`] that is writable.
#[must_use]
pub fn runtime_directory(env: &Environment) -> Option<PathBuf> {
    let writable = |path: &PathBuf| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    runtime_directories(env).find(writable)
}

/// The name that a running launcher's files have: `mcp-launch-PORT`.
#[must_use]
pub fn runtime_name(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => format!("mcp-launch-{}", address.port()),
        Bind::Unix(path) => {
            format!("mcp-launch-{}", path.display().to_string().trim_start_matches('/').replace('/', "-"))
        }
    }
}

/// The directories where a running launcher's files may lie, best first.
pub fn runtime_directories(env: &Environment) -> impl Iterator<Item = PathBuf> {
    let own = env.get(std::ffi::OsStr::new("XDG_RUNTIME_DIR")).map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain(["/run", "/tmp"].map(PathBuf::from))
}

/// The exit status that stands for how a process ended: its own, or 128 and the signal.
pub(crate) fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// Has orphaned descendants handed to us. PID 1 gets them anyway.
pub(crate) fn adopt_orphans() {
    if nix::unistd::getpid().as_raw() != 1 {
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
}

/// Sends a signal to processes, and wakes those that are stopped so that they can act on it.
pub(crate) fn signal_all(processes: &[Process], signal: Signal) {
    for process in processes.iter().filter(|process| !process.is_zombie()) {
        let _ = process.signal(signal);
        if signal != Signal::SIGKILL {
            let _ = process.signal(Signal::SIGCONT);
        }
    }
}

/// A wait for `poll`, rounded up so that it does not end just before its time; none is for ever.
pub(crate) fn poll_timeout(wait: Option<Duration>) -> PollTimeout {
    let millis =
        |wait: Duration| i32::try_from(wait.as_millis() + u128::from(!wait.subsec_nanos().is_multiple_of(1_000_000)));
    wait.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(millis(wait).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    })
}
