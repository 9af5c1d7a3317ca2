//! Commands before the first generation: each runs to its end, is retried if configured, and leaves no process behind.
//!
//! They run once we have the port and the lock, and before there is a supervisor. Only signals that mean a stop are
//! read during this time; all others stay blocked and reach the supervisor, so that a reload requested now happens
//! after the start. The control socket exists already: clients get the answer that we are alive, but not ready.

mod meanwhile;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::notify::Notifier;
use super::signals::BlockedSignals;
use super::stop_sequence::{StopSequence, StopStep};
use super::{adopt_orphans, has_terminal, poll_timeout, signal_all, status_of};
use crate::control::server::ControlServer;
use crate::host::{Program, find_program};
use crate::plan::Plan;
use crate::plan::pre_start::PreStart;
use crate::problem::{Exit, Problem};
use crate::proc::process::descendants;
use crate::report::redact;
use crate::settings::value::show_span;
use crate::sys::SignalState;
use crate::sys::spawn::{ExecReport, Group, Image, Setup, SpawnError, SpawnStage, begin};
use crate::sys::wait::{Reaped, reap};
use meanwhile::Meanwhile;

/// How long the processes that a command left behind have from TERM to KILL.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(2);
/// How long a command that exceeded its time has from TERM to KILL: a migration may have to roll back.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// A process that forks while it is killed may leave a child that was not seen: the rest is killed again after this
/// time.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(50);

const STOPS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// The outcome of the commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All succeeded.
    Done,
    /// A stop was requested; the program exits with this status.
    Stopped(u8),
    /// One failed for good; the program exits with this status, for this reason.
    Failed(u8, String),
}

/// All problems that would prevent the commands from running.
#[must_use]
pub fn problems(steps: &[PreStart], cwd: Option<&Path>) -> Vec<Problem> {
    steps.iter().flat_map(|step| program(step, cwd).err().into_iter().chain(confined(step, cwd).err())).collect()
}

/// The program of a command.
fn program(step: &PreStart, cwd: Option<&Path>) -> Result<PathBuf, Problem> {
    let name = step.argv.first().map(PathBuf::from).unwrap_or_default();
    // A relative path starts from the command's working directory.
    let is_path = name.as_os_str().as_encoded_bytes().contains(&b'/');
    let name = if is_path { cwd.unwrap_or(Path::new("")).join(name) } else { name };
    let shown = name.display();
    let problem = |exit, message| Problem { origin: Some(step.origin.clone()), ..Problem::new(exit, message) };
    match find_program(name.as_os_str(), &step.env) {
        Program::Found(path) => Ok(path),
        Program::NotExecutable { path, why } => {
            Err(problem(Exit::NotExecutable, format!("{}: {} {why}", step.setting, path.display())))
        }
        Program::Missing => Err(problem(Exit::NotFound, format!("{}: command not found: {shown}", step.setting))
            .hint("use a path, or the name of a command on PATH or in the virtual environment")),
    }
}

/// Whether the file that a command reads is where it must be. Links are followed: their target decides.
fn confined(step: &PreStart, cwd: Option<&Path>) -> Result<(), Problem> {
    let Some((path, origin)) = &step.confined else { return Ok(()) };
    let root = cwd.unwrap_or(Path::new("."));
    let cannot = |error: &io::Error| {
        let why =
            if error.kind() == io::ErrorKind::NotFound { "does not exist".to_owned() } else { error.to_string() };
        Problem::setting(format!("the requirements file {} {why}", path.display()), origin)
            .hint(format!("{} is set: name a file inside APP_ROOT, or switch it off", step.setting))
    };
    let root = root.canonicalize().map_err(|error| cannot(&error))?;
    let found = root.join(path).canonicalize().map_err(|error| cannot(&error))?;
    if !found.starts_with(&root) {
        let (path, found) = (path.display(), found.display());
        let message = format!("the requirements file {path} resolves to {found}, outside {}", root.display());
        return Err(Problem::setting(message, origin).hint("it must be inside APP_ROOT"));
    }
    if !found.is_file() {
        return Err(cannot(&io::Error::other("is not a regular file")));
    }
    Ok(())
}

