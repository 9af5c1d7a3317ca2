//! Asks a program for its version if its metadata does not show it. This is the only code in `host` that starts a
//! process; [`super::super::probe`] does not use it.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::Version;

/// The recommended time limit: Python starts in a fraction of a second, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// No version is longer.
const OUTPUT: usize = 4096;

/// Runs `PROGRAM --version` and reads the version from its output. The program and whatever it started are killed and
/// reaped once it has closed its output or `deadline` has passed.
///
/// Call this before supervision begins, because nothing else may reap children meanwhile.
#[must_use]
pub fn version_of(program: &Path, deadline: Duration) -> Option<Version> {
    let until = Instant::now() + deadline;
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    // Values that we translate, such as `auto`, would crash the servers during import.
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes == b"WEB_CONCURRENCY" || bytes.starts_with(b"GUNICORN_") || bytes.starts_with(b"GRANIAN_") {
            command.env_remove(name);
        }
    }
    let mut child = command.spawn().ok()?;
    let output = read_until(&mut child, until);
    // Not reaped yet, so the group is still ours; signalling an ended one is harmless.
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
    version_in(&String::from_utf8_lossy(&output))
}

/// Reads the child's output until it is closed, gets too long, or time is up.
fn read_until(child: &mut Child, until: Instant) -> Vec<u8> {
    let mut output = Vec::new();
    let Some(pipe) = &mut child.stdout else { return output };
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
        match pipe.read(&mut chunk) {
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
