//! One HTTP request, to see whether a server responds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::socket::Place;
use crate::probe::{Exchange, Protocol, Response};
use crate::settings::value::{BindHost, Value};

/// What to request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthTarget {
    place: Destination,
    /// What goes into `Host:`.
    host: String,
    path: String,
    protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl HealthTarget {
    /// A path at an address in the launcher's notation: `0.0.0.0:4444`, `unix:/path`. If it listens on every address,
    /// the loopback address is used.
    #[must_use]
    pub fn at(address: &str, path: &str, protocol: Protocol) -> Option<Self> {
        let place = match address.strip_prefix("unix:") {
            Some(path) => Destination::Unix(path.into()),
            None => Destination::Tcp(reachable(address.parse().ok()?)),
        };
        Some(Self { place, host: "localhost".into(), path: path.into(), protocol })
    }

    /// A URL: `http://127.0.0.1:4444/health`. For `https`, any certificate is accepted.
    ///
    /// # Errors
    /// Why it cannot be requested.
    pub fn url(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme; use http://ADDRESS:PORT/PATH")?;
        let (tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(format!("{scheme} is not supported; use http://ADDRESS:PORT/PATH")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its path contains characters that must be percent-encoded".into());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is not a port"))?)
            }
            _ => (authority, default_port),
        };
        let ip = BindHost::parse(host)
            .map_err(|_| format!("{host:?} is not an IP address, and names are not resolved"))?
            .0;
        let place = Destination::Tcp(reachable(SocketAddr::new(ip, port)));
        Ok(Self { place, host: authority.to_owned(), path, protocol: Protocol { tls, h2c: false } })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there was no response, in words.
    pub fn get(&self, timeout: Duration) -> Result<Response, String> {
        self.exchange(Instant::now() + timeout).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no response in time".to_owned(),
            ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        })
    }

    fn exchange(&self, deadline: Instant) -> io::Result<Response> {
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok::<_, io::Error>(left),
        };
        let mut stream: Stream = match &self.place {
            Destination::Tcp(address) => Stream::Tcp(TcpStream::connect_timeout(address, left()?)?),
            Destination::Unix(path) => Stream::Unix(Place::Path(path.clone()).connect(left()?)?),
        };
        let mut exchange = Exchange::new(self.protocol, &self.host, &self.path);
        let mut buffer = [0; 4096];
        loop {
            let sent = stream.write_all(exchange.outgoing(), left()?);
            if sent.as_ref().is_err_and(is_closed) {
                return Ok(exchange.ended());
            }
            sent?;
            exchange.sent(exchange.outgoing().len());
            let length = match stream.read(&mut buffer, left()?) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if is_closed(&error) => 0,
                Err(error) => return Err(error),
            };
            if length == 0 {
                return Ok(exchange.ended());
            }
            if let Some(response) = exchange.received(&buffer[..length]) {
                return Ok(response);
            }
        }
    }
}

impl std::fmt::Display for HealthTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Destination::Tcp(address) => {
                write!(f, "http{}://{address}{}", if self.protocol.tls { "s" } else { "" }, self.path)
            }
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

/// Whether the peer has disconnected.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
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
    use crate::test_alone::alone;
    use std::net::TcpListener;

    #[test]
    fn urls_and_addresses_are_understood() {
        for (url, shown) in [
            ("http://127.0.0.1:4444/health", "http://127.0.0.1:4444/health"),
            ("HTTP://localhost", "http://127.0.0.1:80/"),
            ("http://[::1]:80?a=b#c", "http://[::1]:80/?a=b"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("http://0.0.0.0:1/", "http://127.0.0.1:1/"),
            ("https://[::]/a", "https://[::1]:443/a"),
        ] {
            assert_eq!(HealthTarget::url(url).map(|target| target.to_string()), Ok(shown.to_owned()), "{url}");
        }
        let at = |address| HealthTarget::at(address, "/x", Protocol::default()).unwrap().to_string();
        assert_eq!([at("[::]:80"), at("unix:/a")], ["http://[::1]:80/x", "unix:/a /x"]);
    }

    #[test]
    fn what_cannot_be_asked_is_reported() {
        for (url, why) in [
            ("ftp://localhost/", "ftp"),
            ("localhost:80", "scheme"),
            ("http://example.com/", "not resolved"),
            ("http://127.0.0.1:port/", "not a port"),
            ("http://127.0.0.1/a b", "encoded"),
        ] {
            let error = HealthTarget::url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn what_comes_back_is_distinguished() {
        for (answer, response) in [
            ("HTTP/1.1 503 Busy\r\n\r\n", Response::Status(503)),
            ("nonsense\r\n", Response::Other),
            ("", Response::Nothing),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target =
                HealthTarget::at(&listener.local_addr().unwrap().to_string(), "/", Protocol::default()).unwrap();
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
    fn no_listener_and_no_answer_are_errors() {
        alone(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target =
                HealthTarget::at(&listener.local_addr().unwrap().to_string(), "/", Protocol::default()).unwrap();
            assert_eq!(target.get(Duration::from_millis(50)), Err("no response in time".to_owned()));
            drop(listener);
            assert_eq!(target.get(Duration::from_secs(20)), Err("connection refused".to_owned()));
        });
    }
}
