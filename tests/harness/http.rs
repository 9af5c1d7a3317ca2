//! A minimal HTTP client that distinguishes good responses from bad ones.

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
        self.send_with(path, headers)?;
        self.receive()
    }

    /// Whether the server has not closed it yet; an error if it was not closed cleanly.
    fn is_open(&self) -> std::io::Result<bool> {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true)?;
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        match seen {
            Ok(0) => Ok(false),
            Ok(_) => Err(std::io::Error::other("data without a request")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sends a request, and does not wait for the answer.
    pub fn send(&mut self, path: &str) -> std::io::Result<()> {
        self.send_with(path, "")
    }

    /// Sends a part of a request.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn send_with(&mut self, path: &str, headers: &str) -> std::io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// The next answer.
    pub fn receive(&mut self) -> std::io::Result<Answer> {
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
            body = take_chunked(&mut self.stream)?.into_bytes();
        } else if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().map_err(|_| bad("content-length"))?, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Answer { body: String::from_utf8_lossy(&body).into_owned(), ..answer })
    }
}

/// Reads the rest of a response's head.
pub fn skip_head(stream: &mut impl BufRead) -> std::io::Result<()> {
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(())
}

/// A body that comes in chunks, to its end.
pub fn take_chunked(stream: &mut impl BufRead) -> std::io::Result<String> {
    let (mut body, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Ok(length) = usize::from_str_radix(line.trim(), 16) else {
            let text = format!("{line:?} in place of a chunk, after {:?}", String::from_utf8_lossy(&body));
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        };
        let start = body.len();
        body.resize(start + length, 0);
        stream.read_exact(&mut body[start..])?;
        stream.read_line(&mut line)?;
        if length == 0 {
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
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

/// A request whose response does not end: an event stream, a WebSocket. Returns when the response has begun
/// successfully.
#[track_caller]
pub fn open_stream(port: u16, path: &str, headers: &str) -> BufReader<TcpStream> {
    open_stream_with("GET", port, path, headers)
}

/// The same with any method.
#[track_caller]
pub fn open_stream_with(method: &str, port: u16, path: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = Connection::open(port).unwrap().stream;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 ") || line.contains(" 101 "), "{path}: {line}");
    stream
}

/// The headers that request a WebSocket (RFC 6455, 4.1).
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a request on a connection of any kind, and does not wait.
pub fn request(stream: &mut impl Write, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// Waits for the response to a request; returns its body if it is good.
pub fn answer(mut stream: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text)),
    }
}

/// The body of one response on a connection of any kind.
pub fn ask(mut stream: impl Read + Write, path: &str) -> std::io::Result<String> {
    request(&mut stream, path);
    answer(stream)
}

/// Clients that make requests until they are stopped: on fresh connections, on connections that they keep, and on fresh
/// ones with a pause before the request. No failure is tolerated: a connection that does not end cleanly and in time,
/// or an incomplete response, is a failure.
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
            let habit = [Habit::Fresh, Habit::Kept, Habit::Slow, Habit::Kept][client % 4];
            std::thread::spawn(move || client_loop(port, path, habit, &stop, &answered))
        });
        Self { clients: clients.collect(), stop, answered, _turn: turn }
    }

    /// Requests with a good response so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Ends the load and returns the failures.
    pub fn finish(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }

    /// Ends the load, which must have had no failure.
    #[track_caller]
    pub fn assert_nothing_lost(self) {
        let answered = self.answered();
        let failures = self.finish();
        eprintln!("{} of {answered} failed", failures.len());
        assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
        assert!(answered > 0, "there were no requests");
    }
}

/// How a client of the load uses its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// One for each request.
    Fresh,
    /// It keeps them.
    Kept,
    /// One for each request, which is sent after a pause.
    Slow,
}

fn client_loop(port: u16, path: &str, habit: Habit, stop: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept: Option<Connection> = None;
    while !stop.load(Relaxed) {
        let reused = kept.is_some();
        match client_turn(port, path, habit, kept.take()) {
            Ok(Some(connection)) => {
                answered.fetch_add(1, Relaxed);
                kept = Some(connection).filter(|_| habit == Habit::Kept);
            }
            Ok(None) => {
                answered.fetch_add(1, Relaxed);
            }
            Err(error) => failures.push(format!("{habit:?}{}: {error}", if reused { ", reused" } else { "" })),
        }
    }
    failures
}

/// One request; returns the connection if it may be used again.
fn client_turn(port: u16, path: &str, habit: Habit, kept: Option<Connection>) -> std::io::Result<Option<Connection>> {
    // Closed before a request was sent: every client handles that by connecting again (RFC 9112, 9.3.1).
    let kept = match kept {
        Some(kept) if kept.is_open()? => Some(kept),
        _ => None,
    };
    let mut connection = kept.map_or_else(|| Connection::open(port), Ok)?;
    if habit == Habit::Slow {
        std::thread::sleep(Duration::from_millis(400));
    }
    let answer = connection.get(path, if habit == Habit::Kept { "" } else { "Connection: close\r\n" })?;
    if answer.status != 200 {
        return Err(std::io::Error::other(format!("status {}", answer.status)));
    }
    let ends = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok((!ends).then_some(connection))
}
