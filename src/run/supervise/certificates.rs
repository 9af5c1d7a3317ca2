//! The supervisor's part of the watch over certificate files: a reload when there are new ones that can be served
//! with.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::Instant;

use tracing::{info, warn};

use super::Supervisor;
use super::generation::Event;
use crate::plan::Plan;
use crate::run::certificates::{Unfit, Watch};

/// The watch, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    watch: Option<Watch>,
    /// What a reload was asked for: another one would fail as well.
    tried: Option<u64>,
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
            return;
        }
        let now = Instant::now();
        let Some(plan) = self.plan_in_force() else { return };
        let (wanted, served) = (plan.watched.clone(), fingerprint(plan));
        if self.certificates.watch().map_or(&[][..], Watch::paths) != wanted {
            let watch = (!wanted.is_empty()).then(|| Watch::new(&wanted, now));
            self.certificates = Certificates { watch, tried: None };
        }
        if !self.certificates.watch.as_mut().is_some_and(|watch| watch.is_due(ready, now)) {
            return;
        }
        let found = (self.replan)(None, 0);
        let Some(watch) = &mut self.certificates.watch else { return };
        match found {
            Ok(plan) => {
                watch.found_fit();
                let found = fingerprint(&plan);
                if found == served {
                    self.certificates.tried = None;
                } else if found != self.certificates.tried {
                    self.certificates.tried = found;
                    info!("certificate files have changed");
                    self.tell(Event::Reload { request: None, server: None, workers: 0 });
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
