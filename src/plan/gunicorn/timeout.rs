//! How long a worker may be silent. Both the launcher (by the heartbeat of the event loop) and Gunicorn itself check
//! that. A setting for one of them also applies to the other.

use std::time::Duration;

use super::super::Findings;
use super::own::Own;
use crate::settings::Settings;

/// The launcher's limit, and the reason for it.
#[derive(Debug, Clone)]
pub(in super::super) struct WorkerTimeout {
    /// None: there is no limit.
    pub limit: Option<Duration>,
    because: String,
}

/// With Gunicorn, an explicit `timeout` applies if ours is not set.
pub(in super::super) fn worker_timeout(settings: &Settings, own: &Own, findings: &mut Findings) -> WorkerTimeout {
    let ours = &settings.worker_timeout;
    let theirs = theirs(settings, own);
    let of = |limit: Duration, because: String| WorkerTimeout { limit: (!limit.is_zero()).then_some(limit), because };
    if ours.is_explicit() {
        let passed_over = theirs.map(|(shown, _)| format!("; it takes precedence over {shown}")).unwrap_or_default();
        return of(ours.value.0, format!("{}{passed_over}", ours.origin));
    }
    if settings.gunicorn_dev_mode.value || own.is_on("reload") {
        return of(Duration::ZERO, "the code is reloaded when it changes, and a debugger may stop a worker".into());
    }
    match theirs {
        Some((shown, Some(seconds))) => of(Duration::from_secs(seconds), shown),
        Some((shown, None)) => {
            findings.warn(format!(
                "{shown} is computed: the launcher does not know it and replaces a worker that is silent for {} s; set \
                 MCP_LAUNCH_WORKER_TIMEOUT",
                ours.value.0.as_secs()
            ));
            of(ours.value.0, format!("default; {shown} is computed, and Gunicorn enforces it as well"))
        }
        None => of(ours.value.0, ours.origin.to_string()),
    }
}

/// Gunicorn's own explicit `timeout`, for messages, and its seconds.
fn theirs(settings: &Settings, own: &Own) -> Option<(String, Option<u64>)> {
    let setting = &settings.gunicorn_timeout;
    if setting.is_explicit() {
        return Some((format!("timeout = {} (from {})", setting.0, setting.origin), Some(setting.0)));
    }
    let native = own.get("timeout").filter(|native| native.is_computed() || native.number().is_some())?;
    Some((native.to_string(), native.number()))
}

impl WorkerTimeout {
    /// The default for a server that has no such setting of its own.
    pub fn ours(settings: &Settings, dev_mode: bool) -> Self {
        let ours = &settings.worker_timeout;
        if dev_mode && !ours.is_explicit() {
            return Self { limit: None, because: "dev mode, where a debugger may stop a worker".into() };
        }
        let limit = ours.value.0;
        Self { limit: (!limit.is_zero()).then_some(limit), because: ours.origin.to_string() }
    }

    /// Explains which one applies. Without the guard there is no heartbeat.
    pub fn report(&self, is_guarded: bool, findings: &mut Findings) {
        let (decision, because) = match self.limit {
            _ if !is_guarded => ("the server's own".to_owned(), "the workers run without the guard"),
            Some(limit) => (format!("{} s", limit.as_secs_f64()), &*self.because),
            None => ("off".to_owned(), &*self.because),
        };
        findings.decide("worker-timeout", decision, because);
    }
}
