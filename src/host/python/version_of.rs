//! Asks a program for its version if its metadata does not show it. This is the only code in `host` that starts a
//! process; [`super::super::probe`] does not use it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{pipe2, read};

use super::super::Version;
use crate::sys::SignalState;
use crate::sys::spawn::{Group, Image, Setup, begin};

/// The recommended time limit: a server imports half of itself before it prints its version, which takes seconds on a
/// slow disk.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// No version is longer.
const OUTPUT: usize = 4096;

/// Runs `PROGRAM --version` and reads the version from its output. The program and whatever it started are killed and
/// reaped once it has closed its output or `deadline` has passed.
///
/// While a thread is in here, other threads must reap only what they have started themselves
/// ([`reap`](crate::sys::wait::reap)).
/// The program outlives neither the thread nor the launcher.
#[must_use]
pub fn version_of(program: &Path, deadline: Duration) -> Option<Version> {
    let until = Instant::now() + deadline;
    let null = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/null").ok()?);
    let (output, output_end) = pipe2(OFlag::O_CLOEXEC).ok()?;
    let argv = [program.as_os_str().to_owned(), "--version".into()];
    // Values that we translate, such as `auto`, would crash the servers during import.
    let env: BTreeMap<OsString, OsString> = std::env::vars_os().filter(|(name, _)| !is_translated(name)).collect();
    let image = Image::new(program, &argv, &env).ok()?;
    let setup = Setup {
        cwd: None,
        descriptors: &[(&null, 0), (&output_end, 1), (&null, 2)],
        group: Group::Own,
        death_signal: Some(Signal::SIGKILL),
        open_files: None,
        signals: SignalState::default(),
    };
    let (pid, _) = begin(&image, &setup).ok()?;
    drop(output_end);
    let output = read_until(&output, until);
    // Not reaped yet, so the group is still ours; signalling an ended one is harmless.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
    version_in(&String::from_utf8_lossy(&output))
}

/// Whether the server reads this variable differently from us.
fn is_translated(name: &OsString) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes == b"WEB_CONCURRENCY" || bytes.starts_with(b"GUNICORN_") || bytes.starts_with(b"GRANIAN_")
}

/// Reads what the program writes until it closes its end, writes too much, or time is up.
fn read_until(pipe: &OwnedFd, until: Instant) -> Vec<u8> {
    let mut output = Vec::new();
    while output.len() < OUTPUT {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is not a busy one.
        let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) if !left.is_zero() => continue,
            Ok(ready) if ready > 0 => {}
            _ => break,
        }
        let mut chunk = [0; 512];
        match read(pipe, &mut chunk) {
            Ok(length) if length > 0 => output.extend_from_slice(&chunk[..length]),
            _ => break,
        }
    }
    output
}

/// The first word that is a version with at least two parts: `gunicorn (version 27.0.1)`, `granian 2.8.7`.
fn version_in(text: &str) -> Option<Version> {
    text.split(|letter: char| letter.is_whitespace() || "(),".contains(letter))
        .filter(|word| word.split('.').take(2).filter(|part| part.parse::<u32>().is_ok()).count() == 2)
        .find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A shell writes it: a file that this process has open for writing while another test forks is busy.
    fn script(directory: &Path, text: &str) -> std::path::PathBuf {
        let path = directory.join("program");
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#;
        let written = Command::new("/bin/sh").args(["-c", write, "sh", text]).arg(&path).status().unwrap();
        assert!(written.success());
        path
    }

    #[test]
    fn versions_are_found_in_what_servers_print() {
        assert_eq!(version_in("gunicorn (version 27.0.1)\n"), Some(Version(27, 0, 1)));
        assert_eq!(version_in("granian 2.8.7\n"), Some(Version(2, 8, 7)));
        assert_eq!(version_in("Running uvicorn 0.54.0 with CPython 3.11.7"), Some(Version(0, 54, 0)));
        assert_eq!(version_in("usage: 2 of them"), None);
    }

    #[test]
    fn a_program_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(directory.path(), r#"[ "$1" = --version ] && echo "server 1.2.3""#);
        assert_eq!(version_of(&program, Duration::from_secs(20)), Some(Version(1, 2, 3)));
        assert_eq!(version_of(Path::new("/nowhere/program"), DEADLINE), None);
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let program = script(directory.path(), &format!("sleep 600 & echo $$ $! > {}; wait", pids.display()));
        let begin = Instant::now();
        assert_eq!(version_of(&program, Duration::from_millis(500)), None);
        assert!(begin.elapsed() < Duration::from_mins(1));
        for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ended = || state().rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
            while !ended() && begin.elapsed() < Duration::from_mins(1) {
                std::thread::yield_now();
            }
            assert!(ended(), "{pid}: {}", state());
        }
    }
}
