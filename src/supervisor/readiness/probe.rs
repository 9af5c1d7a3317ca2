//! One request to the health path, repeated until the response is good.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, connect, recv, send, socket,
};

use crate::probe::{Exchange, Protocol, Response};

/// The interval between two attempts.
const RETRY: Duration = Duration::from_millis(100);
/// After this long another worker is probed, in case the one that got the request is stuck.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Where the request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// One request to the health path, repeated until the response is good.
#[derive(Debug)]
pub struct Probe {
    target: Target,
    path: String,
    protocol: Protocol,
    /// Whether the scheme is a guess, so that each attempt tries the other one.
    guesses_scheme: bool,
    attempt: Attempt,
}

#[derive(Debug)]
enum Attempt {
    Waiting { until: Instant },
    Exchanging { socket: OwnedFd, since: Instant, exchange: Exchange },
}

impl Probe {
    /// A probe whose first attempt is due at once.
    #[must_use]
    pub fn new(target: Target, path: &str, protocol: Protocol, now: Instant) -> Self {
        let attempt = Attempt::Waiting { until: now };
        Self { target, path: path.to_owned(), protocol, guesses_scheme: false, attempt }
    }

    /// A probe that does not rely on the scheme.
    #[must_use]
    pub fn guessing_scheme(self, guesses_scheme: bool) -> Self {
        Self { guesses_scheme, ..self }
    }

    fn change_guess(&mut self) {
        self.protocol.tls ^= self.guesses_scheme;
    }

    /// What to wait for: a descriptor and its events, and a time.
    #[must_use]
    pub fn interest(&self) -> (Option<(BorrowedFd<'_>, PollFlags)>, Instant) {
        match &self.attempt {
            Attempt::Waiting { until } => (None, *until),
            Attempt::Exchanging { socket, since, exchange } => {
                let is_sending = !exchange.outgoing().is_empty();
                let events = if is_sending { PollFlags::POLLOUT } else { PollFlags::POLLIN };
                (Some((socket.as_fd(), events)), *since + ATTEMPT)
            }
        }
    }

    /// Proceeds as far as possible without waiting, and returns whether the response was good.
    pub fn advance(&mut self, now: Instant) -> bool {
        loop {
            let again = Attempt::Waiting { until: now + RETRY };
            match &mut self.attempt {
                Attempt::Waiting { until } if *until > now => return false,
                Attempt::Waiting { .. } => {
                    self.attempt = connect_to(&self.target).map_or(again, |socket| {
                        let exchange = Exchange::new(self.protocol, "localhost", &self.path);
                        Attempt::Exchanging { socket, since: now, exchange }
                    });
                }
                Attempt::Exchanging { since, .. } if now >= *since + ATTEMPT => {
                    self.change_guess();
                    self.attempt = Attempt::Waiting { until: now };
                }
                Attempt::Exchanging { socket, exchange, .. } => match advance(socket, exchange) {
                    None => return false,
                    Some(response) if response.is_sign_of_life() => return true,
                    Some(_) => {
                        self.change_guess();
                        self.attempt = again;
                    }
                },
            }
        }
    }
}

/// Moves bytes as far as possible without waiting, until there is a response.
fn advance(socket: &OwnedFd, exchange: &mut Exchange) -> Option<Response> {
    let mut buffer = [0; 4096];
    loop {
        while !exchange.outgoing().is_empty() {
            match send(socket.as_raw_fd(), exchange.outgoing(), MsgFlags::MSG_NOSIGNAL) {
                Ok(length) => exchange.sent(length),
                Err(Errno::EAGAIN | Errno::ENOTCONN) => return None,
                Err(_) => return Some(exchange.ended()),
            }
        }
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EAGAIN) => return None,
            Ok(0) | Err(_) => return Some(exchange.ended()),
            Ok(length) => {
                let response = exchange.received(&buffer[..length]);
                if response.is_some() {
                    return response;
                }
            }
        }
    }
}

fn connect_to(target: &Target) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let started = |result| match result {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno),
    };
    match target {
        Target::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let socket = socket(family, SockType::Stream, flags, None)?;
            started(connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)))?;
            Ok(socket)
        }
        Target::Unix(path) => {
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            started(connect(socket.as_raw_fd(), &UnixAddr::new(path)?))?;
            Ok(socket)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn wait_for(probe: &mut Probe) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if probe.advance(Instant::now()) {
                return true;
            }
            let (fd, until) = probe.interest();
            let mut fds: Vec<_> = fd.into_iter().map(|(fd, events)| nix::poll::PollFd::new(fd, events)).collect();
            let wait = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            nix::poll::poll(&mut fds, u16::try_from(wait.as_millis()).unwrap()).unwrap();
        }
        false
    }

    #[allow(clippy::needless_pass_by_value)]
    fn serve(listener: TcpListener, answers: &'static [&'static str]) {
        std::thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let _ = client.read(&mut [0; 1024]).unwrap();
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
    }

    #[test]
    fn it_asks_until_the_answer_is_below_500() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        serve(listener, &["HTTP/1.1 503 Busy\r\n\r\n", "", "nonsense\r\n", "HTTP/1.1 404 Not Found\r\n\r\n"]);
        assert!(wait_for(&mut Probe::new(target, "/health", Protocol::default(), Instant::now())));
    }

    #[test]
    fn a_closed_port_is_not_ready_and_is_tried_again_later() {
        let target = Target::Unix("/nonexistent/socket".into());
        let now = Instant::now();
        let mut probe = Probe::new(target, "/", Protocol::default(), now);
        assert!(!probe.advance(now));
        assert!(probe.interest().0.is_none() && probe.interest().1 > now);
    }
}
