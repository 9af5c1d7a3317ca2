//! How many requests a worker may have in progress: a number, or found while it runs.

use std::fmt;

use super::Findings;
use super::common::Common;
use crate::problem::Origin;
use crate::settings::Settings;
use crate::settings::value::{Backpressure, Mode, Server};

/// The range of a limit that is found while it runs, and where it begins.
const LEAST: u64 = 4;
const START: u64 = 64;
const MOST: u64 = 1024;
/// Granian's limit if none is set, as in the table of options.
const GRANIANS_DEFAULT: u64 = 512;

/// How many requests a worker may have in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestLimit {
    /// This many.
    Fixed(u64),
    /// As many as it can handle without a queue, and at most this many.
    Adaptive {
        /// The highest number.
        most: u64,
    },
}

impl RequestLimit {
    /// What the setting asks for, if that is possible.
    const fn of(backpressure: Backpressure) -> Self {
        match backpressure {
            Backpressure::Limit(number) => Self::Fixed(number),
            Backpressure::Auto => Self::Adaptive { most: MOST },
        }
    }

    /// The lowest limit that there may be.
    #[must_use]
    pub const fn least(self) -> u64 {
        match self {
            Self::Fixed(number) => number,
            Self::Adaptive { .. } => LEAST,
        }
    }

    /// The limit of a new worker.
    #[must_use]
    pub const fn start(self) -> u64 {
        match self {
            Self::Adaptive { most } if most >= START => START,
            Self::Fixed(most) | Self::Adaptive { most } => most,
        }
    }

    /// The highest limit that there may be.
    #[must_use]
    pub const fn most(self) -> u64 {
        match self {
            Self::Fixed(number) => number,
            Self::Adaptive { most } => most,
        }
    }

    /// The number, if it is always the same.
    #[must_use]
    pub const fn fixed(self) -> Option<u64> {
        match self {
            Self::Fixed(number) => Some(number),
            Self::Adaptive { .. } => None,
        }
    }

    /// Whether it is found while it runs.
    #[must_use]
    pub const fn adapts(self) -> bool {
        matches!(self, Self::Adaptive { .. })
    }

    /// As much of it as this many threads allow; none if these are too few.
    pub(super) fn within(self, threads: u64) -> Option<Self> {
        match self {
            Self::Fixed(number) => (number <= threads).then_some(self),
            Self::Adaptive { most } => (threads >= LEAST).then(|| Self::Adaptive { most: most.min(threads) }),
        }
    }
}

impl fmt::Display for RequestLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(number) => number.fmt(f),
            Self::Adaptive { .. } => f.write_str("auto"),
        }
    }
}

/// The highest limit that the setting allows.
pub(super) const fn most(backpressure: Backpressure) -> u64 {
    RequestLimit::of(backpressure).most()
}

/// The number that the server and the app see in the environment: the limit at first.
pub(super) fn exported(backpressure: Backpressure) -> String {
    RequestLimit::of(backpressure).start().to_string()
}

/// The number for Granian itself if the guard is not in its workers.
pub(super) const fn without_guard(granian: Backpressure) -> u64 {
    match granian {
        Backpressure::Limit(number) => number,
        Backpressure::Auto => GRANIANS_DEFAULT,
    }
}

/// The limit that is asked for. Where it cannot adapt, the default takes its place, with a warning. `has_reports`: whether
/// workers have a scoreboard.
pub(super) fn asked(
    settings: &Settings,
    server: Server,
    has_reports: bool,
    findings: &mut Findings,
) -> Option<RequestLimit> {
    let backpressure = Common::of(server, settings).backpressure.0?;
    let why_not = match settings.mode.value {
        Mode::Exec => "in exec mode no launcher is left to adjust the limit",
        Mode::Supervise if !has_reports => "the server does not tell the app when it starts (lifespan)",
        Mode::Supervise => return Some(RequestLimit::of(backpressure)),
    };
    warn_without_effect(settings, server, why_not, findings);
    match backpressure {
        Backpressure::Limit(number) => Some(RequestLimit::Fixed(number)),
        Backpressure::Auto => (server == Server::Granian).then_some(RequestLimit::Fixed(GRANIANS_DEFAULT)),
    }
}

