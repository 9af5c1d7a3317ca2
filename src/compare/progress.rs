//! The progress, in one line of a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::options::Options;
use super::schedule::{ScheduleStep, load_time};

/// The line.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    began: Instant,
    /// How much load is done, and how much is left.
    done: Duration,
    left: Duration,
    steps_done: u32,
    steps_left: u32,
    step: String,
}

impl Progress {
    /// None of these steps is done yet.
    #[must_use]
    pub fn new(steps: &[ScheduleStep], options: &Options) -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            began: Instant::now(),
            done: Duration::ZERO,
            left: steps.iter().map(|step| load_time(*step, options)).sum(),
            steps_done: 0,
            steps_left: u32::try_from(steps.len()).unwrap_or(u32::MAX),
            step: String::new(),
        }
    }

    /// A step begins.
    pub fn begin(&mut self, step: ScheduleStep, options: &Options) {
        self.step = match step {
            ScheduleStep::Try(server) => format!("{server}: trying"),
            ScheduleStep::Round(server, round) => format!("{server}: round {round} of {}", options.rounds),
            ScheduleStep::Stress(server, round) => format!("{server}: stress {round} of {}", options.rounds),
        };
        self.say("starting");
    }

    /// A step is over.
    pub fn end(&mut self, step: ScheduleStep, options: &Options) {
        let load = load_time(step, options);
        self.done += load;
        self.left = self.left.saturating_sub(load);
        self.steps_done += 1;
        self.steps_left = self.steps_left.saturating_sub(1);
    }

    /// What is being done, and how much longer it will take.
    pub fn say(&self, what: &str) {
        let left = self.estimate().map_or_else(String::new, |left| format!(", about {} s left", left.as_secs()));
        self.write(&format!("compare: {}, {what}{left}", self.step));
    }

    /// The remaining time: the load is known in advance; for each step, starts and stops are estimated from the steps
    /// so far.
    fn estimate(&self) -> Option<Duration> {
        let overhead = self.began.elapsed().saturating_sub(self.done).checked_div(self.steps_done)?;
        Some(self.left + overhead * self.steps_left)
    }

    fn write(&self, line: &str) {
        if self.shown {
            // Returns to the first column, and erases the line (ECMA-48, EL).
            let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.write("");
    }
}
