//! What happens to workers that use a processor although they have nothing to do.

use std::time::Duration;

use super::Findings;
use crate::settings::Settings;
use crate::settings::value::{Mode, Spin, show_span};

/// How long a worker may use a processor although it has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpinLimit {
    /// Until it is reported.
    pub after: Duration,
    /// Whether it is replaced as well.
    pub replaces: bool,
}

/// The limit, if anybody looks.
pub(super) fn limit(settings: &Settings) -> Option<SpinLimit> {
    Some(SpinLimit { after: after(settings)?, replaces: settings.spin.value == Spin::Replace })
}

/// How long a worker may, if anybody looks.
pub(super) fn after(settings: &Settings) -> Option<Duration> {
    let is_watched =
        settings.guard.value && settings.mode.value == Mode::Supervise && settings.spin.value != Spin::Off;
    is_watched.then_some(settings.spin_after.value.0)
}

/// Records the decision, or why the setting has no effect.
pub(super) fn decide(settings: &Settings, findings: &mut Findings) {
    let Some(after) = after(settings) else {
        return warn_without_effect(settings, "in exec mode nobody looks", findings);
    };
    let what = match settings.spin.value {
        Spin::Replace => "reported with its stacks and replaced, its successor first where there is memory",
        Spin::Report | Spin::Off => "reported with its stacks",
    };
    let because = format!(
        "{}: a worker that has nothing to do and is runnable more than 80 % of the time for so long is {what}",
        settings.spin.origin
    );
    findings.decide("spin", format!("{} after {}", settings.spin.value, show_span(after)), because);
}

/// Warns if it is set and nobody looks.
pub(super) fn warn_without_effect(settings: &Settings, why: &str, findings: &mut Findings) {
    if settings.spin.is_explicit() && settings.spin.value != Spin::Off {
        let (value, origin) = (settings.spin.value, &settings.spin.origin);
        findings.warn(format!("spin = {value} (from {origin}) has no effect: {why}"));
    }
}
