//! As much of HTTP/1.1 (RFC 9112) as it takes to learn a status.

use super::Response;

/// No status line is longer.
const LONGEST: usize = 4096;

pub(super) fn request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mcp-launch\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// An answer, as far as it has come in.
#[derive(Debug, Default)]
pub(super) struct ResponseReader(Vec<u8>);

impl ResponseReader {
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        self.0.extend_from_slice(bytes);
        let mut answer = httparse::Response::new(&mut []);
        let parsed = answer.parse(&self.0);
        // The reason comes last in the status line; whatever is wrong behind it does not matter.
        match (answer.code, answer.reason) {
            (Some(code), Some(_)) => Some(Response::Status(code)),
            _ => (parsed.is_err() || self.0.len() > LONGEST).then_some(Response::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_known_with_its_line_however_it_arrives() {
        for (parts, expected) in [
            (&["HTTP/1.1 20", "0 OK\r", "\nmore"][..], Some(Response::Status(200))),
            (&["HTTP/1.0 503\r\n"], Some(Response::Status(503))),
            (&["nonsense\r\n"], Some(Response::Other)),
            (&["HTTP/1.1 200 OK"], None),
            (&["HTTP/1.1 200\n"], Some(Response::Status(200))),
            (&["HTTP/1.1 200 OK\r\nno header\r\n\r\n"], Some(Response::Status(200))),
            (&["\u{15}\u{3}\u{1}\0\u{2}\u{2}("], Some(Response::Other)),
        ] {
            let mut answer = ResponseReader::default();
            let found = parts.iter().find_map(|part| answer.received(part.as_bytes()));
            assert_eq!(found, expected, "{parts:?}");
        }
        let endless = [b"HTTP/1.1 200 ".as_slice(), &[b'a'; LONGEST]].concat();
        assert_eq!(ResponseReader::default().received(&endless), Some(Response::Other));
    }
}
