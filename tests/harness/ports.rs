//! Ports for tests that run side by side.

use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody has, and that is given to one test only. It lies below those that the kernel gives to clients
/// (`ip_local_port_range`): while a load runs, a client's own port would be in the way of the launcher that is to bind it.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two test programs at the same time begin in different places.
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST;
        let port = u16::try_from(next).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
