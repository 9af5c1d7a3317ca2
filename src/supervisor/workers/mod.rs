//! The worker processes: which there are, when one ends, and why.
//!
//! The servers start and replace their workers themselves. We hold a pidfd of each, so a worker's end wakes the loop at
//! once, and its cause can be read: from the zombie, or from the kernel once it was reaped, or from the cgroup's count
//! of OOM kills. A new worker is found by searching: when its generation becomes ready, soon after another one has
//! ended, and on request. While nothing happens, there is no search.

mod cause;
mod repeats;
mod roster;
mod search;
mod set;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;
use crate::proc::usage::Usage;
pub use cause::{Cause, OomWatch};
pub use repeats::{Repeat, Repeats};
pub(super) use roster::Watch;
use search::Search;
use set::WorkerSet;
pub(super) use set::is_pythons_own;

use worker::End;

/// A generation, as far as its workers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roster {
    /// Its number.
    pub generation: GenerationId,
    /// Its main process.
    pub main: Pid,
    /// Whether that is running.
    pub main_alive: bool,
    /// How many workers its plan has.
    pub planned: u32,
    /// Its stage.
    pub stage: RosterStage,
    /// The socket that workers have open, and no other children of the main process; none if all of them count.
    pub known_by: Option<u64>,
}

/// The stage of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterStage {
    /// Not ready.
    Starting,
    /// Ready.
    Serving,
    /// Asked to stop: the end of its workers is expected.
    Leaving,
}

/// The end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerExit {
    /// Whose worker it was.
    pub generation: GenerationId,
    /// Its process.
    pub process: Process,
    /// Why.
    pub cause: Cause,
    /// How, whatever the cause: by a signal, or with an exit status. None if that is not known.
    pub how: Option<Cause>,
    /// How old it got.
    pub age: Duration,
    /// When that was noticed.
    pub at: Instant,
    /// Workers of the generation that ended before it was asked to stop, including this one.
    pub restarts: u64,
    /// Whether its end was expected.
    pub expected: bool,
    /// Whether it was reported already, or another worker that ended for the same cause during this start was.
    pub is_repeat: bool,
}

impl WorkerExit {
    /// Its process's number.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.process.pid
    }
}

/// The workers of all generations.
#[derive(Debug, Default)]
pub struct Workers {
    sets: BTreeMap<GenerationId, WorkerSet>,
    oom: OomWatch,
    /// Unexpected ends, by cause.
    ends: BTreeMap<&'static str, u64>,
    /// When all of them were last searched for.
    looked: Option<Instant>,
    /// Ends during starts that are over, which were counted and not reported.
    repeats: Vec<(GenerationId, Repeat)>,
    /// Increases whenever a worker comes or goes.
    revision: u64,
    /// Whether a worker was ended because it was hung, and there is no other in its place yet.
    pub(super) replaces_hung: bool,
    /// Those that use a processor although they have nothing to do.
    pub(super) spinning: BTreeSet<ProcessId>,
}

