//! The status as a live view: the numbers of each worker, the generations, and what has happened.
//!
//! [`reading`] turns two answers of the launcher into numbers, [`table`] has the columns, [`events`] finds what has
//! happened between two answers, [`screen`] arranges all of it, [`keys`] understands what is typed: these are pure.
//! [`live`] shows it on a [`terminal`], and [`asker`] asks the launcher meanwhile.

mod asker;
mod events;
mod keys;
mod live;
mod reading;
mod screen;
mod table;
mod terminal;

use std::io::Write;
use std::time::Duration;

use crate::control::ask::{Launcher, PATIENCE};
use crate::control::protocol::{Answer, Request, Status};
use crate::problem::{Exit, Problem};
use crate::sys::SignalState;
use reading::Reading;

/// The time between two looks, unless another one is chosen.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the user has chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The time between two looks.
    pub interval: Option<Duration>,
    /// Only one look, as plain text.
    pub once: bool,
}

/// Shows the launcher until the user or the launcher ends it. Without a terminal: prints one table, or one per interval
/// if there is one.
///
/// # Errors
/// If the launcher does not answer, or ends.
pub fn run(launcher: Launcher, options: Options, inherited: SignalState) -> Result<u8, Problem> {
    let interval = options.interval.unwrap_or(INTERVAL);
    if !options.once && terminal::is_usable() {
        return live::run(launcher, interval, inherited);
    }
    let is_endless = !options.once && options.interval.is_some();
    print(&launcher, interval, is_endless)
}

/// Asks once.
fn ask(launcher: &Launcher) -> Result<Status, Problem> {
    match launcher.again(PATIENCE)?.ask(&Request::Status, Some(PATIENCE))? {
        Answer::Status(status) => Ok(status),
        _ => Err(Problem::new(Exit::No, "the launcher sent an unexpected response")),
    }
}

/// Prints plain tables. The first one comes after an interval, because shares of the CPU need two looks.
fn print(launcher: &Launcher, interval: Duration, is_endless: bool) -> Result<u8, Problem> {
    let mut reading = Reading::new(ask(launcher)?);
    loop {
        std::thread::sleep(interval);
        reading = reading.next(ask(launcher)?);
        let mut text = screen::plain(&reading).join("\n") + "\n";
        if is_endless {
            text.push('\n');
        }
        let mut out = std::io::stdout().lock();
        let is_read = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
        if !is_endless || !is_read {
            return Ok(Exit::Success.code());
        }
    }
}
