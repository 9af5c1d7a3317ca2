//! The listening sockets that a service manager passes to this process (`sd_listen_fds(3)`).

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::sockopt::{AcceptConn, SockType};
use nix::sys::socket::{self, SockaddrStorage, getsockname, getsockopt};

use super::Environment;
use crate::sys::passed;

const COUNT: &str = "LISTEN_FDS";
const PROCESS: &str = "LISTEN_PID";
/// No manager passes more.
const MOST: u32 = 1024;

/// What is passed to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Activation {
    /// No socket.
    #[default]
    None,
    /// These sockets, from descriptor 3 on.
    Sockets(Vec<PassedSocket>),
    /// This many sockets, but for another process, or for no particular one.
    NotOurs {
        /// How many.
        count: u32,
        /// The process, if one is named.
        process: Option<u32>,
    },
    /// A variable has a value that means nothing.
    Invalid {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it would have to be.
        expected: String,
    },
}

/// A socket that is passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassedSocket {
    /// It listens on an address.
    Tcp(SocketAddr),
    /// It listens on a path.
    Unix(PathBuf),
    /// It cannot be served, for this reason: "is not listening".
    Unusable(&'static str),
}

impl Activation {
    /// Looks at what the environment announces. To be called once, before anything else is opened.
    #[must_use]
    pub fn look(env: &Environment) -> Self {
        Self::announced(env, std::process::id(), look)
    }

    fn announced(env: &Environment, own: u32, look: impl Fn(RawFd) -> PassedSocket) -> Self {
        let number = |variable: &'static str, most: u32| {
            let value = env.get(OsStr::new(variable)).filter(|value| !value.is_empty());
            let parsed = value.map(|value| {
                let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number <= most);
                number.ok_or_else(|| Self::Invalid {
                    variable,
                    value: value.to_string_lossy().into_owned(),
                    expected: format!("a whole number up to {most}"),
                })
            });
            parsed.transpose()
        };
        let (count, process) = match (number(COUNT, MOST), number(PROCESS, i32::MAX.cast_unsigned())) {
            (Ok(None | Some(0)), _) => return Self::None,
            (Ok(Some(count)), Ok(process)) => (count, process),
            (Err(invalid), _) | (_, Err(invalid)) => return invalid,
        };
        if process != Some(own) {
            return Self::NotOurs { count, process };
        }
        Self::Sockets((passed::FIRST..).take(count as usize).map(look).collect())
    }
}

fn look(number: RawFd) -> PassedSocket {
    use PassedSocket::{Tcp, Unix, Unusable};
    let Ok(socket) = passed::copy(number) else { return Unusable("is not open") };
    match getsockopt(&socket, SockType) {
        Err(_) => return Unusable("is not a socket"),
        Ok(socket::SockType::Stream) => {}
        Ok(_) => return Unusable("is not a stream socket"),
    }
    if !getsockopt(&socket, AcceptConn).unwrap_or(false) {
        return Unusable("is not listening");
    }
    let Ok(name) = getsockname::<SockaddrStorage>(socket.as_raw_fd()) else { return Unusable("has no address") };
    if let Some(address) = name.as_sockaddr_in() {
        return Tcp(SocketAddr::V4((*address).into()));
    }
    if let Some(address) = name.as_sockaddr_in6() {
        return Tcp(SocketAddr::V6((*address).into()));
    }
    match name.as_unix_addr() {
        Some(address) => address.path().map_or(Unusable("is a Unix socket without a path"), |path| Unix(path.into())),
        None => Unusable("is neither a TCP nor a Unix socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    fn announced(env: &[(&str, &str)]) -> Activation {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Activation::announced(&env, 42, |number| PassedSocket::Unix(number.to_string().into()))
    }

    #[test]
    fn sockets_for_this_process_are_those_from_3_on() {
        let found = announced(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "42")]);
        assert_eq!(found, Activation::Sockets(["3", "4"].map(|path| PassedSocket::Unix(path.into())).into()));
        for none in [&[][..], &[("LISTEN_PID", "42")], &[("LISTEN_FDS", "0")], &[("LISTEN_FDS", "")]] {
            assert_eq!(announced(none), Activation::None, "{none:?}");
        }
    }

    #[test]
    fn sockets_for_another_process_and_values_without_meaning_are_told_apart() {
        let process = |process| Activation::NotOurs { count: 1, process };
        assert_eq!(announced(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "41")]), process(Some(41)));
        assert_eq!(announced(&[("LISTEN_FDS", "1")]), process(None));
        for (count, own, wrong) in [
            ("one", "42", "LISTEN_FDS"),
            ("-1", "42", "LISTEN_FDS"),
            ("4294967295", "42", "LISTEN_FDS"),
            ("1", "self", "LISTEN_PID"),
            ("1", "99999999999", "LISTEN_PID"),
        ] {
            let found = announced(&[("LISTEN_FDS", count), ("LISTEN_PID", own)]);
            assert!(matches!(found, Activation::Invalid { variable, .. } if variable == wrong), "{found:?}");
        }
    }

    #[test]
    fn a_socket_is_named_by_its_address_and_what_cannot_be_served_by_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let (four, six, unix) =
            (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("[::1]:0"), UnixListener::bind(&path));
        let (four, six, unix) = (four.unwrap(), six.unwrap(), unix.unwrap());
        assert_eq!(look(four.as_raw_fd()), PassedSocket::Tcp(four.local_addr().unwrap()));
        assert_eq!(look(six.as_raw_fd()), PassedSocket::Tcp(six.local_addr().unwrap()));
        assert_eq!(look(unix.as_raw_fd()), PassedSocket::Unix(path));
        let client = TcpStream::connect(four.local_addr().unwrap()).unwrap();
        let pair = UnixStream::pair().unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        for (number, why) in [
            (client.as_raw_fd(), "is not listening"),
            (pair.0.as_raw_fd(), "is not listening"),
            (datagrams.as_raw_fd(), "is not a stream socket"),
            (reader.as_raw_fd(), "is not a socket"),
            (1 << 20, "is not open"),
        ] {
            assert_eq!(look(number), PassedSocket::Unusable(why));
        }
        let nameless = SocketAddr::from_abstract_name(format!("test-{}", std::process::id())).unwrap();
        let nameless = UnixListener::bind_addr(&nameless).unwrap();
        assert_eq!(look(nameless.as_raw_fd()), PassedSocket::Unusable("is a Unix socket without a path"));
    }
}
