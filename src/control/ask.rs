//! The client's side: asking a running launcher.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::find::{Found, Wanted, find};
use super::protocol::{Answer, Request, line};
use super::socket::Place;
use crate::host::Environment;
use crate::problem::{Exit, Problem};

/// Longer than any response; a process that is not a launcher must not fill our memory.
const LONGEST_ANSWER: u64 = 64 << 20;
/// How long a launcher may take to accept, and to answer requests that it can answer at once.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A running launcher that we are connected to.
#[derive(Debug)]
pub struct Launcher {
    stream: UnixStream,
    place: Place,
}

impl Launcher {
    /// Finds the launcher that is meant.
    ///
    /// # Errors
    /// That there is none, that it may not be asked, or that there are several.
    pub fn find(wanted: &Wanted, env: &Environment, patience: Duration) -> Result<Self, Problem> {
        let Found { stream, place } = find(wanted, env, patience)?;
        Ok(Self { stream, place })
    }

    /// Connects once more: a launcher answers one request on each connection.
    ///
    /// # Errors
    /// That it is not there any more.
    pub fn again(&self, patience: Duration) -> Result<Self, Problem> {
        let gone = || Problem::new(Exit::NoLauncher, format!("there is no launcher at {} any more", self.place));
        let (stream, _) = self.place.own(patience).map_err(|_| gone())?;
        Ok(Self { stream, place: self.place.clone() })
    }

    /// Sends a request and waits for the response.
    ///
    /// # Errors
    /// If it refused, or did not respond in time.
    pub fn ask(mut self, request: &Request, patience: Option<Duration>) -> Result<Answer, Problem> {
        let trouble = |why: String| Problem::new(Exit::No, format!("the launcher at {} {why}", self.place));
        let deadline = patience.map(|patience| Instant::now() + patience);
        let _ = self.stream.set_write_timeout(Some(patience.unwrap_or(PATIENCE)));
        // If we were refused right after connecting, we cannot write any more, but can still read why.
        let _ = self.stream.write_all(&line(request));
        let mut reader = BufReader::new((&self.stream).take(LONGEST_ANSWER));
        let mut text = Vec::new();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(trouble("did not respond in time".to_owned()));
            }
            let _ = self.stream.set_read_timeout(left);
            match reader.read_until(b'\n', &mut text) {
                Ok(_) => break,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(trouble(format!("closed the connection: {error}"))),
            }
        }
        match serde_json::from_slice(&text) {
            Ok(Answer::Refused { why }) => Err(trouble(format!("refused: {why}"))),
            Ok(answer) => Ok(answer),
            Err(_) if text.is_empty() => Err(trouble("ended before it responded".to_owned())),
            Err(error) => Err(trouble(format!("sent a response that this version does not understand: {error}"))),
        }
    }
}
