//! The termination log: one line with the cause of the exit, where Kubernetes expects it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use tracing::warn;

use crate::report::redact;
use crate::settings::value::AutoPath;

/// Where Kubernetes looks for it by default.
const KUBERNETES: &str = "/dev/termination-log";
/// Kubernetes shows no more than the last 4096 bytes.
const LONGEST: usize = 4096;

/// Where the cause of the exit is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminationLog(Option<PathBuf>);

impl TerminationLog {
    /// The path in the setting; Kubernetes makes its file before the container starts.
    #[must_use]
    pub fn new(setting: &AutoPath) -> Self {
        Self(match setting {
            AutoPath::Off => None,
            AutoPath::At(path) => Some(path.clone()),
            AutoPath::Auto => Some(PathBuf::from(KUBERNETES)).filter(|path| path.exists()),
        })
    }

    /// Writes the line in place of the old content. A failure is only a warning; a pipe that is not read does not block
    /// it.
    pub fn write(&self, cause: &str) {
        let Some(path) = &self.0 else { return };
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        if let Err(error) = opened.and_then(|mut file| file.write_all(line(&redact::message(cause)).as_bytes())) {
            warn!(path = %path.display(), %error, "the termination log cannot be written");
        }
    }
}

/// One line, not longer than allowed.
fn line(cause: &str) -> String {
    let mut text = cause.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    text.truncate(text.floor_char_boundary(LONGEST - 1));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line_and_not_too_long() {
        assert_eq!(line("a\n\n b\r\nc"), "a; b; c\n");
        let long = line(&"é".repeat(4000));
        assert!(long.len() <= LONGEST && long.ends_with("é\n"));
    }

    #[test]
    fn it_replaces_what_was_there_and_a_pipe_without_a_reader_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "a long line of the run before\n").unwrap();
        let log = TerminationLog::new(&AutoPath::At(path.clone()));
        log.write("stopped");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "stopped\n");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        TerminationLog::new(&AutoPath::At(pipe)).write("stopped");
        TerminationLog::new(&AutoPath::At("/nonexistent/log".into())).write("stopped");
        TerminationLog::new(&AutoPath::Off).write("stopped");
    }
}
