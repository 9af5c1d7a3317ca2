//! The live view: one loop that waits for keys, signals, answers and the next look.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};

use super::asker::Asker;
use super::events::Events;
use super::keys::{Key, Keys};
use super::reading::Reading;
use super::screen::{View, draw};
use super::table::Sorting;
use super::terminal::Terminal;
use crate::control::ask::Launcher;
use crate::control::protocol::Status;
use crate::problem::{Exit, Problem};
use crate::run::signals::BlockedSignals;
use crate::sys::write::write_now;
use crate::sys::{SignalState, set_mask};

/// The signals that end it; then those that concern the terminal.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
const OF_TERMINAL: [i32; 3] = [libc::SIGWINCH, libc::SIGTSTP, libc::SIGCONT];

/// Shows the launcher until the user or the launcher ends it.
pub(super) fn run(launcher: Launcher, interval: Duration, inherited: SignalState) -> Result<u8, Problem> {
    let cannot = |error: &dyn std::fmt::Display| Problem::new(Exit::No, format!("cannot use the terminal: {error}"));
    let first = super::ask(&launcher)?;
    let signals = BlockedSignals::install(&[&ENDING[..], &OF_TERMINAL[..]].concat(), inherited);
    let signals = signals.map_err(|error| cannot(&error))?;
    // Its thread inherits the mask.
    let asker = Asker::start(launcher)?;
    let terminal = Terminal::enter().map_err(|error| cannot(&error))?;
    let mut live = Live {
        terminal,
        asker,
        signals,
        inherited,
        interval,
        keys: Keys::default(),
        events: Events::new(&first),
        reading: Reading::new(first),
        sorting: Sorting::default(),
        offset: 0,
        columns: 1,
        most_offset: 0,
        notice: None,
        next: Instant::now() + interval.min(FIRST),
        unsent: Vec::new(),
        is_stale: true,
    };
    live.run()
}

/// The first look comes earlier than usual: shares of the CPU need two.
const FIRST: Duration = Duration::from_millis(500);

struct Live {
    terminal: Terminal,
    asker: Asker,
    signals: BlockedSignals,
    inherited: SignalState,
    interval: Duration,
    keys: Keys,
    events: Events,
    reading: Reading,
    sorting: Sorting,
    offset: usize,
    /// How many columns were drawn, and how far one can scroll.
    columns: usize,
    most_offset: usize,
    /// Why there are no new numbers.
    notice: Option<String>,
    /// When to look next.
    next: Instant,
    /// What the terminal has not taken yet.
    unsent: Vec<u8>,
    /// Whether something else is to be shown than was drawn.
    is_stale: bool,
}

/// What has to be attended to.
#[allow(clippy::struct_excessive_bools, reason = "each is a descriptor")]
#[derive(Debug, Clone, Copy)]
struct Ready {
    keys: bool,
    hung_up: bool,
    signals: bool,
    answer: bool,
}

impl Live {
    fn run(&mut self) -> Result<u8, Problem> {
        loop {
            let ready = self.wait();
            if let Some(status) = self.take_signals(ready).or_else(|| self.take_keys(ready)) {
                return Ok(status);
            }
            if ready.answer {
                self.take_answer()?;
            }
            if Instant::now() >= self.next {
                self.next = Instant::now() + self.interval;
                self.asker.ask();
            }
            if self.is_stale && self.unsent.is_empty() {
                self.draw();
            }
            self.write();
        }
    }

    /// Waits until something has to be done.
    fn wait(&self) -> Ready {
        let output = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let mut fds = [
            PollFd::new(self.terminal.input(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.asker.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.terminal.output(), output),
        ];
        let rest = self.next.saturating_duration_since(Instant::now());
        // Rounded up, so that it does not wake too early.
        let rest = rest.as_millis().saturating_add(1).min(60_000);
        let _ = poll(&mut fds, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX));
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        let has = |index: usize, flags: PollFlags| fds[index].revents().is_some_and(|found| found.intersects(flags));
        Ready {
            keys: has(0, PollFlags::POLLIN),
            hung_up: [0, 3].into_iter().any(|index| has(index, gone)),
            signals: has(1, PollFlags::POLLIN),
            answer: has(2, PollFlags::POLLIN),
        }
    }

