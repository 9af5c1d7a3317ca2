//! A client that makes one request on its own connection and checks whether the response is complete. For what a load
//! generator does not report: the first response of all, and each single failure while a server is reloaded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// The target of a redirection.
    pub location: Option<String>,
}

impl HttpAnswer {
    /// Whether it is worth measuring: neither a failure nor a redirection.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self.status, 200..300)
    }
}

/// Makes the request and reads the whole response.
///
/// # Errors
/// What went wrong, in a few words that are always the same for the same failure.
pub fn ask(address: SocketAddr, request: &[u8], patience: Duration) -> Result<HttpAnswer, String> {
    exchange(address, request, Instant::now() + patience).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no response in time".to_owned(),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_owned(),
        ErrorKind::UnexpectedEof => "closed before the response was complete".to_owned(),
        ErrorKind::InvalidData => "a response that is not HTTP/1".to_owned(),
        _ => error.to_string(),
    })
}

fn exchange(address: SocketAddr, request: &[u8], deadline: Instant) -> io::Result<HttpAnswer> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let mut text = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(answer) = whole(&text, false)? {
            return Ok(answer);
        }
    }
    whole(&text, true)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// No response has more header fields.
const MOST_FIELDS: usize = 100;

/// The response, if it is complete. `ended`: no more data will come.
fn whole(text: &[u8], ended: bool) -> io::Result<Option<HttpAnswer>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = answer.parse(text).map_err(invalid)? else { return Ok(None) };
    let body = &text[head..];
    let field = |name: &str| {
        let found = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let status = answer.code.unwrap_or_default();
    let is_whole = if matches!(status, 204 | 304) {
        true
    } else if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        has_last_chunk(body)?
    } else if let Some(length) = field("content-length") {
        body.len() >= length.parse::<usize>().map_err(invalid)?
    } else {
        ended
    };
    Ok(is_whole.then(|| HttpAnswer { status, location: field("location").map(str::to_owned) }))
}

/// Whether a chunked body is complete: with the empty chunk, and the empty line after its trailer fields.
fn has_last_chunk(mut body: &[u8]) -> io::Result<bool> {
    const LINE_END: usize = 2;
    while let httparse::Status::Complete((head, length)) = httparse::parse_chunk_size(body).map_err(invalid)? {
        let rest = &body[head..];
        if length == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; MOST_FIELDS];
            return Ok(httparse::parse_headers(rest, &mut trailers).map_err(invalid)?.is_complete());
        }
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LINE_END);
        let Some(next) = rest.get(end..) else { return Ok(false) };
        body = next;
    }
    Ok(false)
}

fn invalid<E>(_: E) -> io::Error {
    ErrorKind::InvalidData.into()
}

/// The preface of an HTTP/2 client with prior knowledge, and an empty SETTINGS frame (RFC 9113, 3.4 and 6.5).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, in the fourth byte of its head.
const SETTINGS: u8 = 4;

/// Whether the server speaks HTTP/2 without TLS.
#[must_use]
pub fn speaks_http2(address: SocketAddr, patience: Duration) -> bool {
    let first_frame = || -> io::Result<[u8; 9]> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(PREFACE)?;
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    first_frame().is_ok_and(|head| head[3] == SETTINGS && head[5..] == [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_alone::alone;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_whole_or_it_is_not() {
        let good = |status| Some(HttpAnswer { status, location: None });
        for (text, open, ended) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", good(200), good(200)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", None, None),
            ("HTTP/1.1 200 OK\r\n\r\nok", None, good(200)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", good(200), good(200)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None, None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", good(200), good(200)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n\r\n0\r\n\r\n\r\n", None, None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", good(200), good(200)),
            ("HTTP/1.1 204 No Content\r\n\r\n", good(204), good(204)),
            ("HTTP/1.1 200 OK\r\nContent-", None, None),
            ("", None, None),
        ] {
            assert_eq!(whole(text.as_bytes(), false).unwrap(), open, "{text:?}");
            assert_eq!(whole(text.as_bytes(), true).unwrap(), ended, "{text:?}");
        }
        let moved = b"HTTP/1.1 307 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(moved, false).unwrap().unwrap().location.as_deref(), Some("/x"));
        assert!(whole(b"SSH-2.0\r\n\r\n", true).is_err());
    }

    #[test]
    fn failures_have_names() {
        alone(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let short = Duration::from_millis(50);
            assert_eq!(ask(address, b"GET / HTTP/1.1\r\n\r\n", short), Err("no response in time".into()));
            let server = std::thread::spawn(move || {
                // The client above has disconnected, but is still in the queue.
                for _ in 0..2 {
                    let (mut client, _) = listener.accept().unwrap();
                    let _ = client.read(&mut [0; 100]);
                    let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
                }
            });
            let long = Duration::from_secs(20);
            assert_eq!(ask(address, b"x", long), Err("closed before the response was complete".into()));
            server.join().unwrap();
            assert_eq!(ask(address, b"x", long), Err("connection refused".into()));
            assert!(!speaks_http2(address, long));
        });
    }
}
