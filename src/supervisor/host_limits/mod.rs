//! Limits of CPU and memory that change while the launcher runs, as when Kubernetes resizes a pod in place: a computed
//! number of workers follows, by a reload. A reload needs memory. So where there is less of it, and the server can have
//! workers taken away, that is done first, before the kernel has to.
//!
//! The kernel reports every write to the files of a control group to those who watch them (`inotify(7)`), in version 1
//! and 2, and even from outside a container. So nothing is polled, unless a file cannot be watched.

mod policy;

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::World;
use super::background::{Job, Progress};
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::event::Event;
use super::planning::joined;
use crate::host;
use crate::plan::{Basis, Sizing};
use policy::{Follower, Removal, Serving, Sized, Step, Verdict};

/// The interval between two checks of files that cannot be watched.
const POLL: Duration = Duration::from_secs(20);
/// The interval between two checks while something else is in progress.
const LATER: Duration = Duration::from_secs(1);

/// Watches the limits.
#[derive(Debug, Default)]
pub(super) struct HostLimits {
    watch: Option<Watch>,
    follower: Follower,
    removal: Option<Removal>,
    job: Option<Job<Found>>,
    /// The warnings of the last look.
    warned: Vec<String>,
}

/// The plan that would be made now: its number of workers and why, and its warnings.
type Found = Result<(u32, Sizing, Vec<String>), String>;

/// A watch over the files of the limits.
#[derive(Debug)]
struct Watch {
    inotify: Option<Inotify>,
    /// The files, if not all of them can be watched.
    polled: Option<Polled>,
}

/// Files that have to be read to see whether they have changed.
#[derive(Debug)]
struct Polled {
    files: Vec<PathBuf>,
    contents: Vec<Option<Vec<u8>>>,
    at: Instant,
}

impl Polled {
    fn new(files: Vec<PathBuf>, now: Instant) -> Self {
        Self { contents: Self::read(&files), files, at: now + POLL }
    }

    fn read(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
        files.iter().map(|file| std::fs::read(file).ok()).collect()
    }

    /// Whether a check was due, and something had changed.
    fn has_changed(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.at = now + POLL;
        let contents = Self::read(&self.files);
        std::mem::replace(&mut self.contents, contents) != self.contents
    }
}

impl Watch {
    fn new(now: Instant) -> Self {
        let files = host::limit_files(Path::new("/"));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        let is_watched = |file: &PathBuf| {
            inotify.as_ref().is_some_and(|inotify| inotify.add_watch(file, AddWatchFlags::IN_MODIFY).is_ok())
        };
        // All are to be watched, not only those up to the first that cannot be.
        let unwatched = files.iter().filter(|file| !is_watched(file)).count();
        Self { polled: (unwatched > 0).then(|| Polled::new(files, now)), inotify }
    }

    /// Whether a limit may have changed.
    fn has_news(&mut self, ready: &Ready, now: Instant) -> bool {
        let report = self.inotify.as_ref().filter(|it| ready.descriptors().contains(&it.as_fd().as_raw_fd()));
        if let Some(inotify) = report {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        report.is_some() || self.polled.as_mut().is_some_and(|polled| polled.has_changed(now))
    }
}

impl Component for HostLimits {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        if let Some(job) = &self.job {
            job.descriptor().into_iter().for_each(|descriptor| waits.readable(descriptor));
        }
        if let Some(watch) = &self.watch {
            watch.inotify.iter().for_each(|inotify| waits.readable(inotify.as_fd()));
            waits.until(watch.polled.as_ref().map(|polled| polled.at));
        }
        if self.job.is_none() {
            waits.until(self.follower.next());
        }
        waits.until(self.removal.and_then(|removal| removal.next()));
    }

