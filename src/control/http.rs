//! As much of HTTP/1 as a listener for metrics needs. Pure.

/// What Prometheus's text format is called in `Content-Type`.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the head of a request asks for the metrics.
#[must_use]
pub fn asks_for_metrics(head: &[u8]) -> bool {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    method == Some(b"GET")
        && path == Some(b"/metrics")
        && version.is_some_and(|version| version.starts_with(b"HTTP/1."))
        && words.next().is_none()
}

/// The answer with the metrics.
#[must_use]
pub fn metrics(text: &str) -> Vec<u8> {
    response("200 OK", METRICS_TYPE, text)
}

/// The answer to everything else.
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
