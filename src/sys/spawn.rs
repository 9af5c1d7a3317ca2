//! Starting a process: fork, preparation, exec, and a reliable report of the outcome.
//!
//! An exec may take long: the program may be scanned, or be on a network file system. So a caller with other work does
//! not wait for it: the process is known once it was forked, and if it ends without having executed the program, it
//! leaves a report of why.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{ALL_SIGNALS, SignalState, restore, set_mask};

/// What to execute, in the form that the kernel expects because nothing may be allocated between fork and exec.
#[derive(Debug)]
pub struct Image {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Where in `env` the process writes its own pid.
    own_number: Vec<Gap>,
}

/// Space for the largest pid in a variable, padded on the left.
#[derive(Debug)]
struct Gap {
    variable: usize,
    start: usize,
    fill: u8,
}

/// Digits of the largest pid.
const DIGITS: usize = 10;

impl Image {
    /// Prepares a program for execution.
    ///
    /// # Errors
    /// EINVAL if a string contains a NUL.
    pub fn new<'a>(
        program: &Path,
        argv: impl IntoIterator<Item = &'a OsString>,
        env: impl IntoIterator<Item = (&'a OsString, &'a OsString)>,
    ) -> nix::Result<Self> {
        let c = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| Errno::EINVAL);
        let pair = |(name, value): (&OsString, &OsString)| {
            let mut text = name.clone();
            text.push("=");
            text.push(value);
            c(&text)
        };
        Ok(Self {
            program: c(program.as_os_str())?,
            argv: argv.into_iter().map(|argument| c(argument)).collect::<Result<_, _>>()?,
            env: env.into_iter().map(pair).collect::<Result<_, _>>()?,
            own_number: Vec::new(),
        })
    }

    /// Tells the process its own pid in `LISTEN_PID`, as socket activation requires.
    pub fn with_listen_pid(&mut self) {
        // Every consumer reads leading zeros as decimal (strtol, Python's int).
        self.add_gap(self.env.len(), "LISTEN_PID=", b'0', "");
    }

    /// If this variable begins with `/proc/self/`, replaces that with the process's directory by pid, so that its
    /// children find the same directory there and not their own.
    pub fn with_own_proc_in(&mut self, variable: &str) {
        let (before, after) = (format!("{variable}=/proc/self/"), format!("{variable}=/proc/"));
        let found = self.env.iter().enumerate().find_map(|(index, text)| {
            let rest = text.to_bytes().strip_prefix(before.as_bytes())?;
            Some((index, std::ffi::OsStr::from_bytes(rest).to_owned()))
        });
        if let Some((index, rest)) = found {
            let mut end = OsString::from("/");
            end.push(rest);
            // A path may have extra slashes, but no leading zeros.
            self.add_gap(index, &after, b'/', &end);
        }
    }

    fn add_gap(&mut self, variable: usize, before: &str, fill: u8, after: impl AsRef<OsStr>) {
        let text = [before.as_bytes(), &[fill; DIGITS], after.as_ref().as_bytes()].concat();
        let text = CString::new(text).unwrap_or_default();
        match self.env.get_mut(variable) {
            Some(place) => *place = text,
            None => self.env.push(text),
        }
        self.own_number.push(Gap { variable, start: before.len(), fill });
    }

    /// Executes it in place of this process. Allocates, so it must not be used between fork and exec.
    pub(super) fn execute(&self) -> Errno {
        let pointers = Pointers::new(self);
        pointers.fill_own_number();
        pointers.execute()
    }
}

/// The arrays for `execve`, prepared before the fork.
struct Pointers<'a> {
    image: &'a Image,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// `sh program arguments…`, for a script without a `#!` line.
    shell: Vec<*const libc::c_char>,
}

impl<'a> Pointers<'a> {
    fn new(image: &'a Image) -> Self {
        let list = |strings: &'a [CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let argv = list(&image.argv);
        let shell =
            [c"sh".as_ptr(), image.program.as_ptr()].into_iter().chain(argv.iter().skip(1).copied()).collect();
        Self { env: list(&image.env), argv, image, shell }
    }

