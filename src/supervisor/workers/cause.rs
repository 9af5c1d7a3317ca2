//! Why a worker ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::host::{self, OomKills};

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The kernel killed it for lack of memory.
    Oom,
    /// We ended it because it was hung.
    Hung,
    /// We had it replaced because it had become too large.
    Rss,
    /// We had it replaced because it had become too old.
    Age,
    /// We had it replaced because it had reached its number of requests.
    Requests,
    /// We had it replaced because too many of its requests did not end.
    Stuck,
    /// We had it replaced because it used a processor although it had nothing to do.
    Spin,
    /// A signal ended it.
    Signal(i32),
    /// It exited.
    Exit(u8),
    /// The cause is not known.
    Unknown,
}

impl Cause {
    /// The cause that a status shows. `oom` is only called if the kernel may have killed it.
    pub fn of(status: Option<ExitStatus>, oom: impl FnOnce() -> bool) -> Self {
        let Some(status) = status else { return if oom() { Self::Oom } else { Self::Unknown } };
        match (status.signal(), status.code()) {
            (Some(libc::SIGKILL), _) if oom() => Self::Oom,
            (Some(signal), _) => Self::Signal(signal),
            (None, code) => code.and_then(|code| u8::try_from(code).ok()).map_or(Self::Unknown, Self::Exit),
        }
    }

    /// The kind in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::Hung => "hung",
            Self::Rss => "rss",
            Self::Age => "age",
            Self::Requests => "requests",
            Self::Stuck => "stuck",
            Self::Spin => "spin",
            Self::Signal(_) => "signal",
            Self::Exit(_) => "exit",
            Self::Unknown => "unknown",
        }
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal_name(self) -> Option<String> {
        let number = match self {
            Self::Oom => libc::SIGKILL,
            Self::Signal(number) => number,
            Self::Hung
            | Self::Rss
            | Self::Age
            | Self::Requests
            | Self::Stuck
            | Self::Spin
            | Self::Exit(_)
            | Self::Unknown => return None,
        };
        Some(Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oom
            | Self::Hung
            | Self::Rss
            | Self::Age
            | Self::Requests
            | Self::Stuck
            | Self::Spin
            | Self::Unknown => f.write_str(self.word()),
            Self::Signal(_) => write!(f, "killed by {}", self.signal_name().unwrap_or_default()),
            Self::Exit(status) => write!(f, "exit status {status}"),
        }
    }
}

/// Attributes the kernel's out-of-memory kills, of which only the number is known.
#[derive(Debug)]
pub struct OomWatch {
    kills: Option<OomKills>,
    ledger: Ledger,
}

impl OomWatch {
    /// Kills count from now on.
    #[must_use]
    pub fn new() -> Self {
        let kills = host::oom_kills(Path::new("/"));
        let seen = kills.as_ref().and_then(OomKills::count).unwrap_or(0);
        Self { kills, ledger: Ledger { seen, unclaimed: 0, since: None } }
    }

    /// Whether a process that a SIGKILL has just ended was one of them.
    pub fn claim(&mut self, now: Instant) -> bool {
        let count = self.kills.as_ref().and_then(OomKills::count);
        count.is_some_and(|count| self.ledger.claim(count, now))
    }
}

impl Default for OomWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Kills that were counted, minus those that were attributed to a process.
#[derive(Debug)]
struct Ledger {
    seen: u64,
    unclaimed: u64,
    since: Option<Instant>,
}

/// The victims of one shortage are noticed together; a kill without a victim for this long was of another process.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);

impl Ledger {
    fn claim(&mut self, count: u64, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) > CLAIM_WITHIN) {
            self.unclaimed = 0;
        }
        if count > self.seen {
            self.unclaimed += count - self.seen;
            self.seen = count;
            self.since = Some(now);
        }
        let claimed = self.unclaimed > 0;
        self.unclaimed -= u64::from(claimed);
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_the_cause() {
        let status = |raw| Some(ExitStatus::from_raw(raw));
        for (cause, text) in [
            (Cause::of(status(3 << 8), || true), "exit status 3"),
            (Cause::of(status(9), || false), "killed by SIGKILL"),
            (Cause::of(status(9), || true), "oom"),
            (Cause::of(status(15), || true), "killed by SIGTERM"),
            (Cause::of(status(0x8B), || true), "killed by SIGSEGV"),
            (Cause::of(status(40), || true), "killed by signal 40"),
            (Cause::of(None, || true), "oom"),
            (Cause::of(None, || false), "unknown"),
        ] {
            assert_eq!(cause.to_string(), text);
        }
    }

    #[test]
    fn each_kill_is_claimed_once_and_in_time() {
        let now = Instant::now();
        let mut ledger = Ledger { seen: 7, unclaimed: 0, since: None };
        assert!(!ledger.claim(7, now), "none since the start");
        assert!(ledger.claim(9, now));
        assert!(ledger.claim(9, now + Duration::from_secs(1)));
        assert!(!ledger.claim(9, now + Duration::from_secs(1)));
        assert!(ledger.claim(11, now + Duration::from_secs(2)));
        assert!(!ledger.claim(11, now + Duration::from_mins(2)), "that one was another process");
    }
}
