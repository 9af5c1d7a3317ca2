//! One HTTP request, to see whether somebody answers it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::socket::Place;
use crate::settings::value::{BindHost, Value};

/// What is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    place: Destination,
    /// What goes into `Host:`.
    host: String,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// An HTTP status.
    Status(u16),
    /// Something that is no HTTP/1, the end of the connection included: there is somebody.
    Other,
}

impl Target {
    /// A path at an address as the launcher names it: `0.0.0.0:4444`, `unix:/path`. Where it listens on every
    /// address, it is asked on the loopback one.
    #[must_use]
    pub fn at(address: &str, path: &str) -> Option<Self> {
        let place = match address.strip_prefix("unix:") {
            Some(path) => Destination::Unix(path.into()),
            None => Destination::Tcp(reachable(address.parse().ok()?)),
        };
        Some(Self { place, host: "localhost".into(), path: path.into() })
    }

    /// A URL: `http://127.0.0.1:4444/health`.
    ///
    /// # Errors
    /// Why it cannot be asked for.
    pub fn url(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme; use http://ADDRESS:PORT/PATH")?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err("https is not spoken here; leave the URL out to ask the launcher itself".into()),
            _ => return Err(format!("{scheme} is not spoken here; use http://ADDRESS:PORT/PATH")),
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its path has characters that must be encoded".into());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
            }
            _ => (authority, 80),
        };
        let ip =
            BindHost::parse(host).map_err(|_| format!("{host:?} is no IP address, and names are not resolved"))?.0;
        Ok(Self { place: Destination::Tcp(reachable(SocketAddr::new(ip, port))), host: authority.to_owned(), path })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there was no answer, in words.
    pub fn get(&self, timeout: Duration) -> Result<Response, String> {
        self.exchange(Instant::now() + timeout).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".to_owned(),
            ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        })
    }

    fn exchange(&self, deadline: Instant) -> io::Result<Response> {
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok::<_, io::Error>(left),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: mcp-launch\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path, self.host
        );
        let mut stream: Stream = match &self.place {
            Destination::Tcp(address) => Stream::Tcp(TcpStream::connect_timeout(address, left()?)?),
            Destination::Unix(path) => Stream::Unix(Place::Path(path.clone()).connect(left()?)?),
        };
        stream.write_all(request.as_bytes(), left()?)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 512];
        loop {
            let length = match stream.read(&mut buffer, left()?) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Who resets what it does not understand is there.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error),
            };
            answer.extend_from_slice(&buffer[..length]);
            if length == 0 || answer.contains(&b'\n') || answer.len() > 4096 {
                return Ok(status(&answer).map_or(Response::Other, Response::Status));
            }
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Destination::Tcp(address) => write!(f, "http://{address}{}", self.path),
            Destination::Unix(path) => write!(f, "unix:{} {}", path.display(), self.path),
        }
    }
}

/// The same port on the loopback address, for a listener on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status in the first line of an answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn write_all(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)).and_then(|()| stream.write_all(bytes)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)).and_then(|()| stream.write_all(bytes)),
        }
    }

    fn read(&mut self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)).and_then(|()| stream.read(buffer)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)).and_then(|()| stream.read(buffer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn urls_and_addresses_are_understood() {
        for (url, shown) in [
            ("http://127.0.0.1:4444/health", "http://127.0.0.1:4444/health"),
            ("HTTP://localhost", "http://127.0.0.1:80/"),
            ("http://[::1]:80?a=b#c", "http://[::1]:80/?a=b"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("http://0.0.0.0:1/", "http://127.0.0.1:1/"),
        ] {
            assert_eq!(Target::url(url).map(|target| target.to_string()), Ok(shown.to_owned()), "{url}");
        }
        assert_eq!(Target::at("[::]:80", "/x").unwrap().to_string(), "http://[::1]:80/x");
        assert_eq!(Target::at("unix:/a", "/x").unwrap().to_string(), "unix:/a /x");
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        for (url, why) in [
            ("https://localhost/", "https"),
            ("localhost:80", "scheme"),
            ("http://example.com/", "not resolved"),
            ("http://127.0.0.1:port/", "no port"),
            ("http://127.0.0.1/a b", "encoded"),
        ] {
            let error = Target::url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn what_comes_back_is_told_apart() {
        for (answer, response) in [
            ("HTTP/1.1 503 Busy\r\n\r\n", Response::Status(503)),
            ("nonsense\r\n", Response::Other),
            ("", Response::Other),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = Target::at(&listener.local_addr().unwrap().to_string(), "/").unwrap();
            let server = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                let _ = client.read(&mut [0; 1024]).unwrap();
                client.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(target.get(Duration::from_secs(20)), Ok(response), "{answer:?}");
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_there_and_nobody_answering_are_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::at(&listener.local_addr().unwrap().to_string(), "/").unwrap();
        assert_eq!(target.get(Duration::from_millis(50)), Err("no answer in time".to_owned()));
        drop(listener);
        assert_eq!(target.get(Duration::from_secs(20)), Err("connection refused".to_owned()));
    }
}
