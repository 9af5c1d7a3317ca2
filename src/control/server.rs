//! The listeners and their clients, as part of a loop that must not block.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::client::{Client, Framing, Interest, TooLong};
use super::http::{self, Asked};
use super::protocol::{Answer, Request, Status, line};
use super::socket::{Listener, check_client};

/// The most clients that are kept at the same time.
pub const MOST_CLIENTS: usize = 32;
/// The most connections that are accepted in one turn of the loop.
const MOST_ACCEPTED: usize = 64;
/// How long to pause accepting when no descriptor is left.
const PAUSE: Duration = Duration::from_secs(1);

/// Identifies a client; never reused.
pub type ClientId = u64;

/// What a client wants from the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRequest {
    /// A request over the control socket.
    Control(Request),
    /// A request to the address of the metrics.
    Http(http::Get),
}

/// The listeners and the clients that are connected.
#[derive(Debug, Default)]
pub struct ControlServer {
    control: Option<Listener>,
    metrics: Option<TcpListener>,
    clients: BTreeMap<ClientId, Connection>,
    next: ClientId,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    client: Client,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl ControlServer {
    /// A server for these listeners, which must be non-blocking. Without listeners it does nothing.
    #[must_use]
    pub fn new(control: Option<Listener>, metrics: Option<TcpListener>) -> Self {
        Self { control, metrics, ..Self::default() }
    }

    /// What to wait for: descriptors with their events, and a deadline.
    #[must_use]
    pub fn interest(&self) -> (Vec<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        let listeners = if self.paused_until.is_none() { self.listeners() } else { Vec::new() };
        let listeners = listeners.into_iter().map(|listener| (listener, PollFlags::POLLIN));
        let clients = self.clients.values().filter_map(|connection| {
            let events = match connection.client.interest()? {
                Interest::Read => PollFlags::POLLIN,
                Interest::HangUp => PollFlags::empty(),
                Interest::Write => PollFlags::POLLOUT,
            };
            Some((connection.stream.as_fd(), events))
        });
        let deadlines = self.clients.values().filter_map(|connection| connection.client.deadline());
        (listeners.chain(clients).collect(), deadlines.chain(self.paused_until).min())
    }

    fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        let control = self.control.as_ref().map(|listener| listener.socket().as_fd());
        control.into_iter().chain(self.metrics.as_ref().map(AsFd::as_fd)).collect()
    }

    /// Proceeds as far as possible without blocking, given the ready descriptors, and returns what clients want. Each
    /// of these must be answered.
    pub fn advance(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Vec<(ClientId, ClientRequest)> {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        let mut requests = Vec::new();
        for (id, connection) in &mut self.clients {
            if connection.client.deadline().is_some_and(|deadline| deadline <= now) {
                connection.client.close();
            } else if ready.contains(&connection.stream.as_fd().as_raw_fd()) {
                requests.extend(connection.advance(now).map(|request| (*id, request)));
            }
        }
        self.clients.retain(|_, connection| connection.client.interest().is_some());
        if self.listeners().iter().any(|listener| ready.contains(&listener.as_raw_fd())) {
            self.accept(now, &mut requests);
        }
        requests
    }

    /// Answers a client if it is still connected.
    pub fn answer(&mut self, id: ClientId, answer: &Answer, now: Instant) {
        self.write(id, line(answer), now);
    }

    /// Answers a client of the metrics' address if it is still connected.
    pub fn answer_http(&mut self, id: ClientId, get: http::Get, status: &Status, now: Instant) {
        self.write(id, http::answer(get, status), now);
    }

    fn write(&mut self, id: ClientId, bytes: Vec<u8>, now: Instant) {
        let Some(connection) = self.clients.get_mut(&id) else { return };
        connection.client.answer(bytes, now);
        connection.write();
        if connection.client.interest().is_none() {
            self.clients.remove(&id);
        }
    }

    fn accept(&mut self, now: Instant, requests: &mut Vec<(ClientId, ClientRequest)>) {
        for _ in 0..MOST_ACCEPTED {
            let accepted = match self.accept_one() {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                    continue;
                }
                // The connection stays in the queue and the listener readable, so without a pause the loop would
                // spin.
                Err(_) => {
                    self.paused_until = Some(now + PAUSE);
                    return;
                }
            };
            let mut connection = Connection::new(accepted, now);
            // Most clients have already sent their request by now, and do not need a slot among those that wait.
            let request = connection.greet(now);
            if connection.client.interest().is_none() {
                continue;
            }
            if !self.make_room() {
                connection.refuse("too many clients are waiting for a response".into());
                continue;
            }
            let id = self.next;
            self.next += 1;
            self.clients.insert(id, connection);
            if let Some(request) = request {
                // It may be answered before the next client needs a slot.
                requests.push((id, request));
                return;
            }
        }
    }

