//! Which processes listen on a TCP port.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use super::file;

/// The sockets that listen on a port, IPv4 and IPv6: the address and the inode of each.
#[must_use]
pub fn listening(port: u16) -> Vec<(SocketAddr, u64)> {
    super::sock_diag::listening(port).unwrap_or_else(|_| {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| file::read(path).ok());
        tables.flat_map(|table| parse(&table, port)).collect()
    })
}

/// The sockets that listen on exactly this address, by inode. Those of them that are bound with `SO_REUSEPORT` form one
/// group; a listener with the same port at another address does not belong to it.
#[must_use]
pub fn at(address: SocketAddr) -> BTreeSet<u64> {
    let is_there = |other: &SocketAddr| (other.ip(), other.port()) == (address.ip(), address.port());
    listening(address.port()).into_iter().filter(|(other, _)| is_there(other)).map(|(_, inode)| inode).collect()
}

/// The listening sockets in the kernel's table (`Documentation/networking/proc_net_tcp.rst`).
pub(super) fn parse(table: &[u8], port: u16) -> Vec<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = address(fields.get(1)?)?;
        let is_wanted = local.port() == port && *fields.get(3)? == LISTEN;
        is_wanted.then(|| Some((local, fields.get(9)?.parse().ok()?))).flatten()
    };
    String::from_utf8_lossy(table).lines().skip(1).filter_map(row).collect()
}

/// `0100007F:115C`: the bytes of the address as words of this machine, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if ip.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?)
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
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
        file::read_text(format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().to_str()?)).ok()
    });
    tables.any(|table| table.split_ascii_whitespace().any(|word| word == wanted))
}

/// The connections to a port that were accepted, by inode; none if the kernel does not tell.
#[must_use]
pub fn connected(port: u16) -> Option<BTreeSet<u64>> {
    super::sock_diag::connected(port).ok()
}

/// Whether a process has one of these sockets open.
#[must_use]
pub fn owns(pid: i32, inodes: &BTreeSet<u64>) -> bool {
    !owned(pid, inodes).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel prints each word of an address as a number of the machine.
    #[test]
    fn addresses_are_read_in_the_byte_order_of_the_machine() {
        let forms = [
            ("0100007F:115C", "7F000001:115C", "127.0.0.1:4444"),
            ("B80D0120000000000000000001000000:115C", "20010DB8000000000000000000000001:115C", "[2001:db8::1]:4444"),
        ];
        for (little, big, expected) in forms {
            let text = if cfg!(target_endian = "big") { big } else { little };
            assert_eq!(address(text), expected.parse().ok(), "{text}");
        }
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inodes = at(listener.local_addr().unwrap());
        assert_eq!(inodes.len(), 1);
        assert!(owns(std::process::id().cast_signed(), &inodes));
        assert!(!owns(1, &BTreeSet::new()));
    }

    #[test]
    fn a_listener_at_another_address_with_the_same_port_is_not_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let others = ["127.0.0.2", "::1"].map(|ip| std::net::TcpListener::bind((ip, address.port())));
        assert!(others[0].is_ok());
        assert_eq!(at(address).len(), 1);
        let there = others.iter().flatten().count() + 1;
        assert_eq!(listening(address.port()).len(), there);
        for other in others.iter().flatten() {
            assert!(at(other.local_addr().unwrap()).is_disjoint(&at(address)));
        }
    }

    #[test]
    fn a_socket_is_polled_while_it_is_in_an_epoll_set() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = *at(listener.local_addr().unwrap()).first().unwrap();
        let me = std::process::id().cast_signed();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        assert!(!is_polled(me, inode));
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 1)).unwrap();
        assert!(is_polled(me, inode));
        epoll.delete(&listener).unwrap();
        assert!(!is_polled(me, inode));
    }
}
