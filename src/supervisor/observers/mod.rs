//! Reports to the outside: the log, a service manager, the line with the exit reason, clients that ask.

pub(super) mod exit_reason;
pub(super) mod log;
mod rates;
pub(super) mod status;
pub(super) mod systemd;
pub(super) mod totals;