/// Warns about a limit that was to be found out and will not be.
pub(super) fn warn_without_effect(settings: &Settings, server: Server, why: &str, findings: &mut Findings) {
    if let (Some(Backpressure::Auto), origin) = Common::of(server, settings).backpressure {
        let instead = match server {
            Server::Gunicorn => "there is no limit".to_owned(),
            Server::Granian => format!("the limit is {GRANIANS_DEFAULT}"),
        };
        findings.warn(format!("backpressure = auto (from {origin}) has no effect: {why}; {instead}"));
    }
}

/// What the setting means, for the reasons of the plan.
pub(super) fn explain(limit: RequestLimit, origin: &Origin, note: &str) -> String {
    match limit {
        RequestLimit::Fixed(_) => format!("{origin}{note}: further requests in a worker are answered 503 at once"),
        RequestLimit::Adaptive { most } => format!(
            "{origin}{note}: {LEAST} to {most} requests per worker, {} at first, as many as its latency and event loop \
             lag allow; further requests in a worker are answered 503 at once",
            limit.start()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::plan::tests::{installed_host, planned, resolution};

    fn plan(env: &[(&str, &str)]) -> Plan {
        let auto = [("GUNICORN_BACKPRESSURE", "auto"), ("GRANIAN_BACKPRESSURE", "auto")];
        planned(&[&auto, env].concat(), &installed_host())
    }

    fn warned(plan: &Plan) -> Option<&String> {
        plan.warnings.iter().find(|warning| warning.contains("backpressure"))
    }

    #[test]
    fn a_limit_that_adapts_is_explained_and_exported_as_a_number() {
        for server in ["gunicorn", "granian"] {
            let plan = plan(&[("HTTP_SERVER", server)]);
            assert_eq!(plan.limit, Some(RequestLimit::Adaptive { most: 1024 }), "{server}");
            assert_eq!(warned(&plan), None);
            let reason = plan.reasons.iter().find(|reason| reason.topic == "guard").unwrap();
            assert_eq!(reason.decision, "limit auto");
            assert!(reason.because.contains("4 to 1024 requests per worker, 64 at first"), "{}", reason.because);
            let name = format!("{}_BACKPRESSURE", server.to_uppercase());
            assert_eq!(plan.env.get(std::ffi::OsStr::new(&name)).unwrap(), "64", "the app may read it as a number");
        }
    }

    #[test]
    fn where_it_cannot_adapt_the_default_holds_with_a_warning() {
        for (server, env, limit, why) in [
            ("gunicorn", ("MCP_LAUNCH_GUARD", "off"), None, "the guard is off (environment MCP_LAUNCH_GUARD)"),
            ("granian", ("MCP_LAUNCH_GUARD", "off"), None, "the guard is off (environment MCP_LAUNCH_GUARD)"),
            ("gunicorn", ("MCP_LAUNCH_MODE", "exec"), None, "in exec mode"),
            ("granian", ("MCP_LAUNCH_MODE", "exec"), Some(RequestLimit::Fixed(512)), "in exec mode"),
            ("granian", ("GRANIAN_INTERFACE", "asginl"), Some(RequestLimit::Fixed(512)), "lifespan"),
        ] {
            let plan = plan(&[("HTTP_SERVER", server), env]);
            assert_eq!(plan.limit, limit, "{server} {env:?}");
            let warning = warned(&plan).unwrap();
            let name = format!("environment {}_BACKPRESSURE", server.to_uppercase());
            assert!(warning.contains(&name) && warning.contains(why), "{warning}");
        }
    }

    #[test]
    fn the_default_is_that_of_the_table() {
        let default = resolution(&[]).settings.granian_backpressure.value;
        assert_eq!(default, Backpressure::Limit(GRANIANS_DEFAULT));
    }
}
