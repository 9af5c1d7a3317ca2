//! As much of HTTP/1 as metrics and a status page need. Pure.

use super::page::PAGE;
use super::prometheus;
use super::protocol::{Status, line};
use super::public_status::PublicStatus;

/// The `Content-Type` of Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// What goes with every response. A browser neither keeps it, nor guesses its type, nor shows it to other sites.
const HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
                       X-Frame-Options: DENY\r\nCross-Origin-Resource-Policy: same-origin\r\n";
/// The policy of responses that are no pages.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

const WHAT_THERE_IS: &str = "the status page is at /, its data at /status.json, the metrics at /metrics\n";

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Something that is made from the status.
    ForStatus(Get),
    /// A response that needs no status: the page, or a refusal.
    Answered(Vec<u8>),
}

/// A request for something that is made from the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Get {
    form: Form,
    /// Whether only the head of the response is wanted.
    head_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Prometheus,
}

/// Reads the head of a request. Its header fields do not matter.
#[must_use]
pub fn read(head: &[u8]) -> Asked {
    let mut request = httparse::Request::new(&mut []);
    let is_request = matches!(request.parse(head), Ok(_) | Err(httparse::Error::TooManyHeaders));
    let (true, Some(method), Some(target), Some(_)) = (is_request, request.method, request.path, request.version)
    else {
        return Asked::Answered(refusal("400 Bad Request", "", "not an HTTP/1 request\n"));
    };
    let head_only = method == "HEAD";
    let path = target.split('?').next().unwrap_or_default();
    let form = match path {
        "/" => None,
        "/status.json" => Some(Form::Json),
        "/metrics" => Some(Form::Prometheus),
        _ => return Asked::Answered(refusal("404 Not Found", "", if head_only { "" } else { WHAT_THERE_IS })),
    };
    match form {
        _ if method != "GET" && !head_only => {
            Asked::Answered(refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "use GET or HEAD\n"))
        }
        Some(form) => Asked::ForStatus(Get { form, head_only }),
        None => Asked::Answered(found("text/html; charset=utf-8", &PAGE.policy, PAGE.html.as_bytes(), head_only)),
    }
}

/// The response to a request that is too long.
#[must_use]
pub fn too_long() -> Vec<u8> {
    refusal("431 Request Header Fields Too Large", "", "the request is too long\n")
}

/// The response that is made from the status.
#[must_use]
pub fn answer(Get { form, head_only }: Get, status: &Status) -> Vec<u8> {
    match form {
        Form::Json => found("application/json", NOTHING, &line(&PublicStatus::from(status)), head_only),
        Form::Prometheus => found(METRICS_TYPE, NOTHING, prometheus::metrics(status).as_bytes(), head_only),
    }
}

fn found(content_type: &str, policy: &str, body: &[u8], head_only: bool) -> Vec<u8> {
    let mut bytes = head("200 OK", content_type, policy, "", body.len());
    if !head_only {
        bytes.extend_from_slice(body);
    }
    bytes
}

fn refusal(status: &str, more: &str, body: &str) -> Vec<u8> {
    let mut bytes = head(status, TEXT_TYPE, NOTHING, more, body.len());
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn head(status: &str, content_type: &str, policy: &str, more: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         {HEADERS}Content-Security-Policy: {policy}\r\n{more}\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;

    fn respond(head: &str) -> Vec<u8> {
        match read(head.as_bytes()) {
            Asked::ForStatus(get) => answer(get, &status()),
            Asked::Answered(response) => response,
        }
    }

    fn status_line(head: &str) -> String {
        String::from_utf8(respond(head)).unwrap().split("\r\n").next().unwrap().to_owned()
    }

    #[test]
    fn only_what_is_there_is_given_and_only_to_those_who_read() {
        for (head, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: a", "200 OK"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r", "200 OK"),
            ("GET /metrics HTTP/1.1\n", "200 OK"),
            ("GET /metrics?name[]=up HTTP/1.0", "200 OK"),
            ("HEAD /status.json HTTP/1.1", "200 OK"),
            ("GET / HTTP/1.1", "200 OK"),
            ("GET /?from=monitoring HTTP/1.1", "200 OK"),
            ("GET /metric HTTP/1.1", "404 Not Found"),
            ("GET /status HTTP/1.1", "404 Not Found"),
            ("GET //metrics HTTP/1.1", "404 Not Found"),
            ("HEAD /index.html HTTP/1.1", "404 Not Found"),
            ("POST /favicon.ico HTTP/1.1", "404 Not Found"),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("OPTIONS / HTTP/1.1", "405 Method Not Allowed"),
            ("DELETE /status.json HTTP/1.1", "405 Method Not Allowed"),
            ("GET /metrics", "400 Bad Request"),
            ("GET /metrics HTTP/1.1 HTTP/1.1", "400 Bad Request"),
            ("", "400 Bad Request"),
        ] {
            assert_eq!(status_line(head), format!("HTTP/1.1 {wanted}"), "{head:?}");
        }
    }

    /// The head of a response, and its body.
    fn response(method: &str, path: &str) -> (String, Vec<u8>) {
        let bytes = respond(&format!("{method} {path} HTTP/1.1"));
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
    }

    #[test]
    fn a_response_states_its_length_and_a_head_has_no_body() {
        for path in ["/", "/status.json", "/metrics", "/nothing"] {
            let (head, body) = response("GET", path);
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            let (only, none) = response("HEAD", path);
            assert!(none.is_empty(), "{path}");
            assert!(only == head || path == "/nothing", "{only}");
        }
    }

    #[test]
    fn every_response_tells_browsers_to_be_careful() {
        for (method, path) in
            [("GET", "/"), ("GET", "/metrics"), ("GET", "/status.json"), ("GET", "/x"), ("PUT", "/")]
        {
            let (head, _) = response(method, path);
            for part in [
                "Cache-Control: no-store\r\n",
                "X-Content-Type-Options: nosniff\r\n",
                "Referrer-Policy: no-referrer\r\n",
                "Content-Security-Policy: default-src 'none'; ",
                "frame-ancestors 'none'",
            ] {
                assert!(head.contains(part), "{method} {path}: no {part:?} in {head}");
            }
            assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), method == "PUT");
        }
    }
}
