//! Problems: what is wrong, where it came from, what would be right, and the exit status.

mod origin;

use std::fmt;

pub use origin::Origin;

/// The exit statuses that this program gives of its own accord. Users, images and unit files rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, or "yes" from `status`, `health` and `reload`.
    Success = 0,
    /// "No" from `health` and `reload`.
    No = 1,
    /// The command line could not be understood.
    Usage = 2,
    /// `status`, `health` and `reload` found no launcher.
    NoLauncher = 3,
    /// The server did not become ready in time (`EX_UNAVAILABLE`).
    NotReady = 69,
    /// Another process holds the lock or the port (`EX_TEMPFAIL`).
    Taken = 75,
    /// The settings are invalid (`EX_CONFIG`).
    Settings = 78,
    /// The server or command was found and cannot be executed, as shells say it.
    NotExecutable = 126,
    /// The server or command was not found, as shells say it.
    NotFound = 127,
}

impl Exit {
    /// The status as the kernel takes it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Where several problems are reported together the most fundamental one gives the status:
    /// there is no point in looking for a server with settings that cannot be read.
    const fn rank(self) -> u8 {
        match self {
            Self::Usage => 0,
            Self::Settings => 1,
            Self::NotFound => 2,
            Self::NotExecutable => 3,
            Self::Taken => 4,
            _ => 5,
        }
    }
}

/// Something that keeps the server from being started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status that the program exits with if this is the worst of its problems.
    pub exit: Exit,
    /// One sentence that names the thing and its value.
    pub message: String,
    /// Where the value came from, if it is a setting's.
    pub origin: Option<Origin>,
    /// What would be right, as something that the reader can do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with no origin and no hint yet.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), origin: None, hint: None }
    }

    /// An invalid setting.
    pub fn setting(message: impl Into<String>, origin: &Origin) -> Self {
        Self::new(Exit::Settings, message).from(origin)
    }

    /// Adds where the value came from.
    #[must_use]
    pub fn from(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    /// Adds what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// The status for a set of problems that are reported together.
#[must_use]
pub fn exit_for(problems: &[Problem]) -> Exit {
    problems.iter().map(|problem| problem.exit).min_by_key(|exit| exit.rank()).unwrap_or(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_fundamental_problem_gives_the_status() {
        let problems = [Problem::new(Exit::Taken, "port"), Problem::new(Exit::Settings, "workers")];
        assert_eq!(exit_for(&problems), Exit::Settings);
    }

    #[test]
    fn a_problem_reads_as_one_sentence_with_source_and_remedy() {
        let problem = Problem::setting("GRANIAN_WORKERS is \"abc\"", &Origin::Env("GRANIAN_WORKERS".into()))
            .hint("use auto or a number");
        assert_eq!(
            problem.to_string(),
            "GRANIAN_WORKERS is \"abc\" (from environment GRANIAN_WORKERS); use auto or a number"
        );
    }
}
