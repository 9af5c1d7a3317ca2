//! The only unsafe code: kernel interfaces that no crate wraps safely for our case.
//!
//! Each function here is safe to call and keeps its own invariants.

#![allow(unsafe_code)]

pub(crate) mod memory_file;
pub(crate) mod passed;
pub(crate) mod pidfd;
pub(crate) mod reuseport;
pub(crate) mod scm;
pub(crate) mod secrets;
pub(crate) mod shared;
pub(crate) mod spawn;
pub(crate) mod terminal;
pub(crate) mod wait;
pub(crate) mod write;

/// What a process inherited at its start and must pass on unchanged: the blocked and the ignored signals. Bit `n - 1`
/// represents signal `n`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalState {
    /// The signal mask.
    pub blocked: u64,
    /// Signals whose disposition was "ignore"; no other non-default disposition survives exec.
    pub ignored: u64,
}

impl SignalState {
    /// Whether a signal was ignored, as `nohup` does with SIGHUP.
    #[must_use]
    pub const fn ignores(&self, signal: i32) -> bool {
        self.ignored & bit(signal) != 0
    }
}

/// The bit of a signal in a mask.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The largest signal number.
const LAST_SIGNAL: i32 = 64;

/// Converts a mask to the C library's type.
fn sigset(mask: u64) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set, and sigaddset only fails for numbers out of range.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in (1..=LAST_SIGNAL).filter(|signal| mask & bit(*signal) != 0) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Replaces this thread's signal mask.
pub fn set_mask(mask: u64) {
    let set = sigset(mask);
    // SAFETY: the set is initialised, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// A descriptor for reading blocked signals: `struct signalfd_siginfo`, one or more at a time. Reading does not
/// block, and it is closed on exec.
///
/// # Errors
/// If the kernel has no descriptors left.
pub fn signal_descriptor(mask: u64) -> nix::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let set = sigset(mask);
    // SAFETY: the set is initialised; -1 asks for a new descriptor, which nobody else owns.
    unsafe {
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        Ok(std::os::fd::OwnedFd::from_raw_fd(nix::errno::Errno::result(fd)?))
    }
}

/// Gives a signal its default disposition.
pub fn reset(signal: i32) {
    set_disposition(signal, libc::SIG_DFL);
}

/// Every signal that can be blocked.
pub const ALL_SIGNALS: u64 = u64::MAX;

/// Restores dispositions and mask to what they were at our start, for the program that is executed next. Exec resets
/// caught signals by itself, but a signal that arrives before would run our handler for nothing.
///
/// Async-signal-safe because it runs between fork and exec.
pub(crate) fn restore(state: SignalState) {
    for signal in (1..=LAST_SIGNAL).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let handler = if state.ignores(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        set_disposition(signal, handler);
    }
    set_mask(state.blocked);
}

/// The kernel's `struct sigaction`. Only its first word matters here: on every architecture but MIPS it is the handler.
/// The C library's own function rejects signals 32 and 33, which it reserves, but which must also be restored for a
/// child.
type KernelAction = [usize; 8];

/// The size of the kernel's signal set in bytes.
const KERNEL_SET: usize = 8;

/// Sets a signal's disposition to one that survives exec. Async-signal-safe.
fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    let mut action: KernelAction = [0; 8];
    action[0] = handler;
    // SAFETY: the array is larger than the kernel's structure on every architecture; no flags, an empty mask.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, std::ptr::null_mut::<u8>(), KERNEL_SET)
    };
}

/// Whether a signal is ignored now.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action: KernelAction = [0; 8];
    // SAFETY: as above; the kernel writes its structure into the array.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::null::<u8>(), &raw mut action, KERNEL_SET) };
    result == 0 && action[0] == libc::SIG_IGN
}

/// Replaces this process, with the signal state that it was started with.
///
/// # Errors
/// Why the kernel refused; the process then continues with default dispositions.
#[must_use]
pub fn exec(image: &spawn::Image, state: SignalState) -> nix::errno::Errno {
    restore(state);
    image.execute()
}

/// Sends any signal, including real-time ones, to a child that has not been reaped yet. One that has ended ignores it.
pub fn send(child: nix::unistd::Pid, signal: i32) {
    let _ = kill(child, signal);
}

/// Sends any signal, including real-time ones, to a process.
///
/// # Errors
/// ESRCH if there is none, EPERM if it is not ours.
pub fn kill(process: nix::unistd::Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: kill takes two numbers.
    nix::errno::Errno::result(unsafe { libc::kill(process.as_raw(), signal) }).map(drop)
}

/// The signals that are pending because they are blocked.
#[must_use]
pub fn pending_signals() -> u64 {
    // SAFETY: sigpending fills the set that it is given; sigismember reads it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set);
        (1..=LAST_SIGNAL).filter(|signal| libc::sigismember(&raw const set, *signal) == 1).fold(0, |m, s| m | bit(s))
    }
}

/// Raises the soft limit of open files to the hard one. Servers need one per connection.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Moves descriptors to the numbers at which the program to be executed expects them.
///
/// # Errors
/// If the kernel has no descriptors left.
pub fn place(descriptors: &[(&std::os::fd::OwnedFd, i32)]) -> nix::Result<()> {
    let above = descriptors.iter().map(|(_, number)| *number).max().unwrap_or(2) + 1;
    let copies = descriptors.iter().map(|(fd, number)| Ok((spawn::duplicate(fd, above)?, *number)));
    for (copy, number) in copies.collect::<nix::Result<Vec<_>>>()? {
        use std::os::fd::AsRawFd;
        // SAFETY: dup2 takes two numbers. The descriptor that was open at the second one is ours and is not used again
        // because the caller executes another program.
        nix::errno::Errno::result(unsafe { libc::dup2(copy.as_raw_fd(), number) })?;
    }
    Ok(())
}
