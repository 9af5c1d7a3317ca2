//! The supervisor's part of the watch over certificate files: a reload when there are new ones that can be served
//! with. Looking at them is a [`Job`]: they may lie on another machine, and a passphrase may have to be stretched.

pub mod file_watch;

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::World;
use super::background::{Job, Progress};
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::planning::joined;
use crate::plan::Plan;
use file_watch::{Errand, Identity, Sight, Unfit, Watch, identities};

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
    job: Option<Job<Found>>,
}

/// What came of an errand.
#[derive(Debug)]
enum Found {
    /// The files from outside.
    Outside(Vec<Option<Identity>>),
    /// The files, and what they are in a plan made from them, or why there is none.
    Inside(Sight, Result<Option<u64>, String>),
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

impl Component for Certificates {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        if let Some(job) = &self.job {
            job.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
        } else if let Some(watch) = &self.watch {
            watch.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
            waits.until(watch.next());
        }
    }

    /// Has the files looked at when they have changed, and asks for a reload when the new ones are complete.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        if world.state.is_ending() {
            *self = Self::default();
            return Vec::new();
        }
        let now = Instant::now();
        let Some(plan) = world.plan_in_force() else { return Vec::new() };
        let (wanted, served) = (plan.watched.clone(), fingerprint(plan));
        if self.watch.as_ref().map_or(&[][..], Watch::paths) != wanted {
            let watch = (!wanted.is_empty()).then(|| Watch::new(&wanted, now));
            *self = Self { watch, ..Self::default() };
        }
        if self.job.is_none() {
            self.job = self.begin(world, ready, now);
        }
        match self.job.as_ref().map(Job::progress) {
            None | Some(Progress::Working) => return Vec::new(),
            Some(Progress::Failed) => self.job = None,
            Some(Progress::Done(found)) => {
                self.job = None;
                return self.found(found, world.state.is_settled(), served, now);
            }
        }
        Vec::new()
    }
}

impl Certificates {
    /// What is to be looked at now is being looked at.
    fn begin(&mut self, world: &World, ready: &Ready, now: Instant) -> Option<Job<Found>> {
        let watch = self.watch.as_mut()?;
        let errand = watch.errand(ready.descriptors(), now)?;
        let paths = watch.paths().to_owned();
        if errand == Errand::Glance {
            return Some(Job::start("glance", move || Found::Outside(identities(&paths))));
        }
        if !world.state.is_settled() {
            watch.look_again(now + LATER);
            return None;
        }
        let (replan, choice) = (world.planning.replan(), world.state.choice());
        Some(Job::start("certificates", move || {
            let sight = Sight::of(&paths);
            let plan = replan(choice, 0);
            Found::Inside(sight, plan.map(|(plan, _)| fingerprint(&plan)).map_err(|problems| joined(&problems)))
        }))
    }

    /// What was looked at is there.
    fn found(&mut self, found: Found, is_settled: bool, served: Option<u64>, now: Instant) -> Vec<Output> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        match found {
            Found::Outside(identities) => watch.glanced(&identities, now),
            Found::Inside(sight, _) if !is_settled => {
                watch.looked(sight);
                watch.look_again(now + LATER);
            }
            Found::Inside(sight, Ok(found)) => {
                watch.looked(sight);
                return self.found_fit(found, served, now);
            }
            Found::Inside(sight, Err(why)) => {
                watch.looked(sight);
                if watch.found_unfit(now) == Unfit::Report {
                    warn!(%why, "certificate files have changed but cannot be used: the old ones stay in use");
                }
            }
        }
        Vec::new()
    }

    /// The files can be used.
    fn found_fit(&mut self, found: Option<u64>, served: Option<u64>, now: Instant) -> Vec<Output> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        watch.found_fit();
        if found == served {
            self.tried = None;
        } else if let Some(tried) = Tried::next(self.tried, found, now) {
            watch.look_again(tried.again_at);
            self.tried = Some(tried);
            info!("certificate files have changed");
            return vec![Event::Reload { request: None, server: None, workers: 0 }.into()];
        } else if let Some(tried) = self.tried {
            watch.look_again(tried.again_at);
        }
        Vec::new()
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
