//! The part of HTTP/1.1 (RFC 9112) that is needed to read a status.

use super::Response;

/// No status line is longer.
const LONGEST: usize = 4096;

pub(super) fn request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mcp-launch\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// A response, as far as it has been received.
#[derive(Debug, Default)]
pub(super) struct ResponseReader(Vec<u8>);

impl ResponseReader {
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        self.0.extend_from_slice(bytes);
        loop {
            let head = &self.0[..self.0.len().min(LONGEST)];
            let is_whole = head.len() == LONGEST;
            match status(head) {
                Ok(Some(101 | 200..)) => return status(head).ok().flatten().map(Response::Status),
                // More is to follow (RFC 9110, 15.2).
                Ok(Some(100..)) => match end(head) {
                    Some(end) => drop(self.0.drain(..end)),
                    None => return is_whole.then_some(Response::Other),
                },
                Ok(None) if !is_whole => return None,
                _ => return Some(Response::Other),
            }
        }
    }
}

/// The status, once its line is complete.
fn status(head: &[u8]) -> Result<Option<u16>, httparse::Error> {
    let mut answer = httparse::Response::new(&mut []);
    let parsed = answer.parse(head);
    // The reason comes last in the status line; errors after it do not matter.
    match (answer.code, answer.reason) {
        (Some(code), Some(_)) => Ok(Some(code)),
        _ => parsed.map(|_| None),
    }
}

/// Where the head ends: behind an empty line.
fn end(head: &[u8]) -> Option<usize> {
    let mut ends = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let is_empty = |at: &usize| head[..*at].strip_suffix(b"\r").unwrap_or(&head[..*at]).ends_with(b"\n");
    ends.find(is_empty).map(|at| at + 1)
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
            (&["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r", "\nHTTP/1.1 503 No\r\n"], Some(Response::Status(503))),
            (&["HTTP/1.1 100 Continue\r\n\r\n"], None),
            (&["HTTP/1.1 101 Switching Protocols\r\n\r\n"], Some(Response::Status(101))),
            (&["HTTP/1.1 000 OK\r\n"], Some(Response::Other)),
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
