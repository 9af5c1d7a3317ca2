//! Child processes that never outlive us, and the end of their output.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::host::Environment;
use crate::sys::SignalState;
use crate::sys::memory_file::{Content, memory_file};
use crate::sys::spawn::{Group, Image, Setup, spawn};

/// How much of a process's output is kept, from its end.
const KEPT: usize = 256 << 10;
/// How often a waiting loop checks.
pub(super) const GLANCE: Duration = Duration::from_millis(5);

/// What is executed.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub program: &'a Path,
    pub argv: &'a [OsString],
    pub env: &'a Environment,
    /// Text that it finds at descriptor 3.
    pub script: Option<&'a str>,
    /// What it gets when we die.
    pub death_signal: Signal,
    pub signals: SignalState,
}

/// A child. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pub pid: Pid,
    status: Option<ExitStatus>,
    output: Tail,
    log: Tail,
}

impl Child {
    /// Starts it in the background of the terminal because we decide what Ctrl-C does to it. Must be called by the main
    /// thread because for the kernel, the end of the thread that forked is the parent's end.
    pub fn start(order: &Order<'_>) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| format!("cannot start {}: {why}", order.program.display());
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let null = null.map_err(|errno| failed(&errno))?;
        let (output, output_end) = Tail::new().map_err(|error| failed(&error))?;
        let (log, log_end) = Tail::new().map_err(|error| failed(&error))?;
        let script = order.script.map(in_memory).transpose().map_err(|error| failed(&error))?;
        let mut descriptors = vec![(&null, 0), (&output_end, 1), (&log_end, 2)];
        descriptors.extend(script.as_ref().map(|script| (script, 3)));
        let image = Image::new(order.program, order.argv, order.env).map_err(|errno| failed(&errno))?;
        let setup = Setup {
            cwd: None,
            descriptors: &descriptors,
            group: Group::Own,
            death_signal: Some(order.death_signal),
            open_files: None,
            signals: order.signals,
        };
        let pid = spawn(&image, &setup).map_err(|error| failed(&error))?;
        Ok(Self { pid, status: None, output, log })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            let status = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => code << 8,
                Ok(WaitStatus::Signaled(_, signal, _)) => signal as i32,
                Ok(_) => return None,
                Err(_) => 0,
            };
            self.status = Some(ExitStatus::from_raw(status));
        }
        self.status
    }

    /// Waits for its end, but not longer than this.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => std::thread::sleep(GLANCE),
                status => return status,
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        // Not reaped, so the pid is still its own.
        if self.status.is_none() {
            let _ = kill(self.pid, signal);
        }
    }

    /// What it wrote to standard output. Complete once it has ended.
    pub fn output(&mut self) -> String {
        self.output.finish()
    }

    /// What it wrote to standard error. Complete once it has ended.
    pub fn log(&mut self) -> String {
        self.log.finish()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGKILL);
            self.wait(Duration::from_secs(10));
        }
    }
}

/// The end of what comes through a pipe, read by a thread, so that the writer never waits.
#[derive(Debug)]
struct Tail {
    text: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    fn new() -> std::io::Result<(Self, OwnedFd)> {
        let (mut from, to) = std::io::pipe()?;
        let text = Arc::<Mutex<VecDeque<u8>>>::default();
        let into = Arc::clone(&text);
        let reader = std::thread::Builder::new().name("tail".into()).spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend(&buffer[..length]);
                let excess = text.len().saturating_sub(KEPT);
                text.drain(..excess);
            }
        })?;
        Ok((Self { text, reader: Some(reader) }, to.into()))
    }

    /// The whole text, unless another process still holds the other end of the pipe.
    fn finish(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        if let Some(reader) = self.reader.take() {
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(GLANCE);
            }
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text.iter().copied().collect::<Vec<_>>()).into_owned()
    }
}

/// A file without a name, so that it does not need to be removed.
fn in_memory(text: &str) -> std::io::Result<OwnedFd> {
    let file = memory_file(c"mcp-launch-script", Content::Plain)?;
    std::fs::File::from(file.as_fd().try_clone_to_owned()?).write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, text: Option<&str>) -> Child {
        let argv = ["sh", "-c", script].map(OsString::from);
        let order = Order {
            program: Path::new("/bin/sh"),
            argv: &argv,
            env: &std::env::vars_os().collect(),
            script: text,
            death_signal: Signal::SIGKILL,
            signals: SignalState::default(),
        };
        Child::start(&order).unwrap()
    }

    #[test]
    fn what_it_writes_and_how_it_ends_is_known() {
        let mut child = start("cat /proc/self/fd/3; echo log >&2; exit 3", Some("the script"));
        assert_eq!(child.wait(Duration::from_secs(20)).unwrap().code(), Some(3));
        assert_eq!((child.output().as_str(), child.log().as_str()), ("the script", "log\n"));
    }

    #[test]
    fn a_dropped_child_is_killed() {
        let mut child = start("exec sleep 100", None);
        assert_eq!(child.ended(), None);
        let pid = child.pid;
        drop(child);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn of_much_output_the_end_is_kept() {
        let mut child = start("yes | head -c 1000000; echo end", None);
        child.wait(Duration::from_secs(20)).unwrap();
        let output = child.output();
        assert!(output.len() == KEPT && output.ends_with("end\n"));
    }
}
