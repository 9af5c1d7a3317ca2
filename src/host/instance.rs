//! What distinguishes one launcher on a machine from another: the address that it serves.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The prefix of a launcher's file names.
const PREFIX: &str = "mcp-launch-";
/// Used instead of an IP address for a Unix socket.
const UNIX: &str = "unix";

/// The address that a launcher serves. Its lock and its control socket are named after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instance {
    /// A TCP port on one address, or on all of a family.
    Tcp(SocketAddr),
    /// A Unix socket, by a hash of its path.
    Unix(u64),
}

impl Instance {
    /// A launcher that serves a TCP port. An IPv4 address may be written as an IPv6 one.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// A launcher that serves a Unix socket: the same for every way to write its path.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
        let path: PathBuf = match (directory, path.file_name()) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => path,
        };
        Self::Unix(fnv1a(path.as_os_str().as_bytes()))
    }

    /// What its files are called, without an extension: `mcp-launch-ADDRESS-PORT`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        match self {
            Self::Tcp(address) => format!("{PREFIX}{}-{}", address.ip(), address.port()),
            Self::Unix(hash) => format!("{PREFIX}{UNIX}-{hash:016x}"),
        }
    }

    /// Parses what [`Self::file_stem`] wrote; none for any other name.
    #[must_use]
    pub fn from_file_stem(stem: &str) -> Option<Self> {
        let (address, port) = stem.strip_prefix(PREFIX)?.rsplit_once('-')?;
        let found = if address == UNIX {
            Self::Unix(u64::from_str_radix(port, 16).ok()?)
        } else {
            Self::Tcp(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
        };
        // One instance has one name.
        (found.file_stem() == stem).then_some(found)
    }

    /// The instance on all addresses of its family, which excludes one on a single address.
    #[must_use]
    pub fn on_all_addresses(&self) -> Option<Self> {
        let Self::Tcp(address) = self else { return None };
        let all = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        (!address.ip().is_unspecified()).then(|| Self::Tcp(SocketAddr::new(all, address.port())))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(_) => f.write_str("a Unix socket"),
        }
    }
}

/// FNV-1a: it is the same in every version of this program, unlike the standard library's hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Instance {
        Instance::tcp(address.parse().unwrap())
    }

    #[test]
    fn a_name_carries_the_address_and_is_read_back() {
        for (address, stem) in [
            ("0.0.0.0:4444", "mcp-launch-0.0.0.0-4444"),
            ("[::1]:80", "mcp-launch-::1-80"),
            ("[::]:80", "mcp-launch-::-80"),
            ("[::ffff:127.0.0.1]:80", "mcp-launch-127.0.0.1-80"),
        ] {
            assert_eq!(tcp(address).file_stem(), stem);
            assert_eq!(Instance::from_file_stem(stem), Some(tcp(address)));
        }
        let unix = Instance::unix(Path::new("/nonexistent/app.sock"));
        assert_eq!(Instance::from_file_stem(&unix.file_stem()), Some(unix));
        for other in ["mcp-launch-4444", "mcp-launch--1", "mcp-launch-127.0.0.1-080", "mcp-launch-a-1", "x", ""] {
            assert_eq!(Instance::from_file_stem(other), None, "{other}");
        }
    }

    #[test]
    fn a_unix_socket_is_the_same_by_every_path_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let (one, link) = (directory.path().join("one"), directory.path().join("link"));
        std::fs::create_dir(&one).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let named = |path: PathBuf| Instance::unix(&path);
        assert_eq!(named(one.join("a.sock")), named(link.join("a.sock")));
        assert_eq!(named(one.join("a.sock")), named(one.join("../one/./a.sock")));
        assert_ne!(named(one.join("a.sock")), named(one.join("b.sock")));
    }

    #[test]
    fn the_wildcard_of_the_family_excludes_an_address() {
        assert_eq!(tcp("127.0.0.1:80").on_all_addresses(), Some(tcp("0.0.0.0:80")));
        assert_eq!(tcp("[::1]:80").on_all_addresses(), Some(tcp("[::]:80")));
        assert_eq!(tcp("0.0.0.0:80").on_all_addresses(), None);
        assert_eq!(Instance::unix(Path::new("/a")).on_all_addresses(), None);
    }
}