    /// Has the number of workers computed again when a limit has changed, and requests a reload if it differs.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let is_wanted = world.plan_in_force().is_some_and(|plan| plan.sizing.is_followed);
        if world.state.is_ending() || !is_wanted {
            *self = Self::default();
            return Vec::new();
        }
        let now = Instant::now();
        if self.watch.get_or_insert_with(|| Watch::new(now)).has_news(ready, now) {
            self.follower.changed(now);
        }
        if let Some(removal) = self.removal.take() {
            return self.take_away(removal, world, now);
        }
        if self.job.is_none() && self.follower.take_due(now) {
            if world.state.is_settled() {
                let (replan, choice) = (world.planning.replan(), world.state.choice());
                self.job = Some(Job::start("limits", move || {
                    let plan = replan(choice, 0).map_err(|problems| joined(&problems))?;
                    Ok((plan.0.workers, plan.0.sizing, plan.0.warnings))
                }));
            } else {
                self.follower.look_at(now + LATER);
            }
        }
        match self.job.as_ref().map(Job::progress) {
            None | Some(Progress::Working) => return Vec::new(),
            Some(Progress::Failed) => self.job = None,
            Some(Progress::Done(found)) => {
                self.job = None;
                return self.found(&found, world, now);
            }
        }
        Vec::new()
    }
}

impl HostLimits {
    fn found(&mut self, found: &Found, world: &World, now: Instant) -> Vec<Output> {
        let (Some(plan), Some(serving)) = (world.plan_in_force(), world.state.serving()) else { return Vec::new() };
        let serving = Serving { generation: serving.id, is_resizable: plan.capabilities.is_resizable() };
        let (workers, sizing, warnings) = match found {
            Ok((workers, sizing, warnings)) => (*workers, sizing, warnings),
            Err(why) => {
                warn!(%why, "limits may have changed, and the number of workers cannot be computed again");
                return Vec::new();
            }
        };
        let from = limits(&plan.sizing);
        let to = limits(sizing);
        let verdict = self.follower.judge(serving, &sized(plan.workers, &plan.sizing), &sized(workers, sizing), now);
        if verdict != Verdict::Adjust {
            self.warn(warnings, &plan.warnings);
        }
        match verdict {
            Verdict::Keep => Vec::new(),
            Verdict::Adjust => {
                info!(%from, %to, workers, "limits have changed: the number of workers follows");
                vec![Event::Reload { request: None, server: None, workers: 0 }.into()]
            }
            Verdict::TakeAway(number) => {
                info!(%from, %to, workers, "less memory: workers are taken away");
                self.removal = Some(Removal::new(serving.generation, number));
                vec![Event::Tick.into()]
            }
            Verdict::Report => {
                let set_by = match &sizing.basis {
                    Basis::Set(origin) => origin.to_string(),
                    Basis::Computed => String::new(),
                };
                warn!(%from, %to, workers, %set_by, "limits have changed, but the number of workers was set and stays");
                Vec::new()
            }
        }
    }
}

impl HostLimits {
    /// Logs what is wrong with limits that change nothing, once. A reload would log it.
    fn warn(&mut self, warnings: &[String], known: &[String]) {
        let is_new = |warning: &&String| !known.contains(warning) && !self.warned.contains(warning);
        warnings.iter().filter(is_new).for_each(|warning| warn!("{warning}"));
        self.warned = warnings.to_vec();
    }

    /// The next step of the removal of workers, after which the limits are looked at again. It ends when something else
    /// happens to the generation.
    fn take_away(&mut self, mut removal: Removal, world: &World, now: Instant) -> Vec<Output> {
        let generation = removal.generation;
        let is_serving = world.state.is_settled() && world.state.serving().is_some_and(|it| it.id == generation);
        let grace = world.plan_of(generation).map(|plan| plan.policy.stop_timeout).unwrap_or_default();
        let step = if is_serving { removal.step(world.workers.of(generation).len(), grace, now) } else { Step::Done };
        self.removal = (step != Step::Done).then_some(removal);
        match step {
            Step::Retire => vec![Action::RetireOldest { generation, within: grace }.into()],
            Step::End => vec![Event::Forward(Signal::SIGTTOU).into()],
            Step::Wait => Vec::new(),
            Step::Done => {
                self.follower.look_at(now);
                Vec::new()
            }
        }
    }
}

fn sized(workers: u32, sizing: &Sizing) -> Sized {
    let is_computed = sizing.basis == Basis::Computed;
    Sized { workers, cores: sizing.cores, memory: sizing.memory, is_computed }
}

/// The limits for the log.
fn limits(sizing: &Sizing) -> String {
    let memory = sizing.memory.map(|bytes| format!(", {} MiB", bytes >> 20)).unwrap_or_default();
    format!("{} cores{memory}", sizing.cores)
}
