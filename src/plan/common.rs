//! The settings that every server has under its own name.

use crate::problem::Origin;
use crate::settings::value::{Backpressure, Server, Workers};
use crate::settings::{Setting, Settings};

/// One server's values of the common settings.
#[derive(Debug)]
pub(super) struct Common<'a> {
    /// How many workers.
    pub workers: &'a Setting<Workers>,
    /// Reload when the code changes.
    pub dev_mode: &'a Setting<bool>,
    /// Connections that may wait to be accepted.
    pub backlog: (u64, &'a Origin),
    /// Requests that a worker may have in flight.
    pub backpressure: (Option<Backpressure>, &'a Origin),
}

impl<'a> Common<'a> {
    /// Those of one server.
    pub(super) fn of(server: Server, settings: &'a Settings) -> Self {
        let s = settings;
        match server {
            Server::Gunicorn => Self {
                workers: &s.gunicorn_workers,
                dev_mode: &s.gunicorn_dev_mode,
                backlog: (s.gunicorn_backlog.value.0, &s.gunicorn_backlog.origin),
                backpressure: (s.gunicorn_backpressure.value, &s.gunicorn_backpressure.origin),
            },
            Server::Granian => Self {
                workers: &s.granian_workers,
                dev_mode: &s.granian_dev_mode,
                backlog: (s.granian_backlog.value.0, &s.granian_backlog.origin),
                backpressure: (Some(s.granian_backpressure.value), &s.granian_backpressure.origin),
            },
        }
    }
}
