//! Requests to the app inside each new worker, before it takes clients.

use super::guard::Around;
use super::{Bind, Findings};
use crate::guard::WarmUp;
use crate::settings::Settings;
use crate::settings::value::{Mode, Value};

/// What the guard is to request. Records the decision, or why the paths that are set are not requested.
pub(super) fn decide(settings: &Settings, around: &Around, findings: &mut Findings) -> WarmUp {
    let why_not = match settings.mode.value {
        Mode::Exec => Some("in exec mode nobody waits until a worker is ready"),
        Mode::Supervise if !around.has_lifespan => Some("the server does not tell the app when it starts (lifespan)"),
        Mode::Supervise => None,
    };
    if let Some(why_not) = why_not {
        warn_without_effect(settings, why_not, findings);
        return WarmUp::default();
    }
    let paths: Vec<String> = settings.warm_up.value.0.iter().map(Value::show).collect();
    if !paths.is_empty() {
        let because = "the app must answer below 500 in each new worker before it takes clients";
        findings.decide("warm-up", paths.join(", "), because);
    }
    let (place, port) = match around.bind {
        Bind::Tcp(address) => (address.ip().to_string(), Some(address.port()).filter(|port| *port != 0)),
        Bind::Unix(path) => (path.to_string_lossy().into_owned(), None),
    };
    WarmUp { paths, is_https: around.is_https, place, port }
}

/// Warns about paths that are not requested.
pub(super) fn warn_without_effect(settings: &Settings, why: &str, findings: &mut Findings) {
    if !settings.warm_up.value.0.is_empty() {
        let (paths, origin) = (settings.warm_up.value.show(), &settings.warm_up.origin);
        findings.warn(format!("warm_up = {paths} (from {origin}) has no effect: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::{installed_host, planned};

    fn plan(env: &[(&str, &str)]) -> crate::plan::Plan {
        planned(&[&[("MCP_LAUNCH_WARM_UP", "/ready,/tools?x=1")], env].concat(), &installed_host())
    }

    #[test]
    fn explain_tells_what_is_requested() {
        for (server, app) in [
            ("gunicorn", "my.app:app"),
            ("granian", "my.app:app"),
            ("gunicorn", "my.wsgi:app"),
            ("granian", "my.wsgi:app"),
        ] {
            let plan = plan(&[("HTTP_SERVER", server), ("APP_MODULE", app)]);
            let reason = plan.reasons.iter().find(|reason| reason.topic == "warm-up").unwrap();
            assert_eq!(reason.decision, "/ready, /tools?x=1");
            assert_eq!(plan.warnings.iter().find(|warning| warning.contains("warm_up")), None);
        }
    }

    #[test]
    fn where_nobody_requests_them_there_is_a_warning_with_the_reason() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("MCP_LAUNCH_MODE", "exec")], "exec mode"),
            (&[("MCP_LAUNCH_GUARD", "off")], "the guard is off (environment MCP_LAUNCH_GUARD)"),
            (&[("HTTP_SERVER", "granian"), ("GRANIAN_INTERFACE", "asginl")], "lifespan"),
            (&[("HTTP_SERVER", "granian"), ("GRANIAN_INTERFACE", "rsgi")], "the interface is rsgi"),
        ];
        for (env, why) in cases {
            let plan = plan(env);
            let warning = plan.warnings.iter().find(|warning| warning.contains("warm_up")).unwrap();
            let start = "warm_up = /ready,/tools?x=1 (from environment MCP_LAUNCH_WARM_UP) has no effect: ";
            assert!(warning.starts_with(start) && warning.contains(why), "{warning}");
            assert!(plan.reasons.iter().all(|reason| reason.topic != "warm-up"));
        }
    }
}
