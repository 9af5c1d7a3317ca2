//! The client's side: finding a running launcher, and asking it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::protocol::{Answer, Request, line};
use super::socket::{Place, all_in_runtime_directories, check_launcher, places};
use crate::host::Environment;
use crate::plan::Bind;
use crate::problem::{Exit, Problem};
use crate::settings::value::AutoPath;

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
    /// Finds the launcher that these settings describe. If there is none, but exactly one other, that one.
    ///
    /// # Errors
    /// If there is none, or if it must not be asked.
    pub fn find(setting: &AutoPath, env: &Environment, bind: &Bind, patience: Duration) -> Result<Self, Problem> {
        if *setting == AutoPath::Off {
            let problem =
                Problem::new(Exit::NoLauncher, "the control socket is switched off (MCP_LAUNCH_SOCKET=none)");
            return Err(problem.hint("start the launcher with a control socket"));
        }
        let expected = places(setting, env, bind);
        if let Some(found) = Self::connect(&expected, patience)?.pop() {
            return Ok(found);
        }
        let mut others = match setting {
            AutoPath::Auto => Self::connect(&all_in_runtime_directories(env), patience)?,
            AutoPath::At(_) | AutoPath::Off => Vec::new(),
        };
        let looked: Vec<String> = expected.iter().map(ToString::to_string).collect();
        let missing = Problem::new(Exit::NoLauncher, format!("no launcher is running at {}", looked.join(", ")));
        match (others.pop(), others.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(missing.hint("name its address (--port, --uds) or its socket (--socket)")),
            (Some(_), more) => {
                Err(missing.hint(format!("{} others are running: name one with --port or --socket", more + 1)))
            }
        }
    }

    /// The launchers that listen at these places. One of another user only counts if it was named.
    fn connect(places: &[Place], patience: Duration) -> Result<Vec<Self>, Problem> {
        let mut found = Vec::new();
        for place in places {
            let denied = |why: &str| Problem::new(Exit::No, format!("cannot talk to the launcher at {place}: {why}"));
            match place.connect(patience) {
                Ok(stream) => match check_launcher(&stream) {
                    Ok(()) => found.push(Self { stream, place: place.clone() }),
                    Err(why) => return Err(denied(&why)),
                },
                Err(Errno::EACCES) => {
                    return Err(denied("permission denied").hint("run this as the launcher's user, or as root"));
                }
                Err(Errno::EAGAIN) => return Err(denied("it does not accept connections")),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Sends a request and waits for the response.
    ///
    /// # Errors
    /// If it refused, or did not respond in time.
    pub fn ask(mut self, request: Request, patience: Option<Duration>) -> Result<Answer, Problem> {
        let trouble = |why: String| Problem::new(Exit::No, format!("the launcher at {} {why}", self.place));
        let deadline = patience.map(|patience| Instant::now() + patience);
        let _ = self.stream.set_write_timeout(Some(patience.unwrap_or(PATIENCE)));
        // If we were refused right after connecting, we cannot write any more, but can still read why.
        let _ = self.stream.write_all(&line(&request));
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