    /// Writes the process's own pid into its place.
    fn fill_own_number(&self) {
        for gap in &self.image.own_number {
            // SAFETY: the string has that many bytes from there on, in our own memory, which nobody else reads: this
            // is either the forked child or a process about to execute another program.
            unsafe {
                let mut pid = libc::getpid();
                // As bytes: whether `c_char` is signed depends on the architecture.
                let start = self.env[gap.variable].cast_mut().cast::<u8>().add(gap.start);
                for place in (0..DIGITS).rev() {
                    let digit = b'0' + u8::try_from(pid % 10).unwrap_or(0);
                    *start.add(place) = if pid == 0 { gap.fill } else { digit };
                    pid /= 10;
                }
            }
        }
    }

    fn execute(&self) -> Errno {
        // SAFETY: all three arrays end with a null pointer and point to strings that outlive the call.
        unsafe {
            libc::execve(self.image.program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr());
            let error = Errno::last();
            if error == Errno::ENOEXEC {
                libc::execve(c"/bin/sh".as_ptr(), self.shell.as_ptr(), self.env.as_ptr());
            }
            error
        }
    }
}

/// The child's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Its own, in the background: Ctrl-C only reaches us, and we decide.
    Own,
    /// Ours: it may use the terminal in whose foreground we are, and Ctrl-C reaches both.
    Shared,
    /// Its own, in the foreground of the terminal on standard input, as a shell would start it.
    Foreground,
}

/// How to start the child.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Its working directory, if it differs from ours.
    pub cwd: Option<&'a Path>,
    /// Descriptors to pass on, each with its number in the child.
    pub descriptors: &'a [(&'a OwnedFd, RawFd)],
    /// Its process group.
    pub group: Group,
    /// The signal it gets when we die.
    pub death_signal: Option<Signal>,
    /// Its soft limit of open files.
    pub open_files: Option<u64>,
    /// Signal mask and dispositions.
    pub signals: SignalState,
}

/// Why a process could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub stage: SpawnStage,
    /// The kernel's error.
    pub errno: Errno,
}

impl std::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.stage {
            SpawnStage::Prepare => "preparing it",
            SpawnStage::Fork => "fork",
            SpawnStage::Directory => "changing to its working directory",
            SpawnStage::Descriptors => "passing on descriptors",
            SpawnStage::Exec => "exec",
        };
        write!(f, "{what}: {}", self.errno.desc())
    }
}

/// The steps of starting a process that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SpawnStage {
    /// Descriptors and strings, before the fork.
    Prepare,
    /// The fork itself.
    Fork,
    /// `chdir`.
    Directory,
    /// `dup2`.
    Descriptors,
    /// `execve`.
    Exec,
}

impl SpawnStage {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Prepare,
            1 => Self::Fork,
            2 => Self::Directory,
            3 => Self::Descriptors,
            _ => Self::Exec,
        }
    }
}

/// Why a process has not executed its program, reported through a pipe that exec closes.
#[derive(Debug)]
pub struct ExecReport(OwnedFd);

impl ExecReport {
    /// What prevented the program from being executed: none before the exec, while it runs, and after it has run.
    #[must_use]
    pub fn failure(&self) -> Option<SpawnError> {
        let mut bytes = [0; 5];
        loop {
            match nix::unistd::read(&self.0, &mut bytes) {
                Err(Errno::EINTR) => {}
                Ok(5) => {
                    let [stage, errno @ ..] = bytes;
                    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
                    return Some(SpawnError { stage: SpawnStage::from_byte(stage), errno });
                }
                // Closed without a report, or nothing has been decided.
                _ => return None,
            }
        }
    }
}