    /// The next connection of either listener; none if nobody is waiting.
    fn accept_one(&self) -> io::Result<Option<Stream>> {
        let control =
            self.control.as_ref().map(|listener| listener.socket().accept().map(|(it, _)| Stream::Unix(it)));
        let metrics = || self.metrics.as_ref().map(|listener| listener.accept().map(|(it, _)| Stream::Tcp(it)));
        for accepted in control.into_iter().chain(std::iter::once_with(metrics).flatten()) {
            match accepted {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                accepted => {
                    let stream = accepted?;
                    stream.set_nonblocking()?;
                    return Ok(Some(stream));
                }
            }
        }
        Ok(None)
    }

    /// Makes room for a new client by dropping the one that has kept us waiting longest. Those that wait for us stay.
    fn make_room(&mut self) -> bool {
        if self.clients.len() < MOST_CLIENTS {
            return true;
        }
        let late = self.clients.iter().filter_map(|(id, it)| Some((it.client.deadline()?, *id))).min();
        late.is_some_and(|(_, id)| self.clients.remove(&id).is_some())
    }
}

impl Connection {
    fn new(stream: Stream, now: Instant) -> Self {
        let framing = match stream {
            Stream::Unix(_) => Framing::Line,
            Stream::Tcp(_) => Framing::Head,
        };
        Self { stream, client: Client::new(framing, now) }
    }

    /// Checks who it is, and reads what is already there.
    fn greet(&mut self, now: Instant) -> Option<ClientRequest> {
        if let Stream::Unix(socket) = &self.stream
            && let Err(why) = check_client(socket)
        {
            self.refuse(why);
            return None;
        }
        self.read(now)
    }

    fn advance(&mut self, now: Instant) -> Option<ClientRequest> {
        match self.client.interest() {
            Some(Interest::Read) => return self.read(now),
            Some(Interest::Write) => self.write(),
            // Only its disconnection was awaited.
            Some(Interest::HangUp) | None => self.client.close(),
        }
        None
    }

    /// Reads until the request is complete or no more data is available. This ends because requests are limited in
    /// length.
    fn read(&mut self, now: Instant) -> Option<ClientRequest> {
        let mut buffer = [0; 4096];
        loop {
            let length = match self.stream.read(&mut buffer) {
                Ok(length @ 1..) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => {
                    self.client.close();
                    return None;
                }
            };
            match self.client.take(&buffer[..length]) {
                Ok(None) => {}
                Ok(Some(request)) => return self.understand(&request, now),
                Err(TooLong) => {
                    self.reply(self.too_long(), now);
                    return None;
                }
            }
        }
    }

    fn understand(&mut self, request: &[u8], now: Instant) -> Option<ClientRequest> {
        let answer = match &self.stream {
            Stream::Tcp(_) => match http::read(request) {
                Asked::ForStatus(get) => return Some(ClientRequest::Http(get)),
                Asked::Answered(answer) => answer,
            },
            Stream::Unix(_) => match Request::read(request) {
                Ok(request) => return Some(ClientRequest::Control(request)),
                Err(why) => line(&Answer::Refused { why }),
            },
        };
        self.reply(answer, now);
        None
    }

    fn too_long(&self) -> Vec<u8> {
        match &self.stream {
            Stream::Unix(_) => line(&Answer::Refused { why: "the request is too long".into() }),
            Stream::Tcp(_) => http::too_long(),
        }
    }

    /// Answers without the supervisor.
    fn reply(&mut self, answer: Vec<u8>, now: Instant) {
        self.client.answer(answer, now);
        self.write();
    }

    /// Reports why, and ends it.
    fn refuse(&mut self, why: String) {
        if matches!(self.stream, Stream::Unix(_)) {
            let _ = self.stream.write(&line(&Answer::Refused { why }));
        }
        self.client.close();
    }

    /// Writes as much as the socket accepts.
    fn write(&mut self) {
        while !self.client.unsent().is_empty() {
            match self.stream.write(self.client.unsent()) {
                Ok(count @ 1..) => self.client.sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return self.client.close(),
            }
        }
    }
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}
