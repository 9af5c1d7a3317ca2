//! Certificates and environment files: reloads when there are new ones with which a server can start. Reading them is a
//! [`Job`]: they may be on another machine, and a passphrase may take long to check.

pub mod watch;

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::World;
use super::background::{Job, Progress};
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::planning::joined;
use watch::{Identity, Snapshot, Task, Unfit, Watch, identities};

/// How long to wait while something else is in progress that decides what is served.
const LATER: Duration = Duration::from_secs(1);
/// The time from a failed reload to the next one; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// The longest of these times.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The watch, and its findings.
#[derive(Debug, Default)]
pub(super) struct FileWatch {
    watch: Option<Watch>,
    tried: Option<Tried>,
    job: Option<Job<Found>>,
}

/// The result of a job.
#[derive(Debug)]
enum Found {
    /// The state of the files, without reading them.
    Compared(Vec<Option<Identity>>),
    /// The files, and their fingerprint in a plan made from them, or why there is no plan.
    Read(Snapshot, Result<u64, String>),
}

/// A reload that was requested and has not brought the new files into service. It may have failed for a temporary
/// reason, such as a database that was not available or a lack of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tried {
    fingerprint: u64,
    again_at: Instant,
    pause: Duration,
}

impl Tried {
    /// What is to be tried now, if anything.
    fn next(before: Option<Self>, fingerprint: u64, now: Instant) -> Option<Self> {
        let pause = match before.filter(|tried| tried.fingerprint == fingerprint) {
            Some(tried) if now < tried.again_at => return None,
            Some(tried) => (tried.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        Some(Self { fingerprint, again_at: now + pause, pause })
    }
}

impl Component for FileWatch {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        if let Some(job) = &self.job {
            job.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
        } else if let Some(watch) = &self.watch {
            watch.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
            waits.until(watch.next());
        }
    }

    /// Has the files read when they have changed, and requests a reload when the new ones are complete.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        if world.state.is_ending() {
            *self = Self::default();
            return Vec::new();
        }
        let now = Instant::now();
        let Some(plan) = world.plan_in_force() else { return Vec::new() };
        let (wanted, served) = (plan.watched.clone(), plan.fingerprint);
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

impl FileWatch {
    /// Starts the job that is due.
    fn begin(&mut self, world: &World, ready: &Ready, now: Instant) -> Option<Job<Found>> {
        let watch = self.watch.as_mut()?;
        let task = watch.take_task(ready.descriptors(), now)?;
        let paths = watch.paths().to_owned();
        if task == Task::Compare {
            return Some(Job::start("compare files", move || Found::Compared(identities(&paths))));
        }
        if !world.state.is_settled() {
            watch.read_again(now + LATER);
            return None;
        }
        let (replan, choice) = (world.planning.replan(), world.state.choice());
        Some(Job::start("read files", move || {
            let snapshot = Snapshot::of(&paths);
            let plan = replan(choice, 0);
            Found::Read(snapshot, plan.map(|(plan, _)| plan.fingerprint).map_err(|problems| joined(&problems)))
        }))
    }

    /// A job is done.
    fn found(&mut self, found: Found, is_settled: bool, served: u64, now: Instant) -> Vec<Output> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        match found {
            Found::Compared(identities) => watch.compared(&identities, now),
            Found::Read(snapshot, _) if !is_settled => {
                watch.was_read(snapshot);
                watch.read_again(now + LATER);
            }
            Found::Read(snapshot, Ok(found)) => {
                watch.was_read(snapshot);
                return self.found_usable(found, served, now);
            }
            Found::Read(snapshot, Err(why)) => {
                watch.was_read(snapshot);
                if watch.unusable(now) == Unfit::Report {
                    warn!(%why, "watched files have changed but cannot be used: the old ones stay in use");
                }
            }
        }
        Vec::new()
    }

    /// The files can be used.
    fn found_usable(&mut self, found: u64, served: u64, now: Instant) -> Vec<Output> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        watch.usable();
        if found == served {
            self.tried = None;
        } else if let Some(tried) = Tried::next(self.tried, found, now) {
            watch.read_again(tried.again_at);
            self.tried = Some(tried);
            info!("watched files have changed");
            return vec![Event::Reload { request: None, server: None, workers: 0 }.into()];
        } else if let Some(tried) = self.tried {
            watch.read_again(tried.again_at);
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_brought_nothing_is_tried_again_less_and_less_often() {
        let start = Instant::now();
        let first = Tried::next(None, 1, start).unwrap();
        assert_eq!(Tried::next(Some(first), 1, start), None);
        let second = Tried::next(Some(first), 1, first.again_at).unwrap();
        assert_eq!(second.pause, FIRST_PAUSE * 2);
        let mut last = second;
        for _ in 0..20 {
            last = Tried::next(Some(last), 1, last.again_at).unwrap();
        }
        assert_eq!(last.pause, LONGEST_PAUSE);
        assert_eq!(Tried::next(Some(last), 2, start).map(|tried| tried.pause), Some(FIRST_PAUSE), "other files");
    }
}
