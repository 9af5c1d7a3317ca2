//! One request, to see whether a server responds: HTTP/1 or HTTP/2, with or without TLS.
//!
//! [`Exchange`] is a state machine over bytes; its owner moves them, blocking or not.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http1;
mod http2;
mod tls;

use std::fmt;

use tls::Tls;

/// The protocol to use with a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Over TLS; which HTTP is then negotiated.
    pub tls: bool,
    /// HTTP/2 without TLS, which has to be known beforehand (RFC 9113, 3.3).
    pub h2c: bool,
}

/// The response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// An HTTP status.
    Status(u16),
    /// Not HTTP, but a server that refuses us deliberately: it requires a certificate that we do not have. The reason,
    /// in words.
    Refused(String),
    /// Something other than HTTP.
    Other,
    /// Nothing: the connection was closed.
    Nothing,
}

impl Response {
    /// Whether this is a working server: a missing path, or a client that asks too often, is not the server's fault.
    #[must_use]
    pub const fn is_sign_of_life(&self) -> bool {
        matches!(self, Self::Status(..500) | Self::Refused(_))
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Refused(why) => f.write_str(why),
            Self::Other => f.write_str("did not respond in the expected protocol"),
            Self::Nothing => f.write_str("closed the connection without a response"),
        }
    }
}

/// A request and its response.
#[derive(Debug)]
pub struct Exchange {
    request: HttpRequest,
    tls: Option<Box<Tls>>,
    http: Http,
    outgoing: Vec<u8>,
}

#[derive(Debug)]
struct HttpRequest {
    host: String,
    path: String,
    scheme: &'static str,
}

/// The HTTP version in use.
#[derive(Debug)]
enum Http {
    /// Not yet negotiated.
    Undecided,
    V1(http1::ResponseReader),
    V2(http2::ResponseReader),
}

impl Exchange {
    /// A request for this path; `host` is the `Host:` header.
    #[must_use]
    pub fn new(protocol: Protocol, host: &str, path: &str) -> Self {
        let scheme = if protocol.tls { "https" } else { "http" };
        let request = HttpRequest { host: host.into(), path: path.into(), scheme };
        let tls = protocol.tls.then(|| Box::new(Tls::new()));
        let mut exchange = Self { request, tls, http: Http::Undecided, outgoing: Vec::new() };
        match &mut exchange.tls {
            Some(tls) => tls.flush(&mut exchange.outgoing),
            None => exchange.outgoing = exchange.begin(protocol.h2c),
        }
        exchange
    }

    /// What to send.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Takes note that this many bytes were sent.
    pub fn sent(&mut self, length: usize) {
        self.outgoing.drain(..length);
    }

    /// Takes what was received; a response ends the exchange.
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        let Some(mut tls) = self.tls.take() else { return self.http.received(bytes) };
        let taken = tls.received(bytes);
        let mut response = None;
        match taken {
            Ok(None) => {}
            Ok(Some(clear)) => {
                if matches!(self.http, Http::Undecided) {
                    let request = self.begin(tls.speaks_http2());
                    tls.send(&request);
                }
                response = self.http.received(&clear);
            }
            Err(refused) => response = Some(refused),
        }
        tls.flush(&mut self.outgoing);
        self.tls = Some(tls);
        response
    }

    /// The outcome if the connection ends here.
    #[must_use]
    pub fn ended(&self) -> Response {
        match &self.tls {
            Some(tls) if tls.wants_certificate() => tls::without_certificate(),
            _ => Response::Nothing,
        }
    }

    /// Chooses the HTTP and makes the request.
    fn begin(&mut self, http2: bool) -> Vec<u8> {
        let HttpRequest { host, path, scheme } = &self.request;
        if http2 {
            self.http = Http::V2(http2::ResponseReader::default());
            http2::request(scheme, host, path)
        } else {
            self.http = Http::V1(http1::ResponseReader::default());
            http1::request(host, path)
        }
    }
}

impl Http {
    fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        match self {
            Self::Undecided => None,
            Self::V1(answer) => answer.received(bytes),
            Self::V2(answer) => answer.received(bytes),
        }
    }
}