/// The interval between two attempts to find out how a worker ended, and between two searches for workers whose end no
/// descriptor reports.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Workers {
    /// Follows the stages of the generations.
    pub fn follow(&mut self, rosters: &[Roster], now: Instant) {
        let is_over = |id: &GenerationId| {
            let is_starting = |roster: &Roster| roster.generation == *id && roster.stage == RosterStage::Starting;
            !rosters.iter().any(is_starting)
        };
        for (id, set) in self.sets.iter_mut().filter(|(id, _)| is_over(id)) {
            self.repeats.extend(set.repeats.take().into_iter().map(|repeat| (*id, repeat)));
        }
        self.sets.retain(|id, _| rosters.iter().any(|roster| roster.generation == *id));
        for roster in rosters {
            let set = self.sets.entry(roster.generation).or_insert_with(|| WorkerSet::new(*roster, now));
            let became_ready = set.roster.stage == RosterStage::Starting && roster.stage == RosterStage::Serving;
            let lost_main = set.roster.main_alive && !roster.main_alive;
            set.roster = Roster { planned: set.roster.planned, ..*roster };
            match roster.stage {
                // Without a main process there are no new ones: one search is enough.
                RosterStage::Serving if lost_main => set.search = Some(Search::new(0, now)),
                RosterStage::Serving if became_ready => set.search = Some(Search::new(roster.planned as usize, now)),
                RosterStage::Leaving => set.search = None,
                _ => {}
            }
        }
    }

    /// The main process of a generation was asked for a change in the number of workers.
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
        // The pidfd of a worker that has ended stays readable.
        let living = workers().filter(|worker| worker.end == End::NotSeen);
        let handles = living.filter_map(|worker| worker.handle.as_ref().map(AsFd::as_fd)).collect();
        let hidden = workers().any(|worker| matches!(worker.end, End::Hidden { .. }));
        let ask_again = hidden.then(|| Instant::now() + ASK_AGAIN);
        let searches = self.sets.values().filter_map(|set| set.search.map(|search| search.next()));
        (handles, searches.chain(ask_again).chain(self.look_at()).min())
    }

    /// When to search for workers that may have ended without a descriptor that reports it: before Linux 5.3, if a
    /// sandbox refuses `pidfd_open`, or if no descriptors are available.
    fn look_at(&self) -> Option<Instant> {
        let lacks_handles = |set: &WorkerSet| set.workers.values().any(|worker| worker.handle.is_none());
        let needed = self.sets.values().any(lacks_handles);
        needed.then(|| self.looked.map_or_else(Instant::now, |looked| looked + LOOK_AGAIN))
    }

    /// Records which workers have ended, and searches for others if that is due.
    pub fn advance(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Vec<WorkerExit> {
        let mut exits = Vec::new();
        for set in self.sets.values_mut() {
            let (before, dismissed) = (set.workers.len(), set.dismissed);
            let ended = set.take_ended(ready, now);
            let recorded: Vec<WorkerExit> =
                ended.iter().map(|worker| set.record_exit(worker, &mut self.oom, now)).collect();
            // Workers that their main process was asked to end are not replaced.
            let missing = recorded.len() - (dismissed - set.dismissed) as usize;
            if missing > 0 && set.roster.stage != RosterStage::Leaving && set.roster.main_alive {
                let wanted = (set.workers.len() + missing).max(set.roster.planned as usize);
                set.search = Some(Search::new(wanted, now));
            }
            exits.extend(recorded);
            if set.search.is_some_and(|search| search.next() <= now) {
                exits.extend(set.look(&mut self.oom, now));
                set.search = set.search.and_then(|search| search.found(set.workers.len(), set.are_settled(), now));
            }
            self.revision += u64::from(set.workers.len() != before);
        }
        self.count(&exits);
        if self.look_at().is_some_and(|at| at <= now) {
            exits.extend(self.look(now));
        }
        exits
    }

    /// Searches for workers of all generations now, because a client asked.
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

    /// The workers of a generation are being killed, because their time is up. Returns the ends of those that have not been
    /// reported.
    pub fn cut_short(&mut self, generation: GenerationId, now: Instant) -> Vec<WorkerExit> {
        self.sets.get_mut(&generation).map(|set| set.cut_short(now)).unwrap_or_default()
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

    /// The running workers of a generation, with their resource use.
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

    /// What was counted and not reported during starts that are over.
    pub fn take_repeats(&mut self) -> Vec<(GenerationId, Repeat)> {
        std::mem::take(&mut self.repeats)
    }

    /// A number that grows whenever a worker comes or goes.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// We are going to end a worker, for this cause.
    pub fn mark_killed(&mut self, generation: GenerationId, pid: Pid, cause: Cause) {
        let set = self.sets.get_mut(&generation);
        if let Some(worker) = set.and_then(|set| set.workers.get_mut(&pid)) {
            worker.remedy = Some(cause);
        }
    }

    /// How many workers of a generation ended before it was asked to stop, and the last of them.
    #[must_use]
    pub fn record(&self, generation: GenerationId) -> (u64, Option<WorkerExit>) {
        self.sets.get(&generation).map_or((0, None), |set| (set.restarts, set.last))
    }

    /// How many workers a generation should have.
    #[must_use]
    pub fn planned(&self, generation: GenerationId) -> Option<u32> {
        self.sets.get(&generation).map(|set| set.roster.planned)
    }

    /// Unexpected ends since the start, by cause; every cause is listed.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<String, u64> {
        let causes = [
            Cause::Oom,
            Cause::Hung,
            Cause::Rss,
            Cause::Age,
            Cause::Requests,
            Cause::Stuck,
            Cause::Spin,
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
        // A new worker may have replaced one that ended.
        self.revision += u64::from(!exits.is_empty());
    }
}

#[cfg(test)]
mod tests;
