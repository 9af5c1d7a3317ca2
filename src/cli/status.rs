//! The options of `status`.

use clap::{ArgMatches, Command};

use super::{finding_options, switch};

/// How `status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFormat {
    /// For people.
    Text,
    /// A JSON object.
    Json,
    /// Metrics in Prometheus's text format.
    Prometheus,
    /// How the last workers and servers ended.
    Ends {
        /// As a JSON array.
        json: bool,
    },
}

/// The command.
pub(super) fn command() -> Command {
    finding_options(Command::new("status").about("Show the state of the running launcher"))
        .arg(switch("json", "Print JSON").conflicts_with("prometheus"))
        .arg(switch("prometheus", "Print metrics for Prometheus"))
        .arg(switch("ends", "Print how the last workers and servers ended").conflicts_with("prometheus"))
}

/// What it asks for.
pub(super) fn format(matches: &ArgMatches) -> StatusFormat {
    let is_set = |name| matches.get_flag(name);
    match (is_set("json"), is_set("prometheus")) {
        (json, _) if is_set("ends") => StatusFormat::Ends { json },
        (true, _) => StatusFormat::Json,
        (_, true) => StatusFormat::Prometheus,
        _ => StatusFormat::Text,
    }
}
