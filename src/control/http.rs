//! As much of HTTP/1 as a metrics endpoint needs. Pure.

/// The `Content-Type` of Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the head of a request asks for the metrics. Its header fields do not matter.
#[must_use]
pub fn asks_for_metrics(head: &[u8]) -> bool {
    let mut request = httparse::Request::new(&mut []);
    let is_request = matches!(request.parse(head), Ok(_) | Err(httparse::Error::TooManyHeaders));
    let path = request.path.and_then(|target| target.split('?').next());
    is_request && request.method == Some("GET") && path == Some("/metrics") && request.version.is_some()
}

/// The response with the metrics.
#[must_use]
pub fn metrics(text: &str) -> Vec<u8> {
    response("200 OK", METRICS_TYPE, text)
}

/// The response to everything else.
#[must_use]
pub fn not_found() -> Vec<u8> {
    response("404 Not Found", "text/plain; charset=utf-8", "the metrics are at /metrics\n")
}

fn response(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metrics_are_there() {
        for (head, yes) in [
            ("GET /metrics HTTP/1.1\r\nHost: a", true),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r", true),
            ("GET /metrics HTTP/1.1\n", true),
            ("GET /metrics?name[]=up HTTP/1.0", true),
            ("GET /metric HTTP/1.1", false),
            ("GET / HTTP/1.1", false),
            ("POST /metrics HTTP/1.1", false),
            ("GET /metrics", false),
            ("GET /metrics HTTP/1.1 HTTP/1.1", false),
            ("", false),
        ] {
            assert_eq!(asks_for_metrics(head.as_bytes()), yes, "{head:?}");
        }
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let text = String::from_utf8(metrics("é\n")).unwrap();
        assert!(text.contains("\r\nContent-Length: 3\r\n") && text.ends_with("\r\n\r\né\n"), "{text}");
    }
}
