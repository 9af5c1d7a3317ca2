//! The sockets of a TCP port, from the kernel itself (`sock_diag(7)`).
//!
//! `/proc/net/tcp` lists every connection, including those in `TIME_WAIT`; on a busy server that takes many
//! milliseconds to read. Here the kernel only looks at the listening sockets of one port, or at its open connections.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// `1 << TCP_LISTEN`
const LISTENING: u32 = 1 << 10;
/// `1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT`
const CONNECTED: u32 = 1 << 1 | 1 << 8;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// Offsets after the header, in `struct inet_diag_msg`: address family, local port, local address, inode.
const FAMILY: usize = 0;
const PORT: usize = 4;
const ADDRESS: usize = 8;
const INODE: usize = 68;
/// A message that is long enough for these.
#[cfg(any(test, fuzzing))]
pub(super) const SMALLEST: usize = HEADER + INODE + 4;

/// The inodes of the sockets that listen on the port, IPv4 and IPv6.
///
/// # Errors
/// If the kernel or a sandbox does not support these queries.
pub fn listening(port: u16) -> nix::Result<Vec<(SocketAddr, u64)>> {
    sockets(port, LISTENING)
}

/// The inodes of the open connections to the port, IPv4 and IPv6. Those that nobody has accepted yet have none.
///
/// # Errors
/// If the kernel or a sandbox does not support these queries.
pub fn connected(port: u16) -> nix::Result<BTreeSet<u64>> {
    let found = sockets(port, CONNECTED)?;
    Ok(found.into_iter().map(|(_, inode)| inode).filter(|inode| *inode != 0).collect())
}

fn sockets(port: u16, states: u32) -> nix::Result<Vec<(SocketAddr, u64)>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        send(
            socket.as_raw_fd(),
            &request(u8::try_from(family).map_err(|_| Errno::EINVAL)?, port, states),
            MsgFlags::empty(),
        )?;
        let mut answer = vec![0; 32 << 10];
        loop {
            let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            if read(&answer[..length], &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// A header and `struct inet_diag_req_v2`: family, protocol, no extensions, states, and only the port of the socket's
/// identity.
fn request(family: u8, port: u16, states: u32) -> Vec<u8> {
    const LENGTH: usize = HEADER + 56;
    let mut request = Vec::with_capacity(LENGTH);
    request.extend(u32::try_from(LENGTH).unwrap_or(0).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.resize(LENGTH, 0);
    request
}

/// Reads the inodes from one datagram of the response, and returns whether it is the last.
pub(super) fn read(mut messages: &[u8], found: &mut Vec<(SocketAddr, u64)>) -> nix::Result<bool> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    while let Some(length) = word(messages, 0) {
        let length = length as usize;
        let kind = messages.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(DONE, u16::from_ne_bytes);
        if length < HEADER || length > messages.len() || kind == ERROR {
            return Err(Errno::EIO);
        }
        if kind == DONE {
            return Ok(true);
        }
        found.extend(socket_in(&messages[HEADER..length]));
        // Messages are aligned to four bytes.
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Address and inode, from a `struct inet_diag_msg`.
fn socket_in(message: &[u8]) -> Option<(SocketAddr, u64)> {
    let port = u16::from_be_bytes(message.get(PORT..PORT + 2)?.try_into().ok()?);
    let address: [u8; 16] = message.get(ADDRESS..ADDRESS + 16)?.try_into().ok()?;
    let ip = match i32::from(*message.get(FAMILY)?) {
        libc::AF_INET => IpAddr::from(<[u8; 4]>::try_from(&address[..4]).ok()?),
        _ => IpAddr::from(address),
    };
    let inode = u32::from_ne_bytes(message.get(INODE..INODE + 4)?.try_into().ok()?);
    Some((SocketAddr::new(ip, port), inode.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use std::net::{TcpListener, TcpStream};

    /// The request for port 4444, as the kernel reads it on little-endian and on big-endian machines: all is in the
    /// machine's byte order but the port, which is in the network's.
    #[rustfmt::skip]
    const REQUEST: [[u8; 28]; 2] = [
        [72, 0, 0, 0, 20, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 6, 0, 0, 0, 4, 0, 0, 0x11, 0x5c, 0, 0],
        [0, 0, 0, 72, 0, 20, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 6, 0, 0, 0, 0, 4, 0, 0x11, 0x5c, 0, 0],
    ];

    /// What a machine of this byte order has: the first is little-endian.
    const fn of_this_machine<T: Copy>(forms: &[T; 2]) -> T {
        forms[if cfg!(target_endian = "big") { 1 } else { 0 }]
    }

    #[test]
    fn a_request_has_the_bytes_that_the_kernel_expects() {
        let request = request(2, 4444, LISTENING);
        assert_eq!(request[..28], of_this_machine(&REQUEST));
        assert_eq!((request.len(), request[28..].iter().all(|byte| *byte == 0)), (72, true));
    }

    /// A socket that listens on 127.0.0.1:4444, with inode 74565, and the end.
    #[test]
    fn an_answer_is_read_in_the_byte_order_of_the_machine() {
        let header = of_this_machine(&[[88, 0, 0, 0, 20, 0, 2, 0], [0, 0, 0, 88, 0, 20, 0, 2]]);
        let inode = of_this_machine(&[[0x45, 0x23, 1, 0], [0, 1, 0x23, 0x45]]);
        let end = of_this_machine(&[[20, 0, 0, 0, 3, 0, 2, 0], [0, 0, 0, 20, 0, 3, 0, 2]]);
        let mut answer = [&header[..], &[0; 8], &[2, 10, 0, 0, 0x11, 0x5c, 0, 0, 127, 0, 0, 1]].concat();
        answer.resize(HEADER + INODE, 0);
        answer.extend([&inode[..], &end[..], &[0; 12]].concat());
        let mut found = Vec::new();
        assert_eq!(read(&answer, &mut found), Ok(true));
        assert_eq!(found, [("127.0.0.1:4444".parse().unwrap(), 74565)]);
    }

    #[test]
    fn listeners_of_both_families_are_found_and_connections_are_not() {
        alone(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _accepted = listener.accept().unwrap();
            assert_eq!(listening(port).unwrap().len(), 1);
            if let Ok(v6) = TcpListener::bind("[::1]:0") {
                assert_eq!(listening(v6.local_addr().unwrap().port()).unwrap().len(), 1);
            }
            drop(listener);
            assert!(listening(port).unwrap().is_empty());
        });
    }

    #[test]
    fn open_connections_are_counted_once_they_are_accepted() {
        use crate::proc::sockets::owned;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ours = || owned(std::process::id().cast_signed(), &connected(port).unwrap()).len();
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        assert_eq!(ours(), 0);
        let accepted: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        assert_eq!(ours(), 2);
        drop((clients, accepted));
        assert_eq!(ours(), 0);
    }

    #[test]
    fn it_agrees_with_proc() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = std::fs::read("/proc/net/tcp").unwrap();
        assert_eq!(listening(port).unwrap(), crate::proc::sockets::parse(&table, port));
    }
}
