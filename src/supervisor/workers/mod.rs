//! The worker processes: which there are, when one ends, and why.
//!
//! The servers start and replace their workers themselves. We hold a pidfd of each, so a worker's end wakes the loop at
//! once, and its cause can be read: from the zombie, or from the kernel once it was reaped, or from the cgroup's count
//! of OOM kills. A new worker is found by searching: when its generation becomes ready, soon after another one has
//! ended, and on request. While nothing happens, nothing is searched.

mod cause;
mod roster;
mod search;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getpid};

use crate::ids::GenerationId;
use crate::proc::process::{self as processes, Process};
use crate::proc::usage::{self, Usage};
pub use cause::{Cause, OomWatch};
pub(super) use roster::Watch;
use search::Search;
use worker::{End, Worker, open};

/// More handles than this are not held; the workers beyond are listed, and their end is noticed when looked for.
const MOST_HANDLES: u64 = 512;

/// What the watch is told of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roster {
    /// Its number.
    pub generation: GenerationId,
    /// Its main process.
    pub main: Pid,
    /// Whether that lives.
    pub main_alive: bool,
    /// How many workers its plan has.
    pub planned: u32,
    /// How far it has got.
    pub stage: RosterStage,
}

/// How far a generation has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterStage {
    /// Not ready.
    Starting,
    /// Ready.
    Serving,
    /// Told to leave: that its workers end is as it should be.
    Leaving,
}

/// The end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerExit {
    /// Whose worker it was.
    pub generation: GenerationId,
    /// Its process.
    pub pid: Pid,
    /// Why.
    pub cause: Cause,
    /// How old it got.
    pub age: Duration,
    /// When that was noticed.
    pub at: Instant,
    /// Workers of the generation that ended before it was told to leave, this one included.
    pub restarts: u64,
    /// Whether it was to end.
    pub expected: bool,
}

/// The watch over all generations.
#[derive(Debug, Default)]
pub struct Workers {
    sets: BTreeMap<GenerationId, WorkerSet>,
    oom: OomWatch,
    /// Ends that were not expected, by cause.
    ends: BTreeMap<&'static str, u64>,
    /// When all of them were looked for last.
    looked: Option<Instant>,
    /// Counts up whenever one comes or goes.
    revision: u64,
    /// Whether a worker was ended because it was hung, and there is no other in its place yet.
    pub(super) replaces_hung: bool,
}

/// The workers of one generation.
#[derive(Debug)]
struct WorkerSet {
    roster: Roster,
    workers: BTreeMap<Pid, Worker>,
    /// How many were told to leave and have not gone yet.
    dismissed: u32,
    restarts: u64,
    last: Option<WorkerExit>,
    search: Option<Search>,
}

