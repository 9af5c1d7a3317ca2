//! What is going on, in one line of a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::options::Options;
use super::schedule::{ScheduleStep, load_time};

/// The line.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    began: Instant,
    /// The load of the steps that are over, and of those that are not.
    done: Duration,
    left: Duration,
    steps_done: u32,
    steps_left: u32,
    step: String,
}

impl Progress {
    /// Nothing is done yet of these steps.
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

    /// What is being done in this step.
    pub fn say(&self, what: &str) {
        let left = self.estimate().map_or_else(String::new, |left| format!(", about {} s left", left.as_secs()));
        self.write(&format!("compare: {}, {what}{left}", self.step));
    }

    /// How much longer: the load that is known, and for each step what starts and stops have taken so far.
    fn estimate(&self) -> Option<Duration> {
        let overhead = self.began.elapsed().saturating_sub(self.done).checked_div(self.steps_done)?;
        Some(self.left + overhead * self.steps_left)
    }

    fn write(&self, line: &str) {
        if self.shown {
            // Back to the first column, and what was there is erased (ECMA-48, EL).
            let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.write("");
    }
}
