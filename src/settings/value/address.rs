//! Where to listen, and paths of requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Int, Value, items, says_none, show_list};

/// An address to bind to: an IP address or `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindHost(pub IpAddr);

impl Value for BindHost {
    const METAVAR: &'static str = "ADDRESS";

    fn expected() -> String {
        "an IP address (IPv6 with or without brackets) or localhost".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Self(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(Self).map_err(|_| Some("host names are not resolved here".into()))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// An address and port to listen on; the address may be left out (`:9090`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl Value for ListenAddress {
    const METAVAR: &'static str = "ADDRESS";

    fn expected() -> String {
        "ADDRESS:PORT or :PORT".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let host = if host.is_empty() { BindHost(Ipv4Addr::UNSPECIFIED.into()) } else { BindHost::parse(host)? };
        let port = Int::<0, 65535>::parse(port)?;
        Ok(Self(SocketAddr::new(host.0, u16::try_from(port.0).map_err(|_| None)?)))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// The path of a request, from the slash on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPath(pub String);

impl Value for UrlPath {
    const METAVAR: &'static str = "PATH";

    fn expected() -> String {
        "a path that begins with / and has no spaces".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.starts_with('/') && printable { Ok(Self(text.into())) } else { Err(None) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Several path prefixes, separated by commas; none is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathPrefixes(pub Vec<UrlPath>);

impl Value for PathPrefixes {
    const METAVAR: &'static str = "PREFIXES";

    fn expected() -> String {
        "path prefixes that begin with /, separated by commas, or none".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        items(text).unwrap_or_default().into_iter().map(UrlPath::parse).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        show_list(&self.0)
    }
}

/// Several paths to request, separated by commas; none is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlPaths(pub Vec<UrlPath>);

impl Value for UrlPaths {
    const METAVAR: &'static str = "PATHS";

    fn expected() -> String {
        "paths that begin with / and have no spaces, separated by commas, or none".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if says_none(text) {
            return Ok(Self::default());
        }
        text.split(',').map(|path| UrlPath::parse(path.trim())).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        show_list(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_literals_or_localhost() {
        for (text, address) in [("::", "::"), ("[::1]", "::1"), ("LocalHost", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(BindHost::parse(text).map(|host| host.show()), Ok(address.to_owned()), "{text}");
        }
        assert!(BindHost::parse("example.com").is_err() && BindHost::parse("[::1").is_err());
    }

    #[test]
    fn an_address_to_listen_on_may_be_a_port_alone() {
        for (text, address) in [(":9090", "0.0.0.0:9090"), ("9090", "0.0.0.0:9090"), ("[::1]:80", "[::1]:80")] {
            assert_eq!(ListenAddress::parse(text).map(|address| address.show()), Ok(address.to_owned()), "{text}");
        }
        assert!(ListenAddress::parse("::1").is_err() && ListenAddress::parse(":65536").is_err());
    }

    #[test]
    fn request_paths_begin_with_a_slash() {
        assert_eq!(PathPrefixes::parse("/a, /b,").map(|prefixes| prefixes.show()), Ok("/a,/b".to_owned()));
        for text in ["none", " None ", "none,"] {
            assert_eq!(PathPrefixes::parse(text), Ok(PathPrefixes::default()), "{text:?}");
        }
        assert_eq!(UrlPaths::parse("/a, /b?c=d").map(|paths| paths.show()), Ok("/a,/b?c=d".to_owned()));
        assert_eq!(UrlPaths::parse("None "), Ok(UrlPaths::default()));
        assert!(["", "ready", "/a,", "/a,,/b", "/a,b", "/a b"].iter().all(|text| UrlPaths::parse(text).is_err()));
        assert!(["health", "", "/a b", "/\r\nX: y"].iter().all(|text| UrlPath::parse(text).is_err()));
    }
}
