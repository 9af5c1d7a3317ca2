//! What is fuzzed here: what the kernel says about processes and sockets. A process chooses its own name, and the names
//! of its sockets.

use std::net::IpAddr;

use super::memory::{from_rollup, from_statm};
use super::sock_diag;
use super::sockets;
use super::stat::Stat;
use super::thread_stats::called;
use super::unix_sockets;

/// The text of a file in `/proc`.
pub(crate) fn process_files(text: &[u8]) {
    let lines = text.split(|byte| *byte == b'\n').count();
    if let Some(stat) = Stat::parse(text) {
        let _ = (stat.is_dying(), stat.has_ended());
        // Whatever the process calls itself, the fields are the same.
        let end = text.iter().rposition(|byte| *byte == b')').expect("it was parsed");
        for name in [&b"1 ("[..], b"1 (a) b", b"1 (\xff"] {
            assert_eq!(Stat::parse(&[name, &text[end..]].concat()), Some(stat));
        }
    }
    for port in [80, 0x115c] {
        let found = sockets::parse(text, port);
        assert!(found.len() < lines.max(1) && found.iter().all(|(address, _)| address.port() == port));
    }
    assert!(unix_sockets::parse(text).len() <= lines);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let _ = (from_rollup(text), from_statm(text, 65536), called(text));
}

/// A datagram of the kernel about sockets. Each socket takes its place in it, and is the same when it is written anew.
pub(crate) fn socket_datagram(bytes: &[u8]) {
    let mut found = Vec::new();
    let _ = sock_diag::read(bytes, &mut found);
    assert!(found.len() * sock_diag::SMALLEST <= bytes.len(), "{} sockets", found.len());
    let mut written = Vec::new();
    for (address, inode) in &found {
        let (family, ip) = match address.ip() {
            IpAddr::V4(ip) => (libc::AF_INET, [&ip.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
        };
        let mut message = vec![0; sock_diag::SMALLEST];
        let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &u32::try_from(sock_diag::SMALLEST).unwrap_or(0).to_ne_bytes());
        put(4, &20_u16.to_ne_bytes());
        put(16, &[u8::try_from(family).unwrap_or(0)]);
        put(20, &address.port().to_be_bytes());
        put(24, &ip);
        put(84, &u32::try_from(*inode).unwrap_or(0).to_ne_bytes());
        written.extend(message);
    }
    let mut again = Vec::new();
    assert_eq!(sock_diag::read(&written, &mut again), Ok(false));
    assert_eq!(again, found);
}
