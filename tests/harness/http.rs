//! The smallest HTTP client that can tell a good answer from a bad one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Turn, take_turn};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A connection that may be kept alive.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn get(&mut self, path: &str, headers: &str) -> std::io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> std::io::Result<Answer> {
        let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| bad(&line))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let answer = Answer { status, headers, body: String::new() };
        let mut body = Vec::new();
        if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                line.clear();
                self.stream.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim(), 16).map_err(|_| bad(&line))?;
                let start = body.len();
                body.resize(start + length, 0);
                self.stream.read_exact(&mut body[start..])?;
                self.stream.read_line(&mut line)?;
                if length == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().map_err(|_| bad("content-length"))?, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Answer { body: String::from_utf8_lossy(&body).into_owned(), ..answer })
    }
}

/// One request on a connection of its own.
pub fn get(port: u16, path: &str) -> std::io::Result<Answer> {
    get_with(port, path, "")
}

/// One request with headers, each ending in CR LF.
pub fn get_with(port: u16, path: &str, headers: &str) -> std::io::Result<Answer> {
    Connection::open(port)?.get(path, &format!("Connection: close\r\n{headers}"))
}

/// A request whose answer does not end: an event stream, a WebSocket. Returns when the answer has begun well.
#[track_caller]
pub fn open_stream(port: u16, path: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = Connection::open(port).unwrap().stream;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 ") || line.contains(" 101 "), "{path}: {line}");
    stream
}

/// What asks for a WebSocket (RFC 6455, 4.1).
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a request on a connection of whatever kind, and does not wait.
pub fn request(stream: &mut impl Write, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// Waits for the answer to a request; its body, if all is well.
pub fn answer(mut stream: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text)),
    }
}

/// The body of one answer on a connection of whatever kind.
pub fn ask(mut stream: impl Read + Write, path: &str) -> std::io::Result<String> {
    request(&mut stream, path);
    answer(stream)
}

/// Clients that ask without a pause until they are told to stop, half of them on fresh connections, half on
/// connections that they keep.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
    _turn: Turn,
}

impl Load {
    pub fn start(port: u16, path: &'static str, clients: usize) -> Self {
        let turn = take_turn();
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..clients).map(|client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || client_loop(port, path, client % 2 == 0, &stop, &answered))
        });
        Self { clients: clients.collect(), stop, answered, _turn: turn }
    }

    /// Requests that were answered well so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Ends the load and returns what went wrong.
    pub fn finish(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn client_loop(port: u16, path: &str, fresh: bool, stop: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept: Option<Connection> = None;
    while !stop.load(Relaxed) {
        let reused = kept.is_some();
        let result = match kept.take().map_or_else(|| Connection::open(port), Ok) {
            Ok(mut connection) => {
                let header = if fresh { "Connection: close\r\n" } else { "" };
                connection.get(path, header).map(|answer| (connection, answer))
            }
            Err(error) => Err(error),
        };
        match result {
            Ok((connection, answer)) if answer.status == 200 => {
                answered.fetch_add(1, Relaxed);
                let closing = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                kept = (!fresh && !closing).then_some(connection);
            }
            Ok((_, answer)) => failures.push(format!("status {}", answer.status)),
            // A kept connection that the server closed while it was idle is asked for again on a new one, as
            // every client does (RFC 9112, 9.3.1): the request was never begun.
            Err(error) if reused && is_closed(&error) => {}
            Err(error) => failures.push(format!("{} connection: {error}", if reused { "kept" } else { "fresh" })),
        }
    }
    failures
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
