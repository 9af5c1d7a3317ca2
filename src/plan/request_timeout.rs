//! How long requests may take inside the workers.

use std::time::Duration;

use super::Findings;
use super::guard::Around;
use crate::guard::TimeLimits;
use crate::settings::Settings;
use crate::settings::value::{Mode, RequestTimeout, Value, show_span};

/// What the guard is to enforce, if anything. Records the decision, or why the setting has no effect.
pub(super) fn decide(settings: &Settings, around: &Around, findings: &mut Findings) -> Option<TimeLimits> {
    let RequestTimeout { general, by_path } = &settings.request_timeout.value;
    if settings.request_timeout.value.is_off() {
        return None;
    }
    if settings.mode.value == Mode::Exec {
        warn_without_effect(settings, "in exec mode nobody watches the requests", findings);
        return None;
    }
    let after = if around.wsgi == Some(true) {
        "is logged with its stack; a WSGI app's request cannot be cancelled, so its worker is replaced when such requests \
         take up half of it"
    } else {
        "is logged with its stack and cancelled: 504, if no response has begun"
    };
    let general = (!general.is_zero()).then(|| show_span(*general));
    let paths = by_path.iter().map(|(prefix, limit)| {
        let limit = if limit.is_zero() { "none".to_owned() } else { show_span(*limit) };
        format!("{limit} for {}", prefix.0)
    });
    let decision = general.into_iter().chain(paths).collect::<Vec<_>>().join(", ");
    let origin = &settings.request_timeout.origin;
    findings.decide("request timeout", decision, format!("{origin}: a request that takes longer {after}"));
    let mut by_path: Vec<_> = by_path.iter().map(|(prefix, limit)| (prefix.0.clone(), *limit)).collect();
    by_path.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    Some(TimeLimits { general: settings.request_timeout.value.general, by_path })
}

/// How long the event loop of a worker may be blocked, if requests have a time limit: none of them is ended meanwhile.
pub(super) fn longest_pause(settings: &Settings) -> Option<Duration> {
    let RequestTimeout { general, by_path } = &settings.request_timeout.value;
    let is_watched = settings.guard.value && settings.mode.value == Mode::Supervise;
    let least = || by_path.iter().map(|(_, limit)| *limit).filter(|limit| !limit.is_zero()).min();
    Some(*general).filter(|limit| !limit.is_zero()).or_else(least).filter(|_| is_watched)
}

/// Warns if a limit is set and nobody enforces it.
pub(super) fn warn_without_effect(settings: &Settings, why: &str, findings: &mut Findings) {
    if !settings.request_timeout.value.is_off() {
        let (value, origin) = (settings.request_timeout.value.show(), &settings.request_timeout.origin);
        findings.warn(format!("request_timeout = {value} (from {origin}) has no effect: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::{installed_host, planned};

    fn plan(env: &[(&str, &str)]) -> crate::plan::Plan {
        let limits = ("MCP_LAUNCH_REQUEST_TIMEOUT", "0,/a=5s,/a/long=1m,/b=0");
        planned(&[&[limits], env].concat(), &installed_host())
    }

    #[test]
    fn explain_tells_the_limits_and_what_follows() {
        for (env, what) in [
            (("HTTP_SERVER", "gunicorn"), "cancelled: 504"),
            (("HTTP_SERVER", "granian"), "cancelled: 504"),
            (("GUNICORN_WORKER_CLASS", "gthread"), "cannot be cancelled"),
        ] {
            let plan = plan(&[env, ("APP_MODULE", "my.app:app")]);
            let reason = plan.reasons.iter().find(|reason| reason.topic == "request timeout").unwrap();
            assert_eq!(reason.decision, "5s for /a, 1m for /a/long, none for /b");
            assert!(reason.because.contains(what), "{}", reason.because);
        }
    }

    #[test]
    fn where_nobody_enforces_them_there_is_a_warning_with_the_reason() {
        for (env, why) in [
            (("MCP_LAUNCH_MODE", "exec"), "exec mode"),
            (("MCP_LAUNCH_GUARD", "off"), "the guard is off (environment MCP_LAUNCH_GUARD)"),
        ] {
            let plan = plan(&[env]);
            let warning = plan.warnings.iter().find(|warning| warning.contains("request_timeout")).unwrap();
            assert!(warning.contains("has no effect: ") && warning.contains(why), "{warning}");
            assert!(plan.reasons.iter().all(|reason| reason.topic != "request timeout"));
        }
    }
}
