//! What the state machine needs to know about a plan.

use crate::ids::PlanId;
use crate::plan::Policy;
use crate::settings::value::Server;

/// What the state machine needs to know about a plan.
#[derive(Debug, Clone)]
pub struct PlanFacts {
    /// Its number.
    pub id: PlanId,
    /// How it is supervised.
    pub policy: Policy,
    /// Exit statuses that mean "cannot boot" when they come before readiness.
    pub boot_statuses: Vec<u8>,
    /// Whether a generation with it was ever ready.
    pub proven: bool,
    /// How many workers it has.
    pub workers: u32,
    /// Whether TTIN and TTOU change that number by one: Gunicorn.
    pub resizable: bool,
    /// Whether it is resizable and new clients can be distributed between two generations of this kind: each has a
    /// listening socket from us, and not a Unix socket, whose path only one of them can have.
    pub shareable: bool,
    /// What was chosen at run time, not by the settings.
    pub choice: Choice,
}

/// What was chosen at run time. It belongs to the plan that was made with it: when a reload fails, the old plan keeps
/// its own choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// The server of the last `reload --server`.
    pub server: Option<Server>,
    /// The workers of the last TTIN or TTOU.
    pub workers: Option<ChosenWorkers>,
}

/// A number of workers that replaces the one in the settings until that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenWorkers {
    /// The number.
    pub count: u32,
    /// The number in the settings when it was chosen.
    pub configured: u32,
}

impl Choice {
    /// With the requested server, if there is one. A chosen number of workers only applied to the previous server.
    #[must_use]
    pub const fn with_server(self, server: Option<Server>) -> Self {
        match server {
            Some(_) => Self { server, workers: None },
            None => self,
        }
    }

    /// The number of workers, if the settings say `configured` and a change is requested.
    #[must_use]
    pub fn with_workers(self, configured: u32, change: i32) -> Self {
        let before = self.workers.filter(|chosen| chosen.configured == configured);
        let count = before.map_or(configured, |chosen| chosen.count).saturating_add_signed(change).max(1);
        let workers = (count != configured).then_some(ChosenWorkers { count, configured });
        Self { workers, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_was_chosen_does_not_outlive_an_edit_of_the_settings() {
        let chosen = Choice::default().with_workers(2, 1);
        assert_eq!(chosen.workers.map(|workers| workers.count), Some(3));
        assert_eq!(chosen.with_workers(2, 1).workers.map(|workers| workers.count), Some(4));
        assert_eq!(chosen.with_workers(5, 0).workers, None, "the file has another count");
        assert_eq!(chosen.with_workers(2, -1).workers, None, "as in the settings again");
        assert_eq!(Choice::default().with_workers(1, -1).workers, None);
    }

    #[test]
    fn a_count_was_for_the_server_that_ran_then() {
        let chosen = Choice::default().with_workers(2, 1);
        assert_eq!(chosen.with_server(Some(Server::Granian)).workers, None);
        assert_eq!(chosen.with_server(None), chosen);
    }
}