/// Runs the commands of a plan one after the other. All signals must be blocked, as they are from the start of the
/// program on. The service manager is informed of what is being done, and how long that may take.
///
/// # Errors
/// If no descriptor is left to read signals from.
pub fn run(
    plan: &Plan,
    inherited: SignalState,
    control: &mut ControlServer,
    notify: &mut Notifier,
) -> io::Result<Outcome> {
    if plan.pre_start.is_empty() {
        return Ok(Outcome::Done);
    }
    adopt_orphans();
    let wanted = [STOPS.as_slice(), &[libc::SIGCHLD]].concat();
    let mut runner = Runner {
        signals: BlockedSignals::take(&wanted)?,
        cwd: plan.cwd.as_deref(),
        stop_timeout: plan.policy.stop_timeout,
        inherited,
        meanwhile: Meanwhile::new(plan, control, notify),
        stop: Stop::No,
        killed: false,
    };
    let mut outcome = Outcome::Done;
    for step in &plan.pre_start {
        outcome = runner.until_it_succeeds(step);
        if outcome != Outcome::Done {
            break;
        }
    }
    if nix::unistd::getpid().as_raw() != 1 {
        // If the server replaced us, no process would reap these children.
        let _ = nix::sys::prctl::set_child_subreaper(false);
    }
    Ok(outcome)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    Asked,
    /// A second signal, or SIGQUIT.
    Now,
}

struct Runner<'a> {
    signals: BlockedSignals,
    cwd: Option<&'a Path>,
    stop_timeout: Duration,
    inherited: SignalState,
    meanwhile: Meanwhile<'a>,
    stop: Stop,
    /// Whether SIGKILL was needed for a stop.
    killed: bool,
}

/// How one run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Status(u8),
    OutOfTime(Duration),
    NotStarted(SpawnError),
}

impl End {
    fn status(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::OutOfTime(_) => Exit::NotReady.code(),
            Self::NotStarted(SpawnError { stage: SpawnStage::Exec, errno: Errno::ENOENT }) => Exit::NotFound.code(),
            Self::NotStarted(_) => Exit::NotExecutable.code(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::OutOfTime(timeout) => write!(f, "did not finish within {}", show_span(*timeout)),
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
        }
    }
}

