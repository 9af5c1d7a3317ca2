//! How clients are distributed among the workers.

use super::Findings;
use crate::settings::Settings;
use crate::settings::value::Mode;

/// Where new clients go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Only to workers that can take them, and evenly: the launcher or the workers see to it.
    Even,
    /// The kernel and the server decide.
    ByKernel,
}

/// What the server makes possible.
#[derive(Debug)]
pub(super) enum Dealing {
    /// The workers share their listening sockets, and the guard accepts for the server.
    AmongWorkers {
        /// A condition that is not known to be met.
        condition: Option<String>,
    },
    /// Each worker has a listening socket from the launcher.
    AmongSockets,
    /// It is left to the kernel, for this reason.
    ByKernel(&'static str),
}

impl Dealing {
    /// Whether the workers distribute clients among themselves. Records the decision and the reason.
    pub(super) fn decide(&self, settings: &Settings, findings: &mut Findings) -> bool {
        let why_not = match (settings.balance.value, settings.mode.value) {
            (false, _) => Some(settings.balance.origin.to_string()),
            (true, Mode::Exec) => Some("in exec mode workers know nothing about each other".to_owned()),
            (true, Mode::Supervise) => None,
        };
        if let Some(why_not) = why_not {
            findings.decide("balance", "off", why_not);
            return false;
        }
        let condition = match self {
            Self::AmongWorkers { condition } => condition,
            Self::AmongSockets => {
                let because = "each worker has a listening socket from the launcher: new clients go at random to those \
                               that are not starting, full, leaving or silent";
                findings.decide("balance", "even", because);
                return false;
            }
            Self::ByKernel(why) => {
                findings.decide("balance", "by the kernel", *why);
                return false;
            }
        };
        let because = "the workers share the listening socket: those with fewer connections accept first, and those that \
                       are full, leaving or silent leave new clients to the others";
        match condition {
            None => findings.decide("balance", "even", because),
            Some(condition) => findings.decide("balance", format!("even {condition}"), because),
        }
        true
    }
}