    /// Returns the status to end with, as a shell reports the signal.
    fn take_signals(&mut self, ready: Ready) -> Option<u8> {
        if !ready.signals {
            return None;
        }
        let received = self.signals.drain();
        if let Some(signal) = received.iter().find(|signal| ENDING.contains(signal)) {
            return u8::try_from(128 + signal).ok();
        }
        if received.contains(&libc::SIGTSTP) {
            self.suspend();
        } else if received.contains(&libc::SIGCONT) {
            self.take_terminal();
        }
        self.is_stale = true;
        None
    }

    /// The same for keys.
    fn take_keys(&mut self, ready: Ready) -> Option<u8> {
        let mut buffer = [0; 256];
        let length = match ready.keys.then(|| nix::unistd::read(self.terminal.input(), &mut buffer)) {
            Some(Ok(length @ 1..)) => length,
            Some(Err(Errno::EINTR | Errno::EAGAIN)) => 0,
            // The terminal is gone.
            Some(_) => return u8::try_from(128 + libc::SIGHUP).ok(),
            None if ready.hung_up => return u8::try_from(128 + libc::SIGHUP).ok(),
            None => 0,
        };
        let keys = self.keys.take(&buffer[..length]);
        if keys.contains(&Key::Quit) {
            return Some(Exit::Success.code());
        }
        for key in keys {
            self.obey(key);
        }
        None
    }

    fn obey(&mut self, key: Key) {
        match key {
            Key::Suspend => self.suspend(),
            Key::Right => self.sorting.move_by(true, self.columns),
            Key::Left => self.sorting.move_by(false, self.columns),
            Key::Reverse => self.sorting.reverse(),
            Key::Up => self.offset = self.offset.saturating_sub(1),
            Key::Down => self.offset = (self.offset + 1).min(self.most_offset),
            Key::Refresh => self.next = Instant::now(),
            Key::Quit => {}
        }
        self.is_stale = true;
    }

    /// Stops until a shell continues us. Without job control, in a container for instance, the kernel ignores the
    /// signal, and we go on at once.
    fn suspend(&mut self) {
        self.terminal.release();
        let blocked =
            [&ENDING[..], &OF_TERMINAL[..]].concat().iter().fold(0, |mask, signal| mask | 1 << (signal - 1));
        let _ = raise(Signal::SIGTSTP);
        set_mask(self.inherited.blocked);
        set_mask(self.inherited.blocked | blocked);
        self.take_terminal();
    }

    fn take_terminal(&mut self) {
        // If that fails, the terminal is gone, and reading from it says so.
        let _ = self.terminal.take();
        self.unsent.clear();
        self.is_stale = true;
    }

    fn take_answer(&mut self) -> Result<(), Problem> {
        self.is_stale = true;
        match self.asker.answer() {
            Some(Ok(status)) => self.show(status),
            Some(Err(problem)) if problem.exit == Exit::NoLauncher => return Err(problem),
            Some(Err(problem)) => self.notice = Some(problem.to_string()),
            None => {}
        }
        Ok(())
    }

    fn show(&mut self, status: Status) {
        self.notice = None;
        self.events.add(&self.reading.status, &status);
        self.reading = self.reading.next(status);
    }

    fn draw(&mut self) {
        let (width, height) = self.terminal.size();
        let view = View {
            reading: &self.reading,
            events: &self.events,
            sorting: self.sorting,
            offset: self.offset,
            notice: self.notice.as_deref(),
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let frame = draw(&view, width, height);
        (self.columns, self.most_offset) = (frame.columns, frame.most_offset);
        self.offset = self.offset.min(frame.most_offset);
        // Line by line, which does not flicker as clearing the screen would.
        let lines: Vec<String> = frame.lines.iter().map(|line| format!("\u{1b}[K{line}")).collect();
        self.unsent = format!("\u{1b}[H{}", lines.join("\r\n")).into_bytes();
        self.is_stale = false;
    }

    /// Writes what the terminal takes.
    fn write(&mut self) {
        while !self.unsent.is_empty() {
            match write_now(self.terminal.output(), &self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // Its end is seen when it is read from.
                Err(_) => self.unsent.clear(),
            }
        }
    }
}
