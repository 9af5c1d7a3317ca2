//! A moment for tests of what is pure: it reads no clock of its own.

use std::time::Instant;

/// Some moment.
pub fn start() -> Instant {
    Instant::now()
}
