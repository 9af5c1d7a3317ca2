//! Starting the main process of a generation, with everything that it inherits.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::warn;

use super::dealing::wakeup::Wakeup;
use super::machine::outcome::SpawnFailure;
use super::recycling::successors::Successors;
use super::{Channels, Running};
use crate::guard::scoreboard::Scoreboard;
use crate::guard::stacks::StackMemory;
use crate::host::Environment;
use crate::ids::GenerationId;
use crate::plan::{Bind, Descriptor, Inherited, Plan};
use crate::problem::Exit;
use crate::run::has_terminal;
use crate::run::listener::borrowed::BorrowedSockets;
use crate::run::listener::{Listeners, Way, private_listener};
use crate::run::memfd::credentials::{self, FilesInMemory};
use crate::run::memfd::modules;
use crate::sys::SignalState;
use crate::sys::spawn::{ExecReport, Group, Image, Setup, SpawnError, SpawnStage, begin};

/// What failed when a process could not be started.
pub(super) const fn failure(error: SpawnError) -> SpawnFailure {
    match (error.stage, error.errno) {
        _ if may_pass(error) => SpawnFailure::NoRoom,
        (SpawnStage::Exec, Errno::ENOENT) => SpawnFailure::Program(Exit::NotFound.code()),
        (SpawnStage::Exec | SpawnStage::Directory, _) => SpawnFailure::Program(Exit::NotExecutable.code()),
        (SpawnStage::Prepare | SpawnStage::Fork | SpawnStage::Descriptors, _) => SpawnFailure::Refused,
    }
}

const fn may_pass(SpawnError { stage, errno }: SpawnError) -> bool {
    match errno {
        // Processes, memory, descriptors or disk space that may become available again.
        Errno::EAGAIN
        | Errno::ENOMEM
        | Errno::EMFILE
        | Errno::ENFILE
        | Errno::ENOBUFS
        | Errno::ENOSPC
        | Errno::EDQUOT => true,
        // The program is being replaced, or a network file system is not available.
        Errno::ETXTBSY | Errno::ESTALE | Errno::ETIMEDOUT | Errno::EINTR => {
            matches!(stage, SpawnStage::Exec | SpawnStage::Directory)
        }
        _ => false,
    }
}

