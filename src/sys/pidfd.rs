//! Handles on processes, which cannot come to refer to another process.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::unistd::Pid;

/// A handle on one process.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a handle. A caller that is not the parent must check afterwards that the process is still the intended
    /// one, for example by its start time.
    ///
    /// # Errors
    /// ESRCH if there is no such process, ENOSYS before Linux 5.3.
    pub fn open(pid: Pid) -> nix::Result<Self> {
        // SAFETY: pidfd_open takes two numbers and returns a new descriptor, which nobody else owns.
        unsafe { Self::own(Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?) }
    }

    /// # Safety
    /// The number is that of a new descriptor, which nobody else owns.
    unsafe fn own(fd: libc::c_long) -> nix::Result<Self> {
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: guaranteed by the caller.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes a copy of one of its descriptors. That needs permission to trace it, which a parent usually has, and a
    /// system call that Docker's and containerd's default profiles deny.
    ///
    /// # Errors
    /// EPERM if we may not, EBADF if it has no such descriptor, ENOSYS before Linux 5.6.
    pub fn take_copy(&self, descriptor: i32) -> nix::Result<OwnedFd> {
        // SAFETY: pidfd_getfd takes three numbers and returns a new descriptor, which nobody else owns.
        unsafe {
            let fd = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), descriptor, 0))?;
            Ok(Self::own(fd)?.0)
        }
    }

    /// Sends a signal, also a real-time one.
    ///
    /// # Errors
    /// ESRCH if the process no longer exists, EPERM if it is not ours.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        // SAFETY: the descriptor is open, and a null siginfo means an ordinary kill.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    /// How the process ended, once its parent has reaped it: `PIDFD_INFO_EXIT`, since Linux 6.15. None before that,
    /// and on older kernels.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut info = Info { mask: INFO_EXIT, ..Info::default() };
        // SAFETY: the descriptor is open; the kernel reads and writes no more than the size in the request, which is
        // that of the structure.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO, &raw mut info) };
        (result == 0 && info.mask & INFO_EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code))
    }
}

/// The first published form of the kernel's `struct pidfd_info` (`include/uapi/linux/pidfd.h`), which every later
/// kernel accepts.
#[derive(Debug, Default)]
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Process, thread group and parent, then user and group identities.
    identities: [u32; 11],
    /// As `wait` returns it.
    exit_code: i32,
}

const GET_INFO: libc::Ioctl = libc::_IOWR::<Info>(0xFF, 11);
const INFO_EXIT: u64 = 1 << 3;
const _: () = assert!(size_of::<Info>() == 64);

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn how_a_process_ended_is_known_when_it_was_reaped() {
        let mut child = Command::new("sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        let handle = PidFd::open(Pid::from_raw(child.id().cast_signed())).unwrap();
        let status = child.wait().unwrap();
        // Older kernels do not support it.
        assert!([None, Some(status)].contains(&handle.exit_status()), "{:?}", handle.exit_status());
        let living = PidFd::open(nix::unistd::getpid()).unwrap();
        assert_eq!(living.exit_status(), None);
    }
}
