//! How long Gunicorn's workers may finish their requests.

use super::super::{Findings, Launch, grace};
use super::directive::{Directive, Python};
use super::{Own, overridden};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::settings::checks::STOP_RESERVE;
use crate::settings::value::{Mode, Value, show_span};

pub(super) fn graceful(settings: &Settings, own: &Own, findings: &mut Findings) -> Directive {
    const SETTING: &str = "graceful_timeout";
    const FLAG: &str = "--graceful-timeout";
    if let Some(seconds) = settings.gunicorn_graceful_timeout.value {
        let seconds =
            if settings.mode.value == Mode::Supervise { fitted(seconds.0, settings, findings) } else { seconds.0 };
        return Directive::explicit(SETTING, FLAG, Python::Int(seconds));
    }
    let is_cut = overridden::grace_beyond_budget(settings, own, findings);
    Directive::new(SETTING, FLAG, Python::Int(grace(settings)), is_cut)
}

/// Exports an explicit grace as it applies.
pub(super) fn export(directives: &[Directive], launch: &mut Launch) {
    let explicit = directives.iter().find(|directive| directive.setting == "graceful_timeout" && directive.explicit);
    if let Some(Python::Int(seconds)) = explicit.map(|directive| &directive.value) {
        launch.env.push(("GUNICORN_GRACEFUL_TIMEOUT".into(), Some(seconds.to_string().into())));
    }
}

/// The requested grace, or what the stop budget allows. If both were set, they contradict each other.
fn fitted(seconds: u64, settings: &Settings, findings: &mut Findings) -> u64 {
    let (setting, budget) = (&settings.gunicorn_graceful_timeout, grace(settings));
    if seconds <= budget {
        return seconds;
    }
    let (timeout, delay) = (&settings.stop_timeout, &settings.stop_delay);
    let what = format!(
        "graceful_timeout = {seconds}s exceeds the available {budget}s, which is stop_timeout {} less stop_delay {} less \
         {}",
        timeout.value.show(),
        delay.value.show(),
        show_span(STOP_RESERVE),
    );
    if timeout.is_explicit() {
        findings.problem(Problem::setting(what, &setting.origin).hint("lower it, or raise stop_timeout"));
    } else {
        let advice = "raise MCP_LAUNCH_STOP_TIMEOUT if the launcher has more time to stop";
        findings.warn(format!("{what} (from {}); {budget}s is used; {advice}", setting.origin));
    }
    budget
}
