//! The workers of one generation.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getpid};

use super::search::Search;
use super::worker::{End, Worker, open};
use super::{Cause, OomWatch, Repeats, Roster, RosterStage, WorkerExit};
use crate::proc::process::{self as processes, Process};
use crate::proc::sockets;
use crate::proc::usage;

/// The maximum number of pidfds; further workers are listed, and their end is noticed at the next search.
const MOST_HANDLES: u64 = 512;

/// The cause when we kill it because its time is up.
const KILLED: Cause = Cause::Signal(libc::SIGKILL);

/// The workers of one generation.
#[derive(Debug)]
pub(super) struct WorkerSet {
    pub(super) roster: Roster,
    pub(super) workers: BTreeMap<Pid, Worker>,
    /// How many were asked to leave and have not ended yet.
    pub(super) dismissed: u32,
    pub(super) restarts: u64,
    pub(super) last: Option<WorkerExit>,
    /// The ends of workers while it starts.
    pub(super) repeats: Repeats,
    pub(super) search: Option<Search>,
}

impl WorkerSet {
    pub(super) fn new(roster: Roster, now: Instant) -> Self {
        let search = Some(Search::at_start(roster.planned as usize, now));
        let roster = Roster { main_alive: true, stage: RosterStage::Starting, ..roster };
        let (workers, repeats) = (BTreeMap::new(), Repeats::default());
        Self { roster, workers, dismissed: 0, restarts: 0, last: None, repeats, search }
    }

    /// Removes those that have ended. A ready descriptor may be outdated, so the kernel is asked again.
    pub(super) fn take_ended(&mut self, ready: &BTreeSet<RawFd>, now: Instant) -> Vec<Worker> {
        for worker in self.workers.values_mut() {
            worker.find_end(ready, now);
        }
        let is_decided = |worker: &Worker| matches!(worker.end, End::Known(_) | End::Unknown);
        let ended: Vec<Pid> =
            self.workers.iter().filter(|(_, worker)| is_decided(worker)).map(|(pid, _)| *pid).collect();
        ended.iter().filter_map(|pid| self.workers.remove(pid)).collect()
    }

    pub(super) fn record_exit(&mut self, worker: &Worker, oom: &mut OomWatch, now: Instant) -> WorkerExit {
        let process = &worker.process;
        let status = worker.status();
        let cause = worker.remedy.unwrap_or_else(|| Cause::of(status, || oom.claim(now)));
        let is_polite = matches!(cause, Cause::Exit(0) | Cause::Signal(libc::SIGTERM));
        let is_recycled = matches!(cause, Cause::Rss | Cause::Age | Cause::Requests | Cause::Stuck | Cause::Spin);
        let is_asked_for = is_polite && self.dismissed > 0;
        self.dismissed = self.dismissed.saturating_sub(u32::from(is_polite || is_recycled));
        let expected = is_asked_for || self.roster.stage == RosterStage::Leaving;
        self.restarts += u64::from(!expected);
        let exit = WorkerExit {
            generation: self.roster.generation,
            process: *process,
            cause,
            how: status.is_some().then(|| Cause::of(status, || false)),
            age: usage::age(process),
            at: now,
            restarts: self.restarts,
            expected,
            is_repeat: worker.is_reported || self.roster.stage == RosterStage::Starting && !self.repeats.add(cause),
        };
        if !expected {
            self.last = Some(exit);
        }
        exit
    }

    /// The ends of those that are about to be killed, or whose end has not been seen yet.
    pub(super) fn cut_short(&mut self, now: Instant) -> Vec<WorkerExit> {
        let (generation, restarts) = (self.roster.generation, self.restarts);
        let running = self.workers.values_mut().filter(|worker| worker.end == End::NotSeen && !worker.is_reported);
        let exit = |worker: &mut Worker| {
            worker.is_reported = true;
            WorkerExit {
                generation,
                process: worker.process,
                cause: KILLED,
                how: Some(KILLED),
                age: usage::age(&worker.process),
                at: now,
                restarts,
                expected: true,
                is_repeat: false,
            }
        };
        running.map(exit).collect()
    }

    /// Searches for workers: adds new ones, and removes those whose end went unnoticed.
    pub(super) fn look(&mut self, oom: &mut OomWatch, now: Instant) -> Vec<WorkerExit> {
        let present = self.present();
        let is_present = |worker: &Worker| {
            present.iter().any(|process| (process.pid, process.start) == (worker.process.pid, worker.process.start))
        };
        // A new process may have the pid of one that has ended. The end of a worker with a pidfd is noticed by that.
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
        self.reconsider(&present);
        let room = MOST_HANDLES.min(getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft / 4));
        for process in present {
            let held = self.workers.values().filter(|worker| worker.handle.is_some()).count() as u64;
            if !self.workers.contains_key(&process.pid) && self.is_worker(process.pid) {
                let handle = if held < room { open(&process) } else { None };
                self.workers.insert(
                    process.pid,
                    Worker { process, handle, end: End::NotSeen, remedy: None, is_reported: false },
                );
            }
        }
        self.search = match self.search {
            // Whoever asked for this search: those that may turn out to be something else are looked at again.
            None if self.roster.stage != RosterStage::Leaving && !self.are_settled() => {
                Some(Search::new(self.workers.len(), now))
            }
            search => search,
        };
        exits
    }

    /// Forgets those that have executed a program since they were seen, and are no workers now.
    fn reconsider(&mut self, present: &[Process]) {
        for process in present.iter().filter(|process| !process.is_copy) {
            let known = self.workers.get(&process.pid).map(|worker| worker.process);
            if known.is_none_or(|known| !known.is_copy || known.id() != process.id()) {
                continue;
            }
            if !self.is_worker(process.pid) {
                self.workers.remove(&process.pid);
            } else if let Some(worker) = self.workers.get_mut(&process.pid) {
                worker.process = *process;
            }
        }
    }

    /// Whether none of them may turn out to be something else.
    pub(super) fn are_settled(&self) -> bool {
        self.workers.values().all(Worker::is_settled)
    }

    /// The children of the main process; after its end, the members of its group that became our children.
    fn present(&self) -> Vec<Process> {
        let living = |process: &Process| !process.is_zombie();
        if self.roster.main_alive {
            return processes::children_of(self.roster.main).into_iter().filter(living).collect();
        }
        let orphans = processes::children_of(getpid()).into_iter();
        orphans.filter(|orphan| orphan.group == self.roster.main && living(orphan)).collect()
    }
}

impl WorkerSet {
    /// While a generation starts, its main process may import an app that runs programs.
    fn is_worker(&self, pid: Pid) -> bool {
        let is_known = |socket| sockets::owns(pid.as_raw(), &BTreeSet::from([socket]));
        self.roster.known_by.is_none_or(is_known) && !is_pythons_own(pid)
    }
}

/// Python's multiprocessing starts helper processes next to the workers.
pub(in crate::supervisor) fn is_pythons_own(pid: Pid) -> bool {
    let command = processes::command_line(pid);
    let command = String::from_utf8_lossy(&command);
    ["multiprocessing.resource_tracker", "multiprocessing.forkserver"].iter().any(|name| command.contains(name))
}
