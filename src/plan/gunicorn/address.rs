//! Gunicorn's `bind`: the address to listen on, in Gunicorn's notation.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::Bind;
use crate::settings::value::{BindHost, Int, Value};

/// Gunicorn's default port for an address without one.
const PORT: u16 = 8000;

/// Reads an address as Gunicorn does, and explains why one cannot be served.
pub(in super::super) fn parse(text: &str) -> Result<Bind, String> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { Err("it has no path".into()) } else { Ok(Bind::Unix(path.into())) };
    }
    if text.starts_with("fd://") {
        return Err("inherited descriptors are not supported here; use LISTEN_FDS".into());
    }
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    let (host, port) = split(text);
    let host = if host.is_empty() { Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { address(host) };
    let port = port.map_or(Ok(PORT), |port| {
        let number = Int::<0, 65535>::parse(port).ok().and_then(|port| u16::try_from(port.0).ok());
        number.ok_or_else(|| format!("{port:?} is not a port"))
    });
    Ok(Bind::Tcp(SocketAddr::new(host?, port?)))
}

/// A number alone is meant as a port. An IPv6 address may lack its brackets if it has no port.
fn split(text: &str) -> (&str, Option<&str>) {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return ("", Some(text));
    }
    let whole = text.parse::<IpAddr>().is_ok() || text.ends_with(']');
    match text.rsplit_once(':') {
        Some((host, port)) if !whole => (host, Some(port)),
        _ => (text, None),
    }
}

fn address(host: &str) -> Result<IpAddr, String> {
    BindHost::parse(host).map(|host| host.0).map_err(|why| {
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        format!("{host:?} is not {}{why}", BindHost::expected())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_each_form_of_gunicorns() {
        for (text, wanted) in [
            ("127.0.0.1:8765", "127.0.0.1:8765"),
            ("127.0.0.1", "127.0.0.1:8000"),
            (":8765", "0.0.0.0:8765"),
            ("8765", "0.0.0.0:8765"),
            ("", "0.0.0.0:8000"),
            ("[::]:8765", "[::]:8765"),
            ("[::1]", "[::1]:8000"),
            ("::1", "[::1]:8000"),
            ("localhost:80", "127.0.0.1:80"),
            ("tcp://0.0.0.0:80", "0.0.0.0:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:a.sock", "unix:a.sock"),
        ] {
            assert_eq!(parse(text).map(|bind| bind.to_string()), Ok(wanted.to_owned()), "{text}");
        }
        for text in ["fd://3", "example.com:80", "127.0.0.1:http", "127.0.0.1:65536", "unix:", "127.0.0.1:", "a b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
