//! Reporting to a service manager: the datagrams of `sd_notify(3)` on `NOTIFY_SOCKET`, and the keep-alive of
//! `sd_watchdog_enabled(3)`. Nothing here blocks: what the socket does not accept now is sent again later.
//!
//! If our own settings limit how long a start or stop may take, the manager is asked for that much time, so that
//! neither side needs to know the other's limits. The loop itself feeds the watchdog, which therefore expires if the
//! loop hangs.
//!
//! Not the crate `sd-notify`: it opens a blocking socket for each message, reads the process's own environment, and
//! does not support abstract names; it would only replace the spelling of seven assignments.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::host::Environment;

/// How soon a message is sent again for which the socket had no room.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How many messages may wait; older ones are dropped.
const MOST_WAITING: usize = 16;
/// The keep-alive.
const ALIVE: &str = "WATCHDOG=1";
/// What is requested beyond the time that the settings allow, for the work between the steps.
const MARGIN: Duration = Duration::from_secs(5);

/// The connection to a service manager; without one, messages are dropped.
#[derive(Debug, Default)]
pub struct Notifier {
    way: Option<(UnixDatagram, SocketAddr)>,
    waiting: VecDeque<String>,
    retry_at: Option<Instant>,
    watchdog: Option<Watchdog>,
    /// Whether the manager knows that we are ready, so that we still are after a failed reload.
    reported_ready: bool,
}

#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    next: Instant,
}

