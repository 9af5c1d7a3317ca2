//! Executing the server in place of the launcher.

use nix::errno::Errno;

use super::lock::Lock;
use crate::plan::{Inherited, Plan};
use crate::problem::{Exit, Problem};
use crate::sys::spawn::Image;
use crate::sys::{self, SignalState};

/// Replaces this process with the server; returns only if that failed, or if a stop signal came first.
///
/// # Errors
/// Why it could not be executed.
pub fn exec(plan: &Plan, lock: Option<Lock>, inherited: SignalState) -> Result<Exit, Problem> {
    let cannot = |what: &str, errno: Errno| {
        let exit = if errno == Errno::ENOENT { Exit::NotFound } else { Exit::NotExecutable };
        Problem::new(exit, format!("cannot execute {}: {what}: {}", plan.program.display(), errno.desc()))
    };
    let mut image = Image::new(&plan.program, &plan.argv, &plan.env).map_err(|errno| cannot("arguments", errno))?;
    if plan.listen_pid {
        image.with_listen_pid();
    }
    image.with_own_proc_in("PYTHONPATH");
    let mut files = Vec::new();
    for descriptor in &plan.descriptors {
        let file = match &descriptor.what {
            Inherited::Modules(modules) => super::memfd::modules::memory_file(modules),
            what @ (Inherited::Pair | Inherited::Authority) => {
                super::memfd::credentials::memory_file(plan.credentials.as_ref(), what)
            }
            Inherited::Listener
            | Inherited::WorkerListener
            | Inherited::Stacks
            | Inherited::Wakeup
            | Inherited::Successors
            | Inherited::FurtherListener(_)
            | Inherited::ProbeListener
            | Inherited::Scoreboard
            | Inherited::BorrowedSockets => {
                continue;
            }
        };
        let file = file
            .map_err(|error| cannot("a memory file", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
        files.push((file, descriptor.number));
    }
    if let Some(cwd) = &plan.cwd {
        std::env::set_current_dir(cwd)
            .map_err(|error| cannot("its working directory", Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    }
    sys::raise_open_files();
    if stop_is_pending() {
        return Ok(Exit::Success);
    }
    if let Some(lock) = lock {
        lock.inherit();
    }
    let placed: Vec<_> = files.iter().map(|(file, number)| (file, *number)).collect();
    sys::place(&placed).map_err(|errno| cannot("passing on descriptors", errno))?;
    Err(cannot("exec", sys::exec(&image, inherited)))
}

/// Whether a stop signal has been pending since the start of the program. After exec the kernel would drop it if we are
/// PID 1; a process that is about to begin has nothing to finish, so it ends at once.
fn stop_is_pending() -> bool {
    sys::pending_signals()
        & [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].iter().fold(0, |mask, s| mask | 1 << (s - 1))
        != 0
}
