//! Which processes listen on a TCP port.

use std::collections::BTreeSet;
use std::fs;

/// The sockets that listen on a port, IPv4 and IPv6, by inode.
#[must_use]
pub fn inodes(port: u16) -> BTreeSet<u64> {
    if let Ok(inodes) = super::sock_diag::listening(port) {
        return inodes.into_iter().collect();
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| fs::read_to_string(path).ok());
    tables.flat_map(|table| parse(&table, port)).collect()
}

/// The inodes of the listening sockets in the kernel's table (`Documentation/networking/proc_net_tcp.rst`).
pub(super) fn parse(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (local == port && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Which of these sockets a process has open, with the descriptor of each.
#[must_use]
pub fn owned(pid: i32, inodes: &BTreeSet<u64>) -> Vec<(i32, u64)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let socket = |descriptor: fs::DirEntry| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let number = descriptor.file_name().to_str()?.parse().ok()?;
        inodes.contains(&inode).then_some((number, inode))
    };
    descriptors.filter_map(socket).collect()
}

/// Whether a process waits for events on this socket, as servers' event loops do: it is in one of the process's epoll
/// sets (`proc_pid_fdinfo(5)`).
#[must_use]
pub fn is_polled(pid: i32, inode: u64) -> bool {
    let wanted = format!("ino:{inode:x}");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let epoll = descriptors.filter(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]")
    });
    let mut tables = epoll.filter_map(|descriptor| {
        fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().to_str()?)).ok()
    });
    tables.any(|table| table.split_ascii_whitespace().any(|word| word == wanted))
}

/// Whether a process has one of these sockets open.
#[must_use]
pub fn owns(pid: i32, inodes: &BTreeSet<u64>) -> bool {
    !owned(pid, inodes).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inodes = inodes(listener.local_addr().unwrap().port());
        assert_eq!(inodes.len(), 1);
        assert!(owns(std::process::id().cast_signed(), &inodes));
        assert!(!owns(1, &BTreeSet::new()));
    }

    #[test]
    fn a_socket_is_polled_while_it_is_in_an_epoll_set() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = *inodes(listener.local_addr().unwrap().port()).first().unwrap();
        let me = std::process::id().cast_signed();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        assert!(!is_polled(me, inode));
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 1)).unwrap();
        assert!(is_polled(me, inode));
        epoll.delete(&listener).unwrap();
        assert!(!is_polled(me, inode));
    }
}
