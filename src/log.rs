//! The log: lines on standard error that never block the supervisor.
//!
//! A line goes into a bounded queue, and a thread writes it. If nobody reads the other end of the pipe, the queue fills
//! up, lines are dropped and counted, and the count is reported once there is room again. The descriptor itself is
//! never made non-blocking because that would affect every process that shares it. If no thread can be started, the
//! thread that logs writes what can be written without waiting, and the rest stays in the queue until the next line.
//!
//! Not the crate `tracing-appender`: it counts lines instead of bytes, does not retry on a non-blocking descriptor,
//! does not log what was dropped, waits for a stuck reader for 1 s at the end, and brings eleven crates.

mod json_lines;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::settings::value::{LogFormat, LogLevel};
use crate::sys::write::write_now;
use json_lines::JsonLines;

/// How many bytes may wait to be written.
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
    /// Whether each line is a JSON object.
    is_json: bool,
    /// Whether there is no thread that writes.
    is_alone: bool,
}

impl Pending {
    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    fn put_back(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_front(line);
    }

    /// There is room again: the next line reports how many were dropped.
    fn tell_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let what = format!("{dropped} log lines were dropped because nobody read them");
            let line = if self.is_json { json_warning(&what) } else { format!("mcp-launch: {what}\n") };
            self.put_back(line.into_bytes());
        }
    }

    /// Writes as much as possible without waiting. Errors are ignored: there is no place to report them.
    fn write_now(&mut self, out: BorrowedFd<'_>) {
        while let Some(mut line) = self.take() {
            match write_now(out, &line) {
                Ok(written) if written == line.len() => self.tell_dropped(),
                Ok(written) => {
                    line.drain(..written);
                    self.put_back(line);
                }
                Err(Errno::EAGAIN) => return self.put_back(line),
                Err(_) => {}
            }
        }
    }
}

/// A line as the subscriber formats it, which cannot be asked while it has an event.
fn json_warning(message: &str) -> String {
    let mut timestamp = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    format!("{{\"timestamp\":\"{timestamp}\",\"level\":\"WARN\",\"message\":\"{message}\"}}\n")
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
        if pending.is_alone {
            pending.write_now(std::io::stderr().as_fd());
        }
    }

    /// The writer thread. Errors such as those of a closed descriptor are ignored: there is no place to report them.
    fn write_forever(&self) {
        loop {
            let mut pending = self.lock();
            while pending.lines.is_empty() {
                pending.writing = false;
                self.changed.notify_all();
                pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(line) = pending.take() else { continue };
            pending.writing = true;
            pending.tell_dropped();
            drop(pending);
            write_all(&line);
        }
    }
}

/// Another process may have made the descriptor non-blocking; that must not lose lines.
fn write_all(mut bytes: &[u8]) {
    let mut stderr = std::io::stderr();
    while !bytes.is_empty() {
        match stderr.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

impl Log {
    /// Starts the log of this program.
    #[must_use]
    pub fn start(level: LogLevel, format: LogFormat) -> Self {
        let log = Self::with_writer(format);
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
            LogFormat::Json => {
                let builder = builder.json().flatten_event(true).map_event_format(JsonLines);
                tracing::subscriber::set_global_default(builder.finish())
            }
        };
        log
    }

    /// An empty queue and the thread that writes its lines.
    fn with_writer(format: LogFormat) -> Self {
        let queue = Arc::<Queue>::default();
        queue.lock().is_json = format == LogFormat::Json;
        let writer = Arc::clone(&queue);
        let builder = std::thread::Builder::new().name("log".into()).stack_size(64 << 10);
        queue.lock().is_alone = builder.spawn(move || writer.write_forever()).is_err();
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
            if pending.is_alone {
                let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
                let _ = poll(&mut [PollFd::new(std::io::stderr().as_fd(), PollFlags::POLLOUT)], millis);
                pending.write_now(std::io::stderr().as_fd());
                continue;
            }
            pending = self.0.changed.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes a text to standard error if there is no log, and waits for its reader no longer than the log does at its end.
pub fn say(text: &str) {
    let log = Log::with_writer(LogFormat::Text);
    log.0.push(text.as_bytes().to_vec());
    log.flush();
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether a stream gets colour: only a terminal, and only if `NO_COLOR` is not set (no-color.org).
#[must_use]
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Gives the subscriber a buffer for each line.
struct Sink(Arc<Queue>);

/// One line to be added to the queue.
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

    #[test]
    fn in_a_json_log_the_line_about_dropped_lines_is_json() {
        let mut pending = Pending { dropped: 3, is_json: true, ..Pending::default() };
        pending.tell_dropped();
        let line: serde_json::Value = serde_json::from_slice(&pending.take().unwrap()).unwrap();
        assert_eq!(
            (&line["level"], line["message"].as_str().map(|text| &text[..11])),
            (&"WARN".into(), Some("3 log lines"))
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn without_a_thread_what_is_taken_is_written_and_the_rest_waits_for_the_next_line() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let queue = Queue::default();
        for number in 0..2000 {
            queue.push(format!("{number:0>200}\n").into_bytes());
            queue.lock().write_now(writer.as_fd());
        }
        let pending = queue.lock().bytes;
        assert!(pending > 0 && queue.lock().dropped > 0, "{pending}");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
            text
        });
        while queue.lock().bytes > 0 {
            queue.lock().write_now(writer.as_fd());
        }
        drop(writer);
        let text = read.join().unwrap();
        let (dropped, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("dropped"));
        assert!(
            lines.iter().enumerate().all(|(at, line)| **line == format!("{at:0>200}")),
            "in order, each complete"
        );
        let [dropped] = dropped[..] else { panic!("{dropped:?}") };
        assert!(dropped.contains(&format!(" {} log lines", 2000 - lines.len())), "{dropped}");
    }
}
