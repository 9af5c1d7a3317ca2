//! What workers are doing, as they answered.

use serde::{Deserialize, Serialize};

/// What a worker has answered about its stacks, as it wrote it. [`crate::control::stacks`] understands it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackAnswer {
    /// Whose worker it is.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// Whether it has answered.
    pub state: StackState,
    /// How long ago its event loop last ran, if it has reported that.
    pub heartbeat_seconds_ago: Option<f64>,
    /// Its threads, as faulthandler writes them.
    pub threads: String,
    /// Whether that is only the beginning.
    pub is_cut: bool,
    /// Its tasks and requests, as its interpreter wrote them: JSON; empty if it has not.
    pub tasks: String,
}

/// Whether a worker that was asked for its stacks has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackState {
    /// It has.
    Running,
    /// Only its signal handler has: its event loop, or its interpreter, stands still.
    Blocked,
    /// It is stopped by a signal.
    Stopped,
    /// It has ended.
    Ended,
    /// It has not, within the time that it had.
    Silent,
    /// It cannot: the guard is not in it, or has not begun.
    Unreachable,
}

impl StackState {
    /// The state in one word, as in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
        }
    }
}
