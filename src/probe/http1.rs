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
pub(super) struct Answer(Vec<u8>);

impl Answer {
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        self.0.extend_from_slice(bytes);
        match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) => Some(status(&self.0[..end]).map_or(Response::Other, Response::Status)),
            None => (self.0.len() > LONGEST).then_some(Response::Other),
        }
    }
}

/// The status in a status line.
fn status(line: &[u8]) -> Option<u16> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
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
            (&["\u{15}\u{3}\u{1}\0\u{2}\u{2}("], None),
        ] {
            let mut answer = Answer::default();
            let found = parts.iter().find_map(|part| answer.received(part.as_bytes()));
            assert_eq!(found, expected, "{parts:?}");
        }
        assert_eq!(Answer::default().received(&[b'a'; LONGEST + 1]), Some(Response::Other));
    }
}
