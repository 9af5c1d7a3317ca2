//! The supervisor's part of the watch over certificate files: a reload when there are new ones that can be served
//! with.

pub mod file_watch;

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::plan::Plan;
use crate::supervisor::Supervisor;
use crate::supervisor::certificates::file_watch::{Unfit, Watch};
use crate::supervisor::machine::generation::Event;

/// While something else goes on, after which it is known what is served.
const LATER: Duration = Duration::from_secs(1);
/// From a reload that failed to the next; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// The longest of these.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The watch, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    watch: Option<Watch>,
    tried: Option<Tried>,
}

/// A reload that was asked for and has not brought the new files. It may have failed for a passing reason, such as a
/// database that was away or memory that was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tried {
    fingerprint: Option<u64>,
    again_at: Instant,
    pause: Duration,
}

impl Tried {
    /// What is to be tried now, if anything is.
    fn next(before: Option<Self>, fingerprint: Option<u64>, now: Instant) -> Option<Self> {
        let pause = match before.filter(|tried| tried.fingerprint == fingerprint) {
            Some(tried) if now < tried.again_at => return None,
            Some(tried) => (tried.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        Some(Self { fingerprint, again_at: now + pause, pause })
    }
}

impl Certificates {
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }
}

impl Supervisor<'_> {
    /// Looks at the files when they have changed, and asks for a reload when the new ones are complete.
    pub(super) fn watch_certificates(&mut self, ready: &BTreeSet<RawFd>) {
        if self.state.is_ending() {
            self.certificates = Certificates::default();
            return;
        }
        let now = Instant::now();
        let Some(plan) = self.plan_in_force() else { return };
        let (wanted, served) = (plan.watched.clone(), fingerprint(plan));
        if self.certificates.watch().map_or(&[][..], Watch::paths) != wanted {
            let watch = (!wanted.is_empty()).then(|| Watch::new(&wanted, now));
            self.certificates = Certificates { watch, tried: None };
        }
        let Some(watch) = &mut self.certificates.watch else { return };
        if !watch.is_due(ready, now) {
            return;
        }
        if !self.state.is_settled() {
            return watch.look_again(now + LATER);
        }
        let found = (self.replan)(None, 0);
        match found {
            Ok(plan) => {
                watch.found_fit();
                let found = fingerprint(&plan);
                if found == served {
                    self.certificates.tried = None;
                } else if let Some(tried) = Tried::next(self.certificates.tried, found, now) {
                    watch.look_again(tried.again_at);
                    self.certificates.tried = Some(tried);
                    info!("certificate files have changed");
                    self.tell(Event::Reload { request: None, server: None, workers: 0 });
                } else if let Some(tried) = self.certificates.tried {
                    watch.look_again(tried.again_at);
                }
            }
            Err(problems) => {
                if watch.found_unfit(now) == Unfit::Report {
                    let why = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    warn!(%why, "certificate files have changed and are of no use: the old ones stay in use");
                }
            }
        }
    }
}

fn fingerprint(plan: &Plan) -> Option<u64> {
    plan.credentials.as_ref().map(|credentials| credentials.pair.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_brought_nothing_is_tried_again_less_and_less_often() {
        let start = Instant::now();
        let first = Tried::next(None, Some(1), start).unwrap();
        assert_eq!(Tried::next(Some(first), Some(1), start), None);
        let second = Tried::next(Some(first), Some(1), first.again_at).unwrap();
        assert_eq!(second.pause, FIRST_PAUSE * 2);
        let mut last = second;
        for _ in 0..20 {
            last = Tried::next(Some(last), Some(1), last.again_at).unwrap();
        }
        assert_eq!(last.pause, LONGEST_PAUSE);
        assert_eq!(
            Tried::next(Some(last), Some(2), start).map(|tried| tried.pause),
            Some(FIRST_PAUSE),
            "other files"
        );
    }
}