/// Starts the main process of a generation, with everything that it inherits. Does not wait for its exec. `is_alone` says
/// that no other generation could respond in its place.
pub(super) fn start(
    plan: &Plan,
    generation: GenerationId,
    is_alone: bool,
    listeners: &mut Listeners,
    inherited: SignalState,
) -> Result<Running, SpawnError> {
    let prepare = |errno| SpawnError { stage: SpawnStage::Prepare, errno };
    let failed = |error: std::io::Error| prepare(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
    let written = plan.credentials.as_ref().map(|credentials| FilesInMemory::write(credentials, generation.0));
    let files = written.transpose().map_err(failed)?.flatten();
    let mut made: BTreeMap<i32, OwnedFd> = BTreeMap::new();
    let mut lent = lend(plan, generation, listeners).map_err(prepare)?.into_iter();
    let mut private = None;
    let (mut board, mut stacks, mut borrowed, mut wakeup, mut successors) = (None, None, None, None, None);
    for descriptor in &plan.descriptors {
        match &descriptor.what {
            // A generation that starts with fewer workers gets fewer sockets.
            Inherited::Listener | Inherited::WorkerListener => {
                made.extend(lent.next().map(|socket| (descriptor.number, socket)));
            }
            Inherited::FurtherListener(index) => {
                let bind = plan.further_binds.get(*index).ok_or_else(|| prepare(Errno::EINVAL))?;
                let socket = listeners.lend_further(bind, plan.policy.backlog).map_err(prepare)?;
                made.insert(descriptor.number, socket.try_clone().map_err(failed)?);
            }
            Inherited::ProbeListener => {
                if let Some((socket, way)) = probe_listener(is_alone).map_err(prepare)? {
                    private = Some(way);
                    made.insert(descriptor.number, socket);
                }
            }
            Inherited::Modules(files) => {
                made.insert(descriptor.number, modules::memory_file(files).map_err(failed)?);
            }
            what @ (Inherited::Pair | Inherited::Authority) => {
                let file = credentials::memory_file(plan.credentials.as_ref(), what).map_err(failed)?;
                made.insert(descriptor.number, file);
            }
            Inherited::Scoreboard => match scoreboard(generation, plan.workers) {
                Ok((made_here, copy)) => {
                    board = Some(made_here);
                    made.insert(descriptor.number, copy);
                }
                // Nothing else would show when the workers are ready.
                Err(errno) if plan.tells_readiness() => return Err(prepare(errno)),
                // The guard checks whether there is one, and works without it.
                Err(errno) => warn!(
                    generation = generation.0,
                    error = errno.desc(),
                    "no scoreboard: workers cannot be monitored"
                ),
            },
            Inherited::Stacks => {
                if let Some((made_here, copy)) = board.as_ref().and_then(|board| stack_memory(generation, board)) {
                    stacks = Some(made_here);
                    made.insert(descriptor.number, copy);
                }
            }
            Inherited::Wakeup => {
                if let Ok((ours, theirs)) = Wakeup::open() {
                    wakeup = Some(ours);
                    made.insert(descriptor.number, theirs);
                }
            }
            Inherited::Successors => {
                let (ours, theirs) = Successors::open().map_err(prepare)?;
                successors = Some(ours);
                made.insert(descriptor.number, theirs);
            }
            Inherited::BorrowedSockets => {
                if let Ok((ours, theirs)) = BorrowedSockets::open() {
                    borrowed = Some(ours);
                    made.insert(descriptor.number, theirs);
                }
            }
        }
    }
    let descriptors: Vec<_> = made.iter().map(|(number, fd)| (fd, *number)).collect();
    let mut argv = with_own_path(plan, generation, listeners);
    if let Some(files) = &files {
        files.put_into(&mut argv);
    }
    let env = with_fewer_sockets(plan, &made);
    let mut image = Image::new(&plan.program, &argv, env.as_ref()).map_err(prepare)?;
    if plan.listen_pid {
        image.with_listen_pid();
    }
    image.with_own_proc_in("PYTHONPATH");
    let setup = Setup {
        cwd: plan.cwd.as_deref(),
        descriptors: &descriptors,
        // A debugger's prompt and Ctrl-C are meant for the server as well as for us.
        group: if has_terminal() { Group::Shared } else { Group::Own },
        death_signal: Some(Signal::SIGTERM),
        open_files: Some(u64::MAX),
        signals: inherited,
    };
    let (main, exec) = begin(&image, &setup)?;
    let channels = Channels { borrowed, wakeup, successors };
    Ok(Running { private, board, stacks, channels, _files: files, ..Running::new(main, exec) })
}

/// The socket for probes. Without one, the public address is probed, which proves nothing if another generation may
/// answer there.
fn probe_listener(is_alone: bool) -> nix::Result<Option<(OwnedFd, Way)>> {
    match private_listener() {
        Ok(made) => Ok(Some(made)),
        Err(errno) if is_alone && !may_pass(SpawnError { stage: SpawnStage::Prepare, errno }) => {
            warn!(error = errno.desc(), "no directory for a private socket: readiness is probed where clients go");
            Ok(None)
        }
        Err(errno) => {
            warn!(
                error = errno.desc(),
                "no directory for a private socket: whether a generation is ready beside another one cannot be known"
            );
            Err(errno)
        }
    }
}

/// The environment, in which the number of listening sockets is the one that there are.
fn with_fewer_sockets<'a>(plan: &'a Plan, made: &BTreeMap<i32, OwnedFd>) -> Cow<'a, Environment> {
    let lacks = |descriptor: &&Descriptor| {
        descriptor.what == Inherited::ProbeListener && !made.contains_key(&descriptor.number)
    };
    let Some(missing) = plan.descriptors.iter().find(lacks) else { return Cow::Borrowed(&plan.env) };
    let mut env = plan.env.clone();
    // They are numbered from 3 on, and it would have been the last one.
    env.insert("LISTEN_FDS".into(), (missing.number - 3).to_string().into());
    Cow::Owned(env)
}

/// Copies of the listening sockets that the server inherits.
fn lend(plan: &Plan, generation: GenerationId, listeners: &mut Listeners) -> nix::Result<Vec<OwnedFd>> {
    let inherits = |what: &Inherited| plan.descriptors.iter().any(|descriptor| descriptor.what == *what);
    let backlog = plan.policy.backlog;
    let lent = match (inherits(&Inherited::Listener), inherits(&Inherited::WorkerListener)) {
        (true, _) => listeners.lend_shared(generation, backlog)?,
        (false, true) => listeners.lend(generation, plan.workers as usize, backlog)?,
        (false, false) => return Ok(Vec::new()),
    };
    lent.into_iter()
        .map(|socket| socket.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))
        .collect()
}

