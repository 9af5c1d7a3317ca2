//! `status`: what the running launcher is doing.

use std::time::UNIX_EPOCH;

use super::launcher::Directions;
use super::unexpected;
use crate::cli::StatusFormat;
use crate::control::ask::PATIENCE;
use crate::control::protocol::{Answer, Request};
use crate::control::{end, prometheus, table};
use crate::problem::Problem;
use crate::settings::FlagLayer;

pub(super) fn status(flags: &FlagLayer, format: StatusFormat) -> Result<u8, Problem> {
    let launcher = Directions::read(flags).find(PATIENCE)?;
    let Answer::Status(status) = launcher.ask(&Request::Status, Some(PATIENCE))? else { return Err(unexpected()) };
    Ok(super::print(match format {
        StatusFormat::Text => table::table(&status),
        StatusFormat::Json => super::json(&status),
        StatusFormat::Prometheus => prometheus::metrics(&status),
        StatusFormat::Ends { json: true } => super::json(&status.ends.unwrap_or_default()),
        StatusFormat::Ends { json: false } => {
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
            end::text(&status.ends.unwrap_or_default(), now)
        }
    }))
}
