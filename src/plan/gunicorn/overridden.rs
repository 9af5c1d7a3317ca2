//! Which parts of the user's configuration file are not honoured, and why. Each of them causes a warning.

use super::super::{Findings, grace};
use super::cmd_args::OURS;
use super::own::Own;
use crate::settings::Settings;
use crate::settings::value::Mode;

/// Warns about everything that the launcher always sets. For `GUNICORN_CMD_ARGS`, the warnings come when those are
/// read.
pub(super) fn warn(own: &Own, findings: &mut Findings) {
    for (setting, why) in OURS {
        match own.in_file(setting) {
            Some(given) if given.is_on() => findings.warn(format!("{given} is ignored: {why}")),
            Some(given) if given.is_computed() => {
                findings.warn(format!("{given} is computed and will be ignored: {why}"));
            }
            _ => {}
        }
    }
}

/// The grace that the user sets, if it is longer than the stop budget allows.
pub(super) fn grace_beyond_budget(settings: &Settings, own: &Own, findings: &mut Findings) -> bool {
    let budget = grace(settings);
    let Some(given) = own.get("graceful_timeout").filter(|_| settings.mode.value == Mode::Supervise) else {
        return false;
    };
    let is_beyond = given.number().is_some_and(|seconds| seconds > budget);
    if is_beyond {
        findings.warn(format!(
            "{given} exceeds the stop budget and is reduced to {budget} s; raise MCP_LAUNCH_STOP_TIMEOUT for more"
        ));
    }
    is_beyond
}
