//! Listening sockets on addresses.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr, ReusePort, TcpNoDelay};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket,
};
use nix::unistd::Pid;

use crate::problem::{Exit, Problem};
use crate::proc::process::name;

/// Starts to listen, or changes the length of the queue.
pub(super) fn listen_on(socket: &OwnedFd, backlog: u32) -> nix::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX).min(65_535);
    listen(socket, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))
}

fn tcp_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        // As in Python, and so in both servers: `::` includes IPv4 unless the system says otherwise.
        let only_v6 = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
        setsockopt(&socket, Ipv6V6Only, &only_v6)?;
    }
    Ok(socket)
}

/// Sets whether accepting waits for a client. All copies of a socket share this.
pub(super) fn set_waiting(socket: &OwnedFd, waits: bool) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    let flags = if waits { flags - OFlag::O_NONBLOCK } else { flags | OFlag::O_NONBLOCK };
    fcntl(socket, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Has the connections that are accepted on a socket send without waiting for acknowledgements (`TCP_NODELAY`, which they
/// inherit), as both servers do for sockets that they open themselves. Granian relies on it: a response of a WSGI app
/// is sent in two parts, and the second one would wait for 40 ms on a connection that is kept.
pub(super) fn send_at_once(socket: &OwnedFd) -> nix::Result<()> {
    setsockopt(socket, TcpNoDelay, &true)
}

/// A socket that shares its address with the others of the group.
pub(super) fn reuse_port_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    // Connections inherit it, and those in TIME_WAIT block the address for a later socket unless both have it. No other
    // process can take the address because of it: the holder does not have it.
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, ReusePort, &true)?;
    send_at_once(&socket)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // Granian needs non-blocking sockets, and a queue can be emptied without waiting.
    set_waiting(&socket, false)?;
    Ok(socket)
}

/// Takes an address, and returns it with its port: port 0 is picked.
pub(super) fn claim(address: SocketAddr) -> nix::Result<(OwnedFd, SocketAddr)> {
    let socket = tcp_socket(address)?;
    // Without it, connections of a predecessor in TIME_WAIT would keep the address taken.
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // And with it, a plain bind by another process would succeed until a socket listens.
    setsockopt(&socket, ReuseAddr, &false)?;
    setsockopt(&socket, ReusePort, &true)?;
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = match (bound.as_sockaddr_in(), bound.as_sockaddr_in6()) {
        (Some(v4), _) => v4.port(),
        (_, Some(v6)) => v6.port(),
        _ => address.port(),
    };
    Ok((socket, SocketAddr::new(address.ip(), port)))
}

pub(super) fn explain(address: SocketAddr, errno: Errno) -> Problem {
    let exit = if errno == Errno::EADDRINUSE { Exit::Taken } else { Exit::Settings };
    let problem = Problem::new(exit, format!("cannot listen on {address}: {}", errno.desc()));
    match errno {
        Errno::EADDRINUSE => problem.hint(holder(address.port()).map_or_else(
            || "another process has that port: stop it or choose another port".to_owned(),
            |holder| format!("{holder} has that port: stop it or choose another port"),
        )),
        Errno::EACCES => problem.hint("a port below 1024 needs the capability CAP_NET_BIND_SERVICE"),
        Errno::EADDRNOTAVAIL => problem.hint("the address must be one of this machine's, 0.0.0.0 or ::"),
        _ => problem,
    }
}

/// The process that listens on a port, if we may see it.
fn holder(port: u16) -> Option<String> {
    let inodes = crate::proc::sockets::listening(port).into_iter().map(|(_, inode)| inode).collect();
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.into_iter().find(|pid| crate::proc::sockets::owns(*pid, &inodes))?;
    let name = name(Pid::from_raw(pid)).unwrap_or_default();
    Some(format!("process {pid} ({name})"))
}