impl AsFd for ExecReport {
    /// Readable when it is decided whether the program runs.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Starts a process and returns once it is certain that the program runs.
///
/// # Errors
/// The step that failed and the kernel's error; nothing is left behind in that case.
pub fn spawn(image: &Image, setup: &Setup<'_>) -> Result<Pid, SpawnError> {
    let (pid, report) = begin(image, setup)?;
    let mut decided = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
    while poll(&mut decided, PollTimeout::NONE) == Err(Errno::EINTR) {}
    report.failure().map_or(Ok(pid), |error| {
        let _ = nix::sys::wait::waitpid(pid, None);
        Err(error)
    })
}

/// Starts a process and does not wait for its exec. After reaping the process, the report shows whether the program
/// ever ran. Signals are blocked in the child until its dispositions are its own, and here until there is a child to
/// forward them to.
///
/// # Errors
/// The step before the fork, or the fork itself, and the kernel's error; nothing is left behind in that case.
pub fn begin(image: &Image, setup: &Setup<'_>) -> Result<(Pid, ExecReport), SpawnError> {
    let failed = |stage| move |errno| SpawnError { stage, errno };
    let pointers = Pointers::new(image);
    let cwd = setup.cwd.map(|cwd| CString::new(cwd.as_os_str().as_bytes())).transpose();
    let cwd = cwd.map_err(|_| Errno::EINVAL).map_err(failed(SpawnStage::Prepare))?;
    let (report, low) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed(SpawnStage::Prepare))?;
    // Copies above every requested number, so that moving one into place cannot overwrite another.
    let above = setup.descriptors.iter().map(|(_, number)| *number).max().unwrap_or(2) + 1;
    let copies = setup.descriptors.iter().map(|(fd, number)| duplicate(fd, above).map(|copy| (copy, *number)));
    let mut copies = copies.collect::<Result<Vec<_>, _>>().map_err(failed(SpawnStage::Prepare))?;
    // The confirmation pipe must not be overwritten either.
    let confirm = duplicate(&low, above).map_err(failed(SpawnStage::Prepare))?;
    drop(low);
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(failed(SpawnStage::Prepare))?;
    copies.sort_by_key(|(_, number)| *number);

    let parent = nix::unistd::getpid();
    let mask = nix::sys::signal::SigSet::thread_get_mask().map_err(failed(SpawnStage::Prepare))?;
    set_mask(ALL_SIGNALS);
    // SAFETY: the child calls only async-signal-safe functions (see `child`) until it executes or exits.
    let pid = match unsafe { libc::fork() } {
        0 => child(&pointers, setup, cwd.as_deref(), &copies, &confirm, parent),
        -1 => {
            let errno = Errno::last();
            let _ = mask.thread_set_mask();
            return Err(SpawnError { stage: SpawnStage::Fork, errno });
        }
        pid => Pid::from_raw(pid),
    };
    // Both parent and child do this, so that it is done whichever runs first.
    if setup.group != Group::Shared {
        let _ = nix::unistd::setpgid(pid, pid);
    }
    let _ = mask.thread_set_mask();
    Ok((pid, ExecReport(report)))
}

pub(super) fn duplicate(fd: &OwnedFd, above: RawFd) -> nix::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(above))?;
    // SAFETY: fcntl returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The child between fork and exec. Only async-signal-safe calls, no allocation, no panic: another thread may have
/// held a lock during the fork.
fn child(
    pointers: &Pointers<'_>,
    setup: &Setup<'_>,
    cwd: Option<&std::ffi::CStr>,
    copies: &[(OwnedFd, RawFd)],
    confirm: &OwnedFd,
    parent: Pid,
) -> ! {
    let fail = |stage: SpawnStage, errno: Errno| -> ! {
        let [a, b, c, d] = (errno as i32).to_ne_bytes();
        let bytes = [stage as u8, a, b, c, d];
        // SAFETY: writes from a local array, then ends the child without running the parent's destructors.
        unsafe {
            libc::write(confirm.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
            libc::_exit(127)
        }
    };
    // SAFETY: plain system calls with numbers and pointers to memory that was prepared before the fork.
    unsafe {
        if setup.group != Group::Shared {
            libc::setpgid(0, 0);
        }
        if setup.group == Group::Foreground {
            libc::tcsetpgrp(0, libc::getpid());
        }
        if let Some(signal) = setup.death_signal {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong);
            if libc::getppid() != parent.as_raw() {
                // The parent died before the line above took effect.
                libc::_exit(127);
            }
        }
        if let Some(soft) = setup.open_files {
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = soft.min(limit.rlim_max);
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        }
        if let Some(cwd) = cwd
            && libc::chdir(cwd.as_ptr()) != 0
        {
            fail(SpawnStage::Directory, Errno::last());
        }
        for (copy, number) in copies {
            if libc::dup2(copy.as_raw_fd(), *number) < 0 {
                fail(SpawnStage::Descriptors, Errno::last());
            }
        }
    }
    pointers.fill_own_number();
    restore(setup.signals);
    fail(SpawnStage::Exec, pointers.execute())
}
