//! Replacing Granian's workers that end, or have become too large or too old.

use super::Args;
use crate::guard::MaxRequests;
use crate::plan::{Limits, grace};
use crate::settings::value::Mode;

/// Granian's limits for `--workers-kill-timeout`, in seconds.
const KILL_TIMEOUT: std::ops::RangeInclusive<u64> = 1..=1800;
/// Granian's minimum for `--workers-lifetime`, in seconds.
const SHORTEST_LIFETIME: u64 = 60;

const RESPAWN: &str = "--respawn-failed-workers";
const NO_RESPAWN: &str = "--no-respawn-failed-workers";

impl Args<'_> {
    /// Whether Granian starts new workers when some end.
    pub(super) fn respawning(&mut self) -> bool {
        let settings = self.settings();
        let respawn = settings.granian_respawn_failed.clone();
        let kill_timeout = grace(settings).clamp(*KILL_TIMEOUT.start(), *KILL_TIMEOUT.end());
        let is_native = self.is_set_natively(RESPAWN, "GRANIAN_RESPAWN_FAILED_WORKERS", &[NO_RESPAWN]);
        match (respawn.value, respawn.is_explicit()) {
            (true, true) => self.flag(RESPAWN),
            (true, false) if !is_native => self.flag(RESPAWN),
            // It is off without a flag.
            (false, true) if is_native => self.flag(NO_RESPAWN),
            _ => {}
        }
        if self.has("--workers-kill-timeout") {
            self.default_pair("--workers-kill-timeout", kill_timeout, "GRANIAN_WORKERS_KILL_TIMEOUT", &[]);
        }
        respawn.value && (respawn.is_explicit() || !is_native) && !self.reloads()
    }

    /// How workers that are too large or too old are replaced. We enforce the limits ourselves, unless Granian ends as
    /// soon as one worker does.
    pub(super) fn limits(&mut self, respawns: bool) -> Option<Limits> {
        let settings = self.settings();
        if self.reloads() {
            let limits = [
                (settings.granian_max_requests.0 > 0).then_some("max_requests"),
                settings.granian_workers_max_rss.value.is_some().then_some("workers_max_rss"),
                settings.granian_workers_lifetime.value.is_some().then_some("workers_lifetime"),
            ];
            for name in limits.into_iter().flatten() {
                self.findings.warn(format!("{name} has no effect while Granian reloads when the code changes"));
            }
            return None;
        }
        if respawns && settings.mode.value == Mode::Supervise {
            let (max_rss, lifetime) = (&settings.granian_workers_max_rss, &settings.granian_workers_lifetime);
            return Some(Limits::new(max_rss.value, lifetime.value, self.max_requests()));
        }
        self.own_limits();
        None
    }

    /// After how many requests a worker is replaced.
    pub(super) fn max_requests(&self) -> Option<MaxRequests> {
        let settings = self.settings();
        MaxRequests::new(settings.granian_max_requests.0, settings.granian_max_requests_jitter.0)
    }

    /// Whether Granian reloads when the code changes; it then ends as soon as a worker does.
    fn reloads(&self) -> bool {
        self.settings().granian_dev_mode.value || self.is_set_natively("--reload", "GRANIAN_RELOAD", &[])
    }

    /// Granian enforces the limits itself.
    fn own_limits(&mut self) {
        let max_requests = self.settings().granian_max_requests.clone();
        if max_requests.0 > 0 {
            let origin = max_requests.origin;
            self.findings
                .warn(format!("max_requests (from {origin}) has no effect: Granian itself has no such limit"));
        }
        let settings = self.settings();
        let (max_rss, lifetime) =
            (settings.granian_workers_max_rss.clone(), settings.granian_workers_lifetime.clone());
        if let Some(wanted) = lifetime.value {
            let seconds = wanted.0.max(SHORTEST_LIFETIME);
            if seconds > wanted.0 {
                self.findings.warn(format!(
                    "workers_lifetime = {} (from {}) is raised to at least {seconds} s where Granian enforces it itself",
                    wanted.0, lifetime.origin
                ));
            }
            self.pair("--workers-lifetime", seconds);
        }
        if let Some(limit) = max_rss.value {
            if self.has("--workers-max-rss") {
                self.pair("--workers-max-rss", limit.mebibytes());
            } else {
                let lacks = self.lacks("--workers-max-rss");
                self.findings.warn(format!("workers_max_rss (from {}) has no effect: {lacks}", max_rss.origin));
            }
        }
    }
}
