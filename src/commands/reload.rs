//! `reload`: hands over to a new generation, and reports the outcome.

use std::time::Duration;

use super::launcher::Directions;
use super::unexpected;
use crate::control::ask::PATIENCE;
use crate::control::protocol::{Answer, Request};
use crate::problem::{Exit, Problem};
use crate::settings::FlagLayer;
use crate::settings::value::Server;

pub(super) fn reload(flags: &FlagLayer, server: Option<Server>, timeout: Option<Duration>) -> Result<u8, Problem> {
    let patience = timeout.unwrap_or(PATIENCE).min(PATIENCE);
    let launcher = Directions::read(flags).find(patience)?;
    // A launcher that answers nothing at all would never report the outcome either.
    launcher.again(patience)?.ask(&Request::Ready, Some(patience))?;
    // Without a timeout, the launcher's own limits end it: those of the start, and those of a generation that stops
    // first.
    match launcher.ask(&Request::Reload { server }, timeout)? {
        Answer::Reloaded { generation, server, workers } => {
            Ok(super::print(format!("reloaded: generation {generation} serves ({server}, {workers} workers)\n")))
        }
        Answer::Kept { why, is_down } => {
            let state = if is_down { "and nothing serves" } else { "the old generation was kept" };
            Err(Problem::new(Exit::No, format!("not reloaded, {state}: {why}"))
                .hint("see the launcher's log for the output of the new generation"))
        }
        _ => Err(unexpected()),
    }
}