impl Runner<'_> {
    fn until_it_succeeds(&mut self, step: &PreStart) -> Outcome {
        let words: Vec<_> = step.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let command = redact::arguments(&words).join(" ");
        let mut wait = step.wait;
        for retries_left in (0..=step.retries).rev() {
            if let Some(stopped) = self.stopped() {
                return stopped;
            }
            info!(setting = step.setting, command, "pre-start");
            let within = step.timeout + TIMEOUT_GRACE + wait;
            self.meanwhile.begin(step.setting, within);
            let start = Instant::now();
            let end = self.once(step);
            if let Some(stopped) = self.stopped() {
                return stopped;
            }
            let took = show_span(Duration::from_millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(0)));
            match end {
                End::Status(0) => {
                    info!(setting = step.setting, took, "pre-start done");
                    return Outcome::Done;
                }
                _ if retries_left > 0 => {
                    let next = show_span(wait);
                    warn!(setting = step.setting, cause = %end, took, retries_left, next, "pre-start failed");
                    self.rest(wait);
                    wait = (wait * 2).min(step.longest_wait.max(step.wait));
                }
                _ => {
                    error!(setting = step.setting, cause = %end, took, "pre-start failed, nothing is started");
                    return Outcome::Failed(end.status(), format!("{} {end}", step.setting));
                }
            }
        }
        Outcome::Done
    }

    fn stopped(&self) -> Option<Outcome> {
        let status = if self.killed { 128 + 15 } else { Exit::Success.code() };
        (self.stop > Stop::No).then_some(Outcome::Stopped(status))
    }

    /// One run, until no process of it is left.
    fn once(&mut self, step: &PreStart) -> End {
        let (main, report) = match self.start(step) {
            Ok(started) => started,
            Err(error) => return End::NotStarted(error),
        };
        let deadline = Instant::now() + step.timeout;
        let mut ended = None;
        let mut out_of_time = false;
        let mut leave: Option<StopSequence> = None;
        loop {
            let alone = reap_all(main, &mut ended);
            let now = Instant::now();
            if ended.is_some() {
                leave.get_or_insert_with(|| StopSequence::new(now, now + LEFTOVERS_GRACE)).main_ended(now);
            } else if self.stop > Stop::No && leave.is_none() {
                leave = Some(StopSequence::lingering(now, now, now + self.stop_timeout));
            } else if now >= deadline && leave.is_none() {
                out_of_time = true;
                leave = Some(StopSequence::lingering(now, now, now + TIMEOUT_GRACE));
            }
            let Some(leaving) = leave.as_mut().filter(|_| !alone) else {
                if alone {
                    break;
                }
                self.wait(Some(deadline));
                continue;
            };
            if self.stop == Stop::Now {
                leaving.hurry(now);
            }
            if !carry_out(leaving, main, ended.is_some(), now) {
                break;
            }
            let again = leaving.killed().then(|| now + KILL_AGAIN_AFTER);
            let next = leaving.next().into_iter().chain(again).min();
            self.wait(next);
        }
        self.killed |= self.stop > Stop::No && leave.is_some_and(|leave| leave.killed());
        match report.failure() {
            Some(error) => End::NotStarted(error),
            None if out_of_time => End::OutOfTime(step.timeout),
            None => End::Status(ended.unwrap_or(255)),
        }
    }

    fn start(&self, step: &PreStart) -> Result<(Pid, ExecReport), SpawnError> {
        let failed = |stage, errno| SpawnError { stage, errno };
        let program = program(step, self.cwd).map_err(|problem| {
            failed(SpawnStage::Exec, if problem.exit == Exit::NotFound { Errno::ENOENT } else { Errno::EACCES })
        })?;
        let image =
            Image::new(&program, &step.argv, &step.env).map_err(|errno| failed(SpawnStage::Prepare, errno))?;
        let setup = Setup {
            cwd: self.cwd,
            descriptors: &[],
            group: if has_terminal() { Group::Shared } else { Group::Own },
            death_signal: Some(Signal::SIGTERM),
            open_files: None,
            signals: self.inherited,
        };
        begin(&image, &setup)
    }

    /// Sleeps for this long, or until a stop is requested.
    fn rest(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while self.stop == Stop::No && Instant::now() < until {
            self.wait(Some(until));
        }
    }

    /// Waits until something happens, answers clients, and records requests to stop.
    fn wait(&mut self, until: Option<Instant>) {
        let ready = self.poll(until);
        self.meanwhile.advance(&ready);
        for signal in self.signals.drain().into_iter().filter(|signal| STOPS.contains(signal)) {
            info!(signal, "signal");
            if self.stop == Stop::No {
                self.meanwhile.stopping(self.stop_timeout);
            }
            self.stop = if signal == libc::SIGQUIT || self.stop > Stop::No { Stop::Now } else { Stop::Asked };
        }
    }

    /// Sleeps until there is something to do. Returns the descriptors that are ready.
    fn poll(&self, until: Option<Instant>) -> BTreeSet<RawFd> {
        let (clients, patience) = self.meanwhile.interest();
        let until = until.into_iter().chain(patience).min();
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(clients.into_iter().map(|(fd, events)| PollFd::new(fd, events)));
        match poll(&mut fds, poll_timeout(wait)) {
            Ok(1..) => fds.iter().filter(|fd| fd.any() == Some(true)).map(|fd| fd.as_fd().as_raw_fd()).collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// Reaps what has ended. Returns whether nothing is left.
fn reap_all(main: Pid, ended: &mut Option<u8>) -> bool {
    loop {
        match reap() {
            Reaped::Child(pid, status) if pid == main => *ended = Some(status_of(status)),
            Reaped::Child(..) => {}
            Reaped::NoneEnded => return false,
            Reaped::NoChildren => return true,
        }
    }
}

/// Takes the steps that are due. Returns whether it is worth waiting on.
fn carry_out(leave: &mut StopSequence, main: Pid, ended: bool, now: Instant) -> bool {
    let all = || descendants(nix::unistd::getpid());
    while let Some(step) = leave.due(now) {
        match step {
            StopStep::Ask if !ended => {
                signal_all(
                    &all().into_iter().filter(|process| process.pid == main).collect::<Vec<_>>(),
                    Signal::SIGTERM,
                );
            }
            // KILL is repeated below until no process is left.
            StopStep::Ask | StopStep::Kill => {}
            StopStep::AskRest => {
                let rest: Vec<_> = all().into_iter().filter(|process| ended || process.pid != main).collect();
                signal_all(&rest, Signal::SIGTERM);
            }
            StopStep::Abandon => return false,
        }
    }
    if leave.killed() {
        signal_all(&all(), Signal::SIGKILL);
    }
    true
}