/// Between two questions how a worker ended, and between two looks for workers whose end no descriptor tells of.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Workers {
    /// Follows what became of the generations.
    pub fn follow(&mut self, rosters: &[Roster], now: Instant) {
        self.sets.retain(|id, _| rosters.iter().any(|roster| roster.generation == *id));
        for roster in rosters {
            let set = self.sets.entry(roster.generation).or_insert_with(|| WorkerSet::new(*roster));
            let became_ready = set.roster.stage == RosterStage::Starting && roster.stage == RosterStage::Serving;
            let lost_main = set.roster.main_alive && !roster.main_alive;
            set.roster = Roster { planned: set.roster.planned, ..*roster };
            match roster.stage {
                // Without a main process nobody makes new ones: one look is enough.
                RosterStage::Serving if lost_main => set.search = Some(Search::new(0, now)),
                RosterStage::Serving if became_ready => set.search = Some(Search::new(roster.planned as usize, now)),
                RosterStage::Leaving => set.search = None,
                _ => {}
            }
        }
    }

    /// The main process of a generation was told to have so many workers more, or fewer.
    pub fn expect_more(&mut self, generation: GenerationId, more: i32, now: Instant) {
        let Some(set) = self.sets.get_mut(&generation) else { return };
        let planned = set.roster.planned.saturating_add_signed(more).max(1);
        set.dismissed += set.roster.planned.saturating_sub(planned);
        set.roster.planned = planned;
        if more > 0 {
            set.search = Some(Search::new(set.roster.planned as usize, now));
        }
    }

    /// What to wait for: descriptors that become readable, and a time.
    #[must_use]
    pub fn interest(&self) -> (Vec<BorrowedFd<'_>>, Option<Instant>) {
        let workers = || self.sets.values().flat_map(|set| set.workers.values());
        // The handle of one that has ended stays readable.
        let living = workers().filter(|worker| worker.end == End::NotSeen);
        let handles = living.filter_map(|worker| worker.handle.as_ref().map(AsFd::as_fd)).collect();
        let hidden = workers().any(|worker| matches!(worker.end, End::Hidden { .. }));
        let ask_again = hidden.then(|| Instant::now() + ASK_AGAIN);
        let searches = self.sets.values().filter_map(|set| set.search.map(|search| search.next()));
        (handles, searches.chain(ask_again).chain(self.look_at()).min())
    }

    /// When to look for workers that may have ended without a descriptor that told of it: before Linux 5.3, where a
    /// sandbox refuses `pidfd_open`, or when there are no descriptors to spare.
    fn look_at(&self) -> Option<Instant> {
        let lacks_handles = |set: &WorkerSet| set.workers.values().any(|worker| worker.handle.is_none());
        let needed = self.sets.values().any(lacks_handles);
        needed.then(|| self.looked.map_or_else(Instant::now, |looked| looked + LOOK_AGAIN))
    }

    /// Takes note of who ended, and looks for others where it is time to.
    pub fn advance(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Vec<WorkerExit> {
        let mut exits = Vec::new();
        for set in self.sets.values_mut() {
            let (before, dismissed) = (set.workers.len(), set.dismissed);
            let ended = set.take_ended(ready, now);
            let recorded: Vec<WorkerExit> =
                ended.iter().map(|worker| set.record_exit(worker, &mut self.oom, now)).collect();
            // Those that their main process was told to do without are not replaced.
            let missing = recorded.len() - (dismissed - set.dismissed) as usize;
            if missing > 0 && set.roster.stage == RosterStage::Serving && set.roster.main_alive {
                let wanted = (set.workers.len() + missing).max(set.roster.planned as usize);
                set.search = Some(Search::new(wanted, now));
            }
            exits.extend(recorded);
            if set.search.is_some_and(|search| search.next() <= now) {
                exits.extend(set.look(&mut self.oom, now));
                set.search = set.search.and_then(|search| search.found(set.workers.len(), now));
            }
            self.revision += u64::from(set.workers.len() != before);
        }
        self.count(&exits);
        if self.look_at().is_some_and(|at| at <= now) {
            exits.extend(self.look(now));
        }
        exits
    }

    /// Looks for workers of all generations now, because a client asked.
    pub fn look(&mut self, now: Instant) -> Vec<WorkerExit> {
        self.looked = Some(now);
        let mut exits = Vec::new();
        for set in self.sets.values_mut() {
            let before = set.workers.len();
            exits.extend(set.look(&mut self.oom, now));
            self.revision += u64::from(set.workers.len() != before);
        }
        self.count(&exits);
        exits
    }

    /// A process that had become our child was reaped.
    pub fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        for worker in self.sets.values_mut().filter_map(|set| set.workers.get_mut(&pid)) {
            worker.end = End::Known(status);
        }
    }

    /// Whether a process that SIGKILL has just ended was killed for lack of memory. One OOM kill explains one death.
    pub fn claim_oom(&mut self, now: Instant) -> bool {
        self.oom.claim(now)
    }

    /// The workers of a generation that live, with what they use.
    #[must_use]
    pub fn usage(&self, generation: GenerationId) -> Vec<(Pid, Usage)> {
        let workers = self.sets.get(&generation).into_iter().flat_map(|set| set.workers.values());
        workers.filter_map(|worker| Some((worker.process.pid, Usage::read(&worker.process)?))).collect()
    }

    /// The workers of a generation, as they were when they were found.
    #[must_use]
    pub fn of(&self, generation: GenerationId) -> Vec<Process> {
        let workers = self.sets.get(&generation).into_iter().flat_map(|set| set.workers.values());
        workers.map(|worker| worker.process).collect()
    }

    /// A number that grows whenever a worker comes or goes.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// A worker will be ended by us, and for this.
    pub fn mark_killed(&mut self, generation: GenerationId, pid: Pid, cause: Cause) {
        let set = self.sets.get_mut(&generation);
        if let Some(worker) = set.and_then(|set| set.workers.get_mut(&pid)) {
            worker.remedy = Some(cause);
        }
    }

    /// How many workers of a generation ended before it was told to leave, and the last of them.
    #[must_use]
    pub fn record(&self, generation: GenerationId) -> (u64, Option<WorkerExit>) {
        self.sets.get(&generation).map_or((0, None), |set| (set.restarts, set.last))
    }

    /// How many workers a generation should have.
    #[must_use]
    pub fn planned(&self, generation: GenerationId) -> Option<u32> {
        self.sets.get(&generation).map(|set| set.roster.planned)
    }

    /// Ends that were not expected since the start, by cause; every cause is there.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<String, u64> {
        let causes = [
            Cause::Oom,
            Cause::Hung,
            Cause::Rss,
            Cause::Age,
            Cause::Requests,
            Cause::Signal(0),
            Cause::Exit(0),
            Cause::Unknown,
        ];
        causes.map(|cause| (cause.word().to_owned(), self.ends.get(cause.word()).copied().unwrap_or(0))).into()
    }

    fn count(&mut self, exits: &[WorkerExit]) {
        for exit in exits.iter().filter(|exit| !exit.expected) {
            *self.ends.entry(exit.cause.word()).or_default() += 1;
        }
        // One may have come in the place of one that went.
        self.revision += u64::from(!exits.is_empty());
    }
}

