//! The options of `compare` that are not settings of a server: what to measure, and how.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::statistics::FEWEST;
use crate::settings::value::{Int, Span, UrlPath, Value};

/// The options of `compare` that are not settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The request.
    pub request: LoadRequest,
    /// Numbers of connections to measure with, ascending.
    pub connections: Vec<u32>,
    /// How long each measurement is.
    pub duration: Duration,
    /// How often each server is started and measured.
    pub rounds: u32,
    /// How the result is printed.
    pub format: Format,
    /// The file for a page with plots.
    pub html: Option<PathBuf>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Text,
    /// A JSON object.
    Json,
    /// A table in Markdown.
    Markdown,
}

/// The request that is repeated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LoadRequest {
    /// Its method.
    pub method: String,
    /// Its target, from the slash on.
    pub path: String,
    /// Its headers, apart from those that every client sends.
    pub headers: Vec<Header>,
    /// Its body.
    pub body: Option<String>,
}

/// A header of the request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, which may be a secret.
    #[serde(skip)]
    pub value: String,
}

impl LoadRequest {
    /// The request in HTTP/1.1, for a connection that is closed afterwards.
    #[must_use]
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.has_header("host") {
            let _ = write!(head, "Host: {host}\r\n");
        }
        for header in &self.headers {
            let _ = write!(head, "{}: {}\r\n", header.name, header.value);
        }
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        (head + "\r\n" + body).into_bytes()
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for LoadRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The characters of a token, which methods and names of headers are (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(letter)
}

/// Headers that the load generator or we write ourselves.
const OURS: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

/// Reads `--header`.
///
/// # Errors
/// What is expected instead.
pub fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let value = value.trim();
    if !is_token(name) {
        return Err(format!("{name:?} is not a header name; expected NAME: VALUE"));
    }
    if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
        return Err(format!("{name} cannot be set: connections are kept alive, and the length is that of --body"));
    }
    if value.chars().any(char::is_control) {
        return Err("a value must not contain control characters".into());
    }
    Ok(Header { name: name.to_owned(), value: value.to_owned() })
}

/// Reads `--method`.
///
/// # Errors
/// What is expected instead.
pub fn method(text: &str) -> Result<String, String> {
    let method = text.to_ascii_uppercase();
    if is_token(text) && !matches!(method.as_str(), "CONNECT" | "HEAD") {
        Ok(method)
    } else {
        Err("expected a method whose response has a body, such as GET, POST or PUT".into())
    }
}

/// Reads `--path`.
///
/// # Errors
/// What is expected instead.
pub fn path(text: &str) -> Result<String, String> {
    let path = UrlPath::parse(text).ok().filter(|path| !path.0.contains('#'));
    path.map(|path| path.0).ok_or_else(|| format!("expected {}, optionally with a query", UrlPath::expected()))
}

/// The most connections that one machine can make to one address.
type Connections = Int<1, 20_000>;

/// Reads `--connections`.
///
/// # Errors
/// What is expected instead.
pub fn connections(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("expected numbers separated by commas, each {}", Connections::expected());
    let numbers = text.split(',').map(|number| {
        let number = Connections::parse(number.trim()).map_err(|_| wrong())?.0;
        u32::try_from(number).map_err(|_| wrong())
    });
    let mut numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

type Length = Span<100, 3_600_000>;

/// Reads `--duration`.
///
/// # Errors
/// What is expected instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    Length::parse(text).map(|span| span.0).map_err(|_| format!("expected {}", Length::expected()))
}

type Rounds = Int<1, 100>;

/// Reads `--rounds`.
///
/// # Errors
/// What is expected instead.
pub fn rounds(text: &str) -> Result<u32, String> {
    let wrong = || format!("expected {}", Rounds::expected());
    u32::try_from(Rounds::parse(text).map_err(|_| wrong())?.0).map_err(|_| wrong())
}

/// In a shorter measurement, the start of the load generator and chance dominate.
const SHORT: Duration = Duration::from_secs(2);

impl Options {
    /// Warnings about options that make the result unreliable.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.duration < SHORT {
            warnings
                .push(format!("--duration {:?} is too short for meaningful figures; use 2s or more", self.duration));
        }
        if (self.rounds as usize) < FEWEST {
            warnings.push(format!(
                "--rounds {}: fewer than {FEWEST} rounds cannot tell a difference from chance",
                self.rounds
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_http_puts_them() {
        let mut request =
            LoadRequest { method: "GET".into(), path: "/a?b=c".into(), headers: Vec::new(), body: None };
        let text = |request: &LoadRequest| String::from_utf8(request.bytes("h:1")).unwrap();
        assert_eq!(text(&request), "GET /a?b=c HTTP/1.1\r\nConnection: close\r\nHost: h:1\r\n\r\n");
        request.method = "POST".into();
        request.headers = vec![header("host: x").unwrap(), header("Accept:text/plain").unwrap()];
        request.body = Some("é".into());
        let wanted = "POST /a?b=c HTTP/1.1\r\nConnection: close\r\nhost: x\r\nAccept: text/plain\r\n\
                      Content-Length: 2\r\n\r\né";
        assert_eq!(text(&request), wanted);
    }

    #[test]
    fn what_is_wrong_with_an_option_is_reported() {
        assert_eq!(connections("64, 1,64"), Ok(vec![1, 64]));
        for text in ["", "0", "1,", "a", "-1", "20001", "1;2"] {
            assert!(connections(text).unwrap_err().contains("from 1 to 20000"), "{text:?}");
        }
        for text in ["Accept", "a b: c", ": x", "Connection: close", "content-length: 3", "A: b\r\nC: d"] {
            assert!(header(text).is_err(), "{text:?}");
        }
        for text in ["health", "", "/a b", "/a?b c", "/a#b"] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert_eq!(path("/a?b=%20&c"), Ok("/a?b=%20&c".into()));
        assert_eq!(method("post"), Ok("POST".into()));
        assert!(method("HEAD").is_err() && method("A B").is_err() && method("").is_err());
        assert!(duration("10ms").is_err() && duration("2").is_ok() && duration("x").is_err());
        assert!(rounds("0").is_err() && rounds("101").is_err() && rounds("1.5").is_err());
    }

    #[test]
    fn what_means_nothing_is_a_warning() {
        let request = LoadRequest { method: "GET".into(), path: "/".into(), headers: Vec::new(), body: None };
        let mut options = Options {
            request,
            connections: vec![1],
            duration: Duration::from_millis(500),
            rounds: 2,
            format: Format::Text,
            html: None,
        };
        assert_eq!(options.warnings().len(), 2);
        options.duration = Duration::from_secs(2);
        options.rounds = 3;
        assert!(options.warnings().is_empty());
    }
}