impl Notifier {
    /// From the environment. An invalid address counts as none.
    #[must_use]
    pub fn from_environment(env: &Environment) -> Self {
        let variable = |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty());
        let Some(way) = variable("NOTIFY_SOCKET").and_then(|address| way(address)) else { return Self::default() };
        let number = |name: &str| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        // Without a pid it applies to any process.
        let is_ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
        let watchdog = limit.map(|limit| Watchdog {
            interval: Duration::from_micros(limit / 2).max(Duration::from_millis(1)),
            next: Instant::now(),
        });
        Self { way: Some(way), watchdog, ..Self::default() }
    }

    /// The service is ready.
    pub fn ready(&mut self, status: &str) {
        self.reported_ready = true;
        self.send(format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The service is ready as before, if it was.
    pub fn still_ready(&mut self, status: &str) {
        if self.reported_ready {
            self.ready(status);
        } else {
            self.status(status);
        }
    }

    /// A step on the way to readiness begins, and may take this long: the manager's own limit must not interrupt it.
    /// Once we have been ready there is no such limit, and this only changes the status text.
    pub fn starting(&mut self, status: &str, within: Duration) {
        if self.reported_ready {
            self.status(status);
        } else {
            self.send(format!("STATUS={}\n{}", one_line(status), patience(within)));
        }
    }

    /// We read our settings again and hand over.
    pub fn reloading(&mut self, within: Duration) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        let patience = patience(within);
        self.send(format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading\n{patience}", now.as_micros()));
    }

    /// We are about to end, which may take this long.
    pub fn stopping(&mut self, status: &str, within: Duration) {
        self.send(format!("STOPPING=1\nSTATUS={}\n{}", one_line(status), patience(within)));
    }

    /// The status as text.
    pub fn status(&mut self, status: &str) {
        self.send(format!("STATUS={}", one_line(status)));
    }

    /// The time at which [`Self::advance`] has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.watchdog.as_ref().map(|watchdog| watchdog.next)).min()
    }

    /// Sends waiting messages, and the keep-alive if it is due.
    pub fn advance(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now + watchdog.interval;
            // One keep-alive in the queue is enough: more of them would displace messages that matter.
            if !self.waiting.iter().any(|message| message == ALIVE) {
                self.send(ALIVE.to_owned());
            }
        }
    }

    fn send(&mut self, message: String) {
        if self.way.is_none() {
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
        self.flush();
    }

    fn flush(&mut self) {
        let Some((socket, address)) = &self.way else { return };
        self.retry_at = None;
        while let Some(message) = self.waiting.front() {
            match socket.send_to_addr(message.as_bytes(), address) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    return;
                }
                // There is no receiver, or we may not reach it; there is no remedy.
                _ => _ = self.waiting.pop_front(),
            }
        }
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn way(address: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(address),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

/// The assignment that extends the manager's limit for the current step to at least this time.
fn patience(within: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", (within + MARGIN).as_micros())
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(address: &str, more: &[(&str, &str)]) -> Notifier {
        let pairs = [("NOTIFY_SOCKET", address)].into_iter().chain(more.iter().copied());
        Notifier::from_environment(&pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut found = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            found.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        found
    }

    fn listener(directory: &tempfile::TempDir) -> (UnixDatagram, String) {
        let path = directory.path().join("notify");
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned())
    }

    #[test]
    fn states_are_shown_in_the_words_of_the_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = listener(&directory);
        let mut notifier = notifier(&path, &[]);
        notifier.still_ready("starting");
        notifier.starting("migrating", Duration::from_mins(5));
        notifier.ready("serving\nREADY=0");
        notifier.starting("respawn", Duration::from_mins(5));
        notifier.still_ready("the reload failed");
        notifier.stopping("stopping", Duration::from_secs(25));
        let expected = [
            "STATUS=starting",
            "STATUS=migrating\nEXTEND_TIMEOUT_USEC=305000000",
            "READY=1\nSTATUS=serving READY=0",
            "STATUS=respawn",
            "READY=1\nSTATUS=the reload failed",
            "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=30000000",
        ];
        assert_eq!(received(&socket), expected);
        notifier.reloading(Duration::from_mins(2));
        let told = received(&socket).concat();
        let stamp = told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(told.starts_with("RELOADING=1\n") && stamp.parse::<u64>().unwrap() > 0, "{told}");
    }

    #[test]
    fn names_in_the_abstract_namespace_work() {
        let name = format!("mcp-launch-test-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(&format!("@{name}"), &[]).status("here");
        assert_eq!(received(&socket), ["STATUS=here"]);
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_if_it_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = listener(&directory);
        let limit = ("WATCHDOG_USEC", "2000000");
        assert_eq!(notifier(&path, &[limit, ("WATCHDOG_PID", "1")]).next(), None);
        let own = std::process::id().to_string();
        for pid in [&[][..], &[("WATCHDOG_PID", own.as_str())]] {
            let mut notifier = notifier(&path, &[&[limit], pid].concat());
            let start = notifier.next().unwrap();
            notifier.advance(start);
            assert_eq!(received(&socket), ["WATCHDOG=1"]);
            assert_eq!(notifier.next(), Some(start + Duration::from_secs(1)));
            notifier.advance(start + Duration::from_millis(999));
            assert_eq!(received(&socket).len(), 0);
        }
    }

    #[test]
    fn a_socket_that_is_full_holds_nothing_up_and_gets_the_rest_later() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = listener(&directory);
        let mut notifier = notifier(&path, &[]);
        while notifier.waiting.is_empty() {
            notifier.status("filling");
        }
        notifier.ready("serving");
        received(&socket);
        notifier.advance(notifier.next().unwrap());
        assert_eq!(received(&socket).last().unwrap(), "READY=1\nSTATUS=serving");
        assert_eq!(notifier.next(), None);
    }

    #[test]
    fn unread_keep_alives_do_not_displace_the_ready_message() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = listener(&directory);
        let mut notifier = notifier(&path, &[("WATCHDOG_USEC", "2000000")]);
        let mut now = notifier.next().unwrap();
        while notifier.waiting.is_empty() {
            notifier.status("filling");
        }
        notifier.ready("serving");
        for _ in 0..2 * MOST_WAITING {
            now += Duration::from_secs(1);
            notifier.retry_at = None;
            notifier.advance(now);
        }
        received(&socket);
        notifier.flush();
        let told = received(&socket);
        assert!(told.iter().any(|message| message.starts_with("READY=1")), "{told:?}");
        assert_eq!(told.iter().filter(|message| *message == ALIVE).count(), 1);
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_is_due() {
        for address in ["", "/nonexistent/notify", "vsock:2:1", "relative"] {
            let mut notifier = notifier(address, &[("WATCHDOG_USEC", "0")]);
            notifier.ready("serving");
            assert_eq!(notifier.next(), None, "{address}");
        }
    }
}
