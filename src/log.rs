//! The log: lines on standard error that never block the supervisor.
//!
//! A line goes into a bounded queue, and a thread writes it, the only thread in a launcher. If nobody reads the other end
//! of the pipe, the queue fills up, lines are dropped and counted, and the count is reported once there is room again.
//! The descriptor itself is never made non-blocking because that would affect every process that shares it.
//!
//! Not the crate `tracing-appender`: it counts lines instead of bytes, gives a descriptor that is non-blocking no second
//! chance, does not tell in the log what was dropped, waits for a stuck reader for 1 s at the end, and brings eleven crates.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::settings::value::{LogFormat, LogLevel};

/// What may wait to be written.
const CAPACITY: usize = 256 << 10;
/// How long the program waits at its end for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// The queue and its writer. Dropping it waits a little for what is still in the queue.
#[derive(Debug)]
pub struct Log(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    writing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut pending = self.lock();
        if pending.bytes + line.len() > CAPACITY {
            pending.dropped += 1;
        } else {
            pending.bytes += line.len();
            pending.lines.push_back(line);
            self.changed.notify_all();
        }
    }

    /// The writer's life. Writing to a closed descriptor fails and is forgotten: nobody is there to be told.
    fn write_forever(&self) {
        loop {
            let mut pending = self.lock();
            while pending.lines.is_empty() {
                pending.writing = false;
                self.changed.notify_all();
                pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(line) = pending.lines.pop_front() else { continue };
            pending.bytes -= line.len();
            pending.writing = true;
            let dropped = std::mem::take(&mut pending.dropped);
            drop(pending);
            write_all(&line);
            if dropped > 0 {
                write_all(
                    format!("mcp-launch: {dropped} log lines were dropped because nobody read them\n").as_bytes(),
                );
            }
        }
    }
}

/// Somebody else may have made the descriptor non-blocking; that must not cost us lines.
fn write_all(mut bytes: &[u8]) {
    let mut stderr = std::io::stderr();
    while !bytes.is_empty() {
        match stderr.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut fds =
                    [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&stderr), nix::poll::PollFlags::POLLOUT)];
                let _ = nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

impl Log {
    /// Starts the log of this program.
    #[must_use]
    pub fn start(level: LogLevel, format: LogFormat) -> Self {
        let log = Self::with_writer();
        let level = match level {
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Warning => tracing::Level::WARN,
            LogLevel::Error => tracing::Level::ERROR,
        };
        let builder = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_target(false)
            .with_ansi(wants_colour(&std::io::stderr()))
            .with_writer(Sink(Arc::clone(&log.0)));
        let _ = match format {
            LogFormat::Text => tracing::subscriber::set_global_default(builder.finish()),
            LogFormat::Json => tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish()),
        };
        log
    }

    /// An empty queue and the thread that writes what comes into it.
    fn with_writer() -> Self {
        let queue = Arc::<Queue>::default();
        let writer = Arc::clone(&queue);
        // Without a thread the lines stay in the queue; the supervisor goes on.
        let _ =
            std::thread::Builder::new().name("log".into()).stack_size(64 << 10).spawn(move || writer.write_forever());
        Self(queue)
    }

    /// Waits until everything is written, for half a second at most.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_WITHIN;
        let mut pending = self.0.lock();
        while pending.writing || !pending.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            pending = self.0.changed.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes a text to standard error where there is no log, and waits for its reader no longer than the log does at
/// its end.
pub fn say(text: &str) {
    let log = Log::with_writer();
    log.0.push(text.as_bytes().to_vec());
    log.flush();
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether a stream is to have colour: only a terminal, and only if nobody set `NO_COLOR` (no-color.org).
#[must_use]
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Hands the subscriber a buffer for each line.
struct Sink(Arc<Queue>);

/// One line on its way into the queue.
struct LogLine {
    queue: Arc<Queue>,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: Arc::clone(&self.0), text: Vec::new() }
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.queue.push(std::mem::take(&mut self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let queue = Queue::default();
        for _ in 0..CAPACITY {
            queue.push(vec![b'x'; 1024]);
        }
        let pending = queue.lock();
        assert_eq!(pending.bytes, CAPACITY);
        assert_eq!(pending.dropped, (CAPACITY - CAPACITY / 1024) as u64);
    }
}