impl WorkerSet {
    const fn new(roster: Roster) -> Self {
        let roster = Roster { main_alive: true, stage: RosterStage::Starting, ..roster };
        Self { roster, workers: BTreeMap::new(), dismissed: 0, restarts: 0, last: None, search: None }
    }

    /// Takes those out that have ended. That a descriptor was ready may be stale; the kernel is asked again.
    fn take_ended(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Vec<Worker> {
        for worker in self.workers.values_mut() {
            worker.find_end(ready, now);
        }
        let is_decided = |worker: &Worker| matches!(worker.end, End::Known(_) | End::Unknown);
        let ended: Vec<Pid> =
            self.workers.iter().filter(|(_, worker)| is_decided(worker)).map(|(pid, _)| *pid).collect();
        ended.iter().filter_map(|pid| self.workers.remove(pid)).collect()
    }

    fn record_exit(&mut self, worker: &Worker, oom: &mut OomWatch, now: Instant) -> WorkerExit {
        let process = &worker.process;
        let cause = worker.remedy.unwrap_or_else(|| Cause::of(worker.status(), || oom.claim(now)));
        let is_polite = matches!(cause, Cause::Exit(0) | Cause::Signal(libc::SIGTERM));
        let is_recycled = matches!(cause, Cause::Rss | Cause::Age | Cause::Requests);
        let is_asked_for = is_polite && self.dismissed > 0;
        self.dismissed = self.dismissed.saturating_sub(u32::from(is_polite || is_recycled));
        let expected = is_asked_for || self.roster.stage == RosterStage::Leaving;
        self.restarts += u64::from(!expected);
        let exit = WorkerExit {
            generation: self.roster.generation,
            pid: process.pid,
            cause,
            age: usage::age(process),
            at: now,
            restarts: self.restarts,
            expected,
        };
        if !expected {
            self.last = Some(exit);
        }
        exit
    }

    /// Looks who is there: adds newcomers, and buries those that went unnoticed.
    fn look(&mut self, oom: &mut OomWatch, now: Instant) -> Vec<WorkerExit> {
        let present = self.present();
        let is_present = |worker: &Worker| {
            present.iter().any(|process| (process.pid, process.start) == (worker.process.pid, worker.process.start))
        };
        // A new process may have the number of one that is gone. Who has a handle is noticed by that.
        let gone: Vec<Pid> = self
            .workers
            .iter()
            .filter(|(pid, worker)| {
                !is_present(worker) && (worker.handle.is_none() || present.iter().any(|process| process.pid == **pid))
            })
            .map(|(pid, _)| *pid)
            .collect();
        let gone: Vec<Worker> = gone.iter().filter_map(|pid| self.workers.remove(pid)).collect();
        let exits = gone.iter().map(|worker| self.record_exit(worker, oom, now)).collect();
        let room = MOST_HANDLES.min(getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft / 4));
        for process in present {
            let held = self.workers.values().filter(|worker| worker.handle.is_some()).count() as u64;
            if !self.workers.contains_key(&process.pid) && !is_pythons_own(process.pid) {
                let handle = if held < room { open(&process) } else { None };
                self.workers.insert(process.pid, Worker { process, handle, end: End::NotSeen, remedy: None });
            }
        }
        exits
    }

    /// The children of the main process; when that is gone, the members of its group that became our children.
    fn present(&self) -> Vec<Process> {
        let living = |process: &Process| !process.is_zombie();
        if self.roster.main_alive {
            return processes::children_of(self.roster.main).into_iter().filter(living).collect();
        }
        let orphans = processes::children_of(getpid()).into_iter();
        orphans.filter(|orphan| orphan.group == self.roster.main && living(orphan)).collect()
    }
}

/// Python's multiprocessing starts processes for itself beside the workers.
fn is_pythons_own(pid: Pid) -> bool {
    let command = processes::command_line(pid);
    let command = String::from_utf8_lossy(&command);
    ["multiprocessing.resource_tracker", "multiprocessing.forkserver"].iter().any(|name| command.contains(name))
}

#[cfg(test)]
mod tests;
