//! A moment for tests of pure code, which reads no clock itself.

use std::time::Instant;

/// Some moment.
pub fn start() -> Instant {
    Instant::now()
}