/// A scoreboard, and the copy of its descriptor that the workers get.
fn scoreboard(generation: GenerationId, workers: u32) -> nix::Result<(Scoreboard, OwnedFd)> {
    let board = Scoreboard::new(generation.0, workers)?;
    let copy = board.descriptor().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    Ok((board, copy))
}

/// The memory for the stacks of the workers on this board, and the copy of its descriptor that they get.
fn stack_memory(generation: GenerationId, board: &Scoreboard) -> Option<(StackMemory, OwnedFd)> {
    let made = StackMemory::new(board.capacity()).and_then(|memory| {
        let copy = memory.descriptor().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        Ok((memory, copy))
    });
    let said = |errno: &Errno| {
        warn!(
            generation = generation.0,
            error = errno.desc(),
            "no memory for stacks: `mcp-launch stacks` cannot look into the workers"
        );
    };
    made.inspect_err(said).ok()
}

/// The plan with one worker: both servers get their number by the same option.
pub(super) fn with_one_worker(plan: &Plan) -> Plan {
    let mut plan = Plan { workers: 1, ..plan.clone() };
    let option = plan.argv.iter().position(|argument| argument == "--workers");
    if let Some(number) = option.and_then(|option| plan.argv.get_mut(option + 1)) {
        *number = "1".into();
    }
    plan
}

/// The arguments, in which a Unix socket that the server creates itself has its own name: the old generation still has
/// the path that clients know.
fn with_own_path(plan: &Plan, generation: GenerationId, listeners: &Listeners) -> Vec<OsString> {
    let (Some(own), Bind::Unix(path)) = (listeners.own_path(generation), &plan.bind) else {
        return plan.argv.clone();
    };
    plan.argv.iter().map(|argument| if argument == path { own.clone().into() } else { argument.clone() }).collect()
}

impl Running {
    fn new(main: Pid, exec: ExecReport) -> Self {
        Self {
            main,
            exec,
            started: Instant::now(),
            boot: None,
            private: None,
            seen: BTreeSet::new(),
            counted: BTreeMap::new(),
            on_trial: false,
            board: None,
            stacks: None,
            channels: Channels::default(),
            _files: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_FOUND: SpawnFailure = SpawnFailure::Program(127);
    const NOT_EXECUTABLE: SpawnFailure = SpawnFailure::Program(126);

    #[test]
    fn what_may_pass_is_waited_for_and_what_stays_is_not() {
        use Errno::*;
        use SpawnFailure::{NoRoom, Refused};
        use SpawnStage::*;
        // Of pipe2(2), fcntl(2), memfd_create(2), open(2), socket(2), bind(2), listen(2), setsockopt(2); fork(2);
        // chdir(2); dup2(2); execve(2): every error that their pages name.
        let table: &[(SpawnStage, SpawnFailure, &[Errno])] = &[
            (Prepare, NoRoom, &[EAGAIN, EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC, EDQUOT]),
            (
                Prepare,
                Refused,
                &[
                    EACCES,
                    EADDRINUSE,
                    EADDRNOTAVAIL,
                    EAFNOSUPPORT,
                    EBADF,
                    EEXIST,
                    EINVAL,
                    EIO,
                    ELOOP,
                    ENAMETOOLONG,
                    ENOENT,
                    ENOPROTOOPT,
                    ENOSYS,
                    ENOTDIR,
                    EOPNOTSUPP,
                    EPERM,
                    EPROTONOSUPPORT,
                    EROFS,
                ],
            ),
            (Fork, NoRoom, &[EAGAIN, ENOMEM]),
            (Fork, Refused, &[ENOSYS, EPERM]),
            (Directory, NoRoom, &[ENOMEM, ESTALE, ETIMEDOUT, EINTR]),
            (Directory, NOT_EXECUTABLE, &[EACCES, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR]),
            (Descriptors, NoRoom, &[EMFILE]),
            (Descriptors, Refused, &[EBADF, EINVAL]),
            (Exec, NoRoom, &[EAGAIN, ENOMEM, EMFILE, ENFILE, ETXTBSY, ESTALE, ETIMEDOUT, EINTR]),
            (Exec, NOT_FOUND, &[ENOENT]),
            (
                Exec,
                NOT_EXECUTABLE,
                &[E2BIG, EACCES, EINVAL, EIO, EISDIR, ELIBBAD, ELOOP, ENAMETOOLONG, ENOEXEC, ENOTDIR, EPERM],
            ),
        ];
        for (stage, expected, errors) in table {
            for errno in *errors {
                assert_eq!(failure(SpawnError { stage: *stage, errno: *errno }), *expected, "{stage:?} {errno}");
            }
        }
    }
}
