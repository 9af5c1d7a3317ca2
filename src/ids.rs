//! Identities that several parts share.

use std::fmt;

use nix::unistd::Pid;

/// A generation: counts from 1 and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u32);

/// A plan that generations are started from: counts from 0 and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub u32);

/// A process as the kernel identifies it; a pid alone may be reused for another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Its number.
    pub pid: Pid,
    /// When it was started, in clock ticks since boot: field 22 of `proc_pid_stat(5)`.
    pub start: u64,
}

impl GenerationId {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PlanId {
    /// The plan after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ProcessId {
    /// Sorts processes by age, the oldest first. Those of the same tick have ascending numbers.
    #[must_use]
    pub const fn age_rank(&self) -> (u64, i32) {
        (self.start, self.pid.as_raw())
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}
