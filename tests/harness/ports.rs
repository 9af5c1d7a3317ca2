//! Ports for tests that run in parallel.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

/// A port that is free, and that only one test gets. It is below those that the kernel gives to clients
/// (`ip_local_port_range`): otherwise a client's own port under load could be the one that the launcher is to bind.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two test programs at the same time begin in different places.
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST;
        let port = u16::try_from(next).unwrap();
        if is_free(port) {
            return port;
        }
    }
}

/// Whether a socket can be bound there. It does not listen, and allows others: a child that another test is starting may
/// have a copy of it when the launcher needs the port.
fn is_free(port: u16) -> bool {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).is_ok()
}
