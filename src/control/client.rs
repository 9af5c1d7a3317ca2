//! One connection as a state machine over bytes: input goes in and the request comes out; the response goes in and
//! what is to be written comes out. Pure: no socket, no clock.

use std::time::{Duration, Instant};

/// The longest request that is read.
pub const LONGEST_REQUEST: usize = 64 << 10;
/// How long a client may take to send its request, and again to read its response.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// At the end of the line.
    Line,
    /// At the empty line after the head of an HTTP request.
    Head,
}

impl Framing {
    /// The end of the request at the beginning of these bytes. `seen` of them have been checked before.
    fn end(self, bytes: &[u8], seen: usize) -> Option<usize> {
        match self {
            Self::Line => bytes[seen..].iter().position(|byte| *byte == b'\n').map(|at| seen + at),
            // RFC 9112, 2.2: a recipient may accept a bare LF as the end of a line.
            Self::Head => {
                let start = seen.saturating_sub(3);
                let ends = bytes[start..].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                ends.map(|(at, _)| start + at).find(|at| {
                    let line = bytes[..*at].strip_suffix(b"\r").unwrap_or(&bytes[..*at]);
                    line.is_empty() || line.ends_with(b"\n")
                })
            }
        }
    }
}

/// The request is longer than [`LONGEST_REQUEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// A connection.
#[derive(Debug)]
pub struct Client {
    framing: Framing,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The request is incomplete.
    Reading { bytes: Vec<u8>, deadline: Instant },
    /// The request is being carried out.
    Waiting,
    /// The response has not been written completely.
    Writing { bytes: Vec<u8>, sent: usize, deadline: Instant },
    /// No more data in either direction.
    Over,
}

/// What a client can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Send its request.
    Read,
    /// Disconnect; nothing else is expected.
    HangUp,
    /// Take its answer.
    Write,
}

impl Client {
    /// A client that has just arrived.
    #[must_use]
    pub fn new(framing: Framing, now: Instant) -> Self {
        Self { framing, state: State::Reading { bytes: Vec::new(), deadline: now + PATIENCE } }
    }

    /// Takes input, and returns the request once it is complete, without its terminator. What follows it is ignored.
    ///
    /// # Errors
    /// If it is too long; it should be answered and closed.
    pub fn take(&mut self, read: &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        let State::Reading { bytes, .. } = &mut self.state else { return Ok(None) };
        let seen = bytes.len();
        bytes.extend_from_slice(read);
        match self.framing.end(bytes, seen) {
            Some(end) if end <= LONGEST_REQUEST => {
                let mut request = std::mem::take(bytes);
                request.truncate(end);
                self.state = State::Waiting;
                Ok(Some(request))
            }
            None if bytes.len() <= LONGEST_REQUEST => Ok(None),
            _ => {
                self.state = State::Waiting;
                Err(TooLong)
            }
        }
    }

    /// Takes the response.
    pub fn answer(&mut self, bytes: Vec<u8>, now: Instant) {
        if self.state == State::Waiting {
            self.state = State::Writing { bytes, sent: 0, deadline: now + PATIENCE };
        }
    }

    /// What is still to be written.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        match &self.state {
            State::Writing { bytes, sent, .. } => &bytes[*sent..],
            _ => &[],
        }
    }

    /// Takes note that this many bytes were written.
    pub fn sent(&mut self, count: usize) {
        if let State::Writing { bytes, sent, .. } = &mut self.state {
            *sent += count;
            if *sent >= bytes.len() {
                self.state = State::Over;
            }
        }
    }

    /// The connection is no longer usable.
    pub fn close(&mut self) {
        self.state = State::Over;
    }

    /// What is being waited for; nothing at the end.
    #[must_use]
    pub const fn interest(&self) -> Option<Interest> {
        match self.state {
            State::Reading { .. } => Some(Interest::Read),
            State::Waiting => Some(Interest::HangUp),
            State::Writing { .. } => Some(Interest::Write),
            State::Over => None,
        }
    }

    /// Its deadline; none while it is waiting for us.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Reading { deadline, .. } | State::Writing { deadline, .. } => Some(deadline),
            State::Waiting | State::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_in_pieces_is_put_together_and_what_follows_is_left() {
        let now = Instant::now();
        let mut client = Client::new(Framing::Line, now);
        assert_eq!(client.take(b"{\"re"), Ok(None));
        assert_eq!(client.interest(), Some(Interest::Read));
        assert_eq!(client.take(b"quest\"}\nmore\n"), Ok(Some(b"{\"request\"}".to_vec())));
        assert_eq!((client.interest(), client.deadline()), (Some(Interest::HangUp), None));
        assert_eq!(client.take(b"even more\n"), Ok(None));
    }

    #[test]
    fn the_head_of_a_request_ends_at_an_empty_line() {
        for (bytes, whole) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.0\n\n", true),
            ("\r\n", true),
        ] {
            for cut in 0..bytes.len() {
                let mut client = Client::new(Framing::Head, Instant::now());
                let first = client.take(&bytes.as_bytes()[..cut]).unwrap();
                let second = client.take(&bytes.as_bytes()[cut..]).unwrap();
                assert_eq!(first.or(second).is_some(), whole, "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn an_answer_is_written_in_pieces_and_in_time() {
        let now = Instant::now();
        let mut client = Client::new(Framing::Line, now);
        client.take(b"\n").unwrap();
        client.answer(b"answer".to_vec(), now + PATIENCE);
        client.sent(4);
        assert_eq!(client.unsent(), b"er");
        assert_eq!(client.deadline(), Some(now + PATIENCE * 2));
        client.sent(2);
        assert_eq!((client.interest(), client.unsent()), (None, &b""[..]));
    }

    proptest! {
        /// However the input is split, a short enough line comes out as it went in, and a longer one never does.
        #[test]
        fn no_more_is_kept_than_the_longest_request(
            length in prop_oneof![0..100_usize, LONGEST_REQUEST - 2..LONGEST_REQUEST + 3, Just(1 << 20)],
            piece in 1..5000_usize,
        ) {
            let mut client = Client::new(Framing::Line, Instant::now());
            let line = [vec![b'x'; length], vec![b'\n']].concat();
            let mut outcome = Ok(None);
            for piece in line.chunks(piece) {
                outcome = client.take(piece);
                if outcome != Ok(None) {
                    break;
                }
                let State::Reading { bytes, .. } = &client.state else { panic!() };
                prop_assert!(bytes.len() <= LONGEST_REQUEST);
            }
            match outcome {
                Ok(request) => prop_assert_eq!(request, (length <= LONGEST_REQUEST).then(|| vec![b'x'; length])),
                Err(TooLong) => prop_assert!(length > LONGEST_REQUEST),
            }
        }
    }
}
