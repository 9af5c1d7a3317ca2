//! When a silent worker is a hung one, and when it may be ended. Pure: the input is the state of the workers and the
//! time, the output is verdicts.
//!
//! A worker's event loop regularly writes the time into its slot of the scoreboard. If that time is too long ago, the
//! worker is a suspect. Perhaps the whole machine was stopped: a closed laptop, a paused virtual machine, a frozen
//! cgroup. So what counts is that the worker stays silent while *we* run: we check several times, with some time in
//! between, and a pause of any length only counts as one check. A worker that is runnable but gets no CPU has more
//! time, and one that is blocked because its output is not read is only reported.
//!
//! Workers are ended one at a time, because the others carry its load until the next one is ready.
//!
//! All times are on the clock of the scoreboard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::guard::scoreboard::State;
use crate::ids::ProcessId;
use crate::proc::thread_stats::ThreadStats;

/// The interval between two checks of a suspect.
const STEP: Duration = Duration::from_millis(250);
/// After this many checks without progress a suspect counts as hung: 1.5 s of our own running time.
const LOOKS: u32 = 6;
/// The same after we were stopped ourselves: a machine that resumes has much to catch up with.
const LOOKS_AFTER_PAUSE: u32 = 40;
/// A check that is this late means that we were stopped ourselves.
const PAUSE: Duration = Duration::from_secs(1);
/// From the verdict to SIGKILL: time to tell where it is, and then, after SIGABRT, to write a traceback.
const ABORT_GRACE: Duration = Duration::from_secs(2);
/// A worker that gets this much CPU time and is still silent is not starved.
const ENOUGH_CPU: Duration = Duration::from_millis(250);
/// The interval between two checks of a worker that is silent for a known reason.
const EXCUSED: Duration = Duration::from_secs(2);
/// How often a worker is reported that is blocked because its output is not read.
const REPORTS: Duration = Duration::from_mins(10);

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How old the heartbeat of a ready worker may be.
    pub timeout: Duration,
    /// How long a worker may take to start, and how long the next hung worker waits for the last one's successor.
    pub startup: Duration,
    /// No worker is ended so soon after the start of any other: Granian gives up when one slot fails twice in 5.5 s.
    pub pace: Duration,
    /// Whether every child of the main process is a worker, so that one without a slot is a worker that does not start.
    pub all_take_slots: bool,
}

/// A worker as it was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its identity.
    pub id: ProcessId,
    /// When its process was started.
    pub started: Duration,
    /// Its report, if it has a slot.
    pub stamp: Option<Stamp>,
}

/// The report of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its state.
    pub state: State,
    /// When it took its slot.
    pub claimed: Duration,
    /// When its event loop last ran.
    pub heartbeat: Duration,
    /// Whether the server does not call the app when it starts, so that a slot is taken with the first request.
    pub no_lifespan: bool,
    /// Whether it writes a traceback on SIGABRT.
    pub traceback_on_abort: bool,
}

/// The finding about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The worker.
    pub id: ProcessId,
    /// What is to be done.
    pub remedy: Remedy,
    /// Whether it is one that does not become ready.
    pub is_starting: bool,
    /// How long it has been silent, or starting.
    pub silent: Duration,
    /// How long it was watched as a suspect.
    pub watched: Duration,
    /// The CPU time that it used during that time.
    pub cpu: Duration,
    /// Its state in the kernel.
    pub state: char,
}

/// What is to be done about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is hung: SIGABRT, so that it writes a traceback.
    Abort,
    /// It is hung: SIGKILL.
    Kill,
    /// SIGABRT did not end it: SIGKILL.
    Finish,
    /// It is blocked because its output is not read: log it.
    Report,
}

/// The watch over the workers of the serving generation.
#[derive(Debug)]
pub struct Liveness {
    rules: Rules,
    suspects: BTreeMap<ProcessId, Suspect>,
    /// When each was started, according to the first check: the age of a process is measured on another clock, in
    /// ticks.
    started: BTreeMap<ProcessId, Duration>,
    /// Whether the workers of this generation take their slots when they start, as one of them has shown.
    speaks_lifespan: bool,
    ending: Option<Ending>,
    next: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// The heartbeat that is too old; a newer one ends the suspicion.
    mark: Duration,
    since: Duration,
    before: Option<ThreadStats>,
    looks: u32,
    needed: u32,
    again: Duration,
    reported: Option<Duration>,
}

/// What applies to all workers in one check.
#[derive(Debug, Clone, Copy)]
struct Look {
    now: Duration,
    /// Whether we were stopped ourselves since the last check.
    was_paused: bool,
    /// Until then no worker may be ended.
    may_end_at: Option<Duration>,
}

/// The worker that was last ended, until the next one may be.
#[derive(Debug, Clone, Copy)]
struct Ending {
    verdict: Verdict,
    at: Duration,
    kill_at: Option<Duration>,
}

impl Liveness {
    /// A watch whose first check is due at once.
    #[must_use]
    pub const fn new(rules: Rules, now: Duration) -> Self {
        Self {
            rules,
            suspects: BTreeMap::new(),
            started: BTreeMap::new(),
            speaks_lifespan: false,
            ending: None,
            next: Some(now),
        }
    }

    /// When to check again if nothing happens before; none while there is no worker to watch.
    #[must_use]
    pub const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Whether a worker was ended, and there is no other in its place yet.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Checks the workers, of which `planned` should be ready. `condition` asks the kernel about one of them, and is
    /// only called for suspects; none when it no longer exists.
    pub fn look(
        &mut self,
        now: Duration,
        planned: usize,
        workers: &[Sample],
        mut condition: impl FnMut(ProcessId) -> Option<ThreadStats>,
    ) -> Vec<Verdict> {
        let was_paused = self.next.is_some_and(|next| now > next + PAUSE);
        let mut verdicts: Vec<Verdict> = self.go_on_ending(now, planned, workers).into_iter().collect();
        self.suspects.retain(|id, _| workers.iter().any(|worker| worker.id == *id));
        self.started.retain(|id, _| workers.iter().any(|worker| worker.id == *id));
        self.speaks_lifespan |= workers.iter().any(|worker| worker.stamp.is_some_and(|stamp| !stamp.no_lifespan));
        let youngest = workers.iter().map(|worker| worker.started).max();
        let may_end_at = youngest.filter(|_| !self.rules.pace.is_zero()).map(|started| started + self.rules.pace);
        let look = Look { now, was_paused, may_end_at };
        let mut next = self.ending.and_then(|ending| ending.kill_at);
        for worker in workers {
            let (verdict, again) = self.judge(worker, look, &mut condition);
            verdicts.extend(verdict);
            next = next.into_iter().chain(again).min();
        }
        let is_ready = |worker: &&Sample| worker.stamp.is_some_and(|stamp| stamp.state == State::Ready);
        if workers.iter().filter(is_ready).count() < planned {
            // It is not reported to us when one becomes ready.
            next = next.into_iter().chain([now + self.rules.timeout]).min();
        }
        self.next = next;
        verdicts
    }

    /// Checks one worker: what is to be done about it, and when to check again.
    fn judge(
        &mut self,
        worker: &Sample,
        Look { now, was_paused, may_end_at }: Look,
        condition: &mut impl FnMut(ProcessId) -> Option<ThreadStats>,
    ) -> (Option<Verdict>, Option<Duration>) {
        let started = *self.started.entry(worker.id).or_insert(worker.started);
        let is_being_ended = self.ending.is_some_and(|ending| ending.verdict.id == worker.id);
        let allowance = self.rules.allowance(worker, started, self.speaks_lifespan).filter(|_| !is_being_ended);
        let Some((mark, allowed)) = allowance else { return (None, None) };
        let due = mark + allowed;
        let suspected = due.saturating_sub((STEP * LOOKS).min(allowed / 4));
        if now < suspected {
            self.suspects.remove(&worker.id);
            return (None, Some(suspected));
        }
        let suspect = self.suspects.entry(worker.id).or_insert_with(|| Suspect::new(mark, now));
        if !suspect.look(mark, now, was_paused, || condition(worker.id)) || now < due {
            return (None, Some(suspect.again));
        }
        let (Some(before), Some(is)) = (suspect.before, condition(worker.id)) else {
            // It has just ended, or no descriptor is available: nothing is done on a guess.
            return (None, Some(now + STEP));
        };
        let watched = now.saturating_sub(suspect.since);
        let verdict = |remedy| Verdict {
            id: worker.id,
            remedy,
            is_starting: worker.stamp.is_none_or(|stamp| stamp.state == State::Starting),
            silent: now.saturating_sub(mark),
            watched,
            cpu: is.cpu.saturating_sub(before.cpu),
            state: is.state,
        };
        if is.is_writing {
            suspect.again = now + EXCUSED;
            return (suspect.take_report(now).then(|| verdict(Remedy::Report)), Some(suspect.again));
        }
        if self.ending.is_some() || is_starved(&is, &before, watched) && now < due + allowed {
            suspect.again = now + STEP;
            return (None, Some(suspect.again));
        }
        if let Some(at) = may_end_at.filter(|at| now < *at) {
            suspect.again = at;
            return (None, Some(at));
        }
        let says_where = worker.stamp.is_some_and(|stamp| stamp.traceback_on_abort) && !is.is_stopped();
        let verdict = verdict(if says_where { Remedy::Abort } else { Remedy::Kill });
        let kill_at = says_where.then_some(now + ABORT_GRACE);
        self.ending = Some(Ending { verdict, at: now, kill_at });
        (Some(verdict), kill_at)
    }

    /// Kills the worker that did not end on SIGABRT, and checks whether the next one may be ended.
    fn go_on_ending(&mut self, now: Duration, planned: usize, workers: &[Sample]) -> Option<Verdict> {
        let ending = self.ending.as_mut()?;
        let is_there = workers.iter().any(|worker| worker.id == ending.verdict.id);
        let is_ready = |worker: &&Sample| worker.stamp.is_some_and(|stamp| stamp.state == State::Ready);
        let ready = workers.iter().filter(|worker| worker.id != ending.verdict.id).filter(is_ready).count();
        if (!is_there && ready >= planned) || now >= ending.at + self.rules.startup + ABORT_GRACE {
            self.ending = None;
            return None;
        }
        if !is_there {
            ending.kill_at = None;
            return None;
        }
        ending.kill_at.take_if(|at| now >= *at)?;
        Some(Verdict {
            remedy: Remedy::Finish,
            silent: ending.verdict.silent + now.saturating_sub(ending.at),
            ..ending.verdict
        })
    }
}

impl Suspect {
    const fn new(mark: Duration, now: Duration) -> Self {
        Self { mark, since: now, before: None, looks: 0, needed: LOOKS, again: now, reported: None }
    }

    /// Checks once more, and returns whether there have been enough checks. A newer heartbeat starts from the
    /// beginning.
    fn look(
        &mut self,
        mark: Duration,
        now: Duration,
        was_paused: bool,
        condition: impl FnOnce() -> Option<ThreadStats>,
    ) -> bool {
        if self.mark != mark {
            *self = Self::new(mark, now);
        }
        if self.before.is_none() {
            self.before = condition();
        }
        if was_paused {
            self.needed = self.looks + LOOKS_AFTER_PAUSE;
        }
        if now >= self.again {
            self.looks += 1;
            self.again = now + STEP;
        }
        self.looks > self.needed
    }

    /// Whether a line in the log is due, which then counts as written.
    fn take_report(&mut self, now: Duration) -> bool {
        let is_due = self.reported.is_none_or(|at| now >= at + REPORTS);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }
}

impl Rules {
    /// The heartbeat that a worker must renew, and how old it may be. None for one that is stopping.
    fn allowance(&self, worker: &Sample, started: Duration, speaks_lifespan: bool) -> Option<(Duration, Duration)> {
        match worker.stamp {
            Some(Stamp { state: State::Ready, heartbeat, claimed, .. }) => {
                Some((heartbeat.max(claimed), self.timeout))
            }
            Some(Stamp { state: State::Starting, claimed, .. }) => Some((claimed, self.startup)),
            Some(Stamp { state: State::Stopping, .. }) => None,
            None => (self.all_take_slots && speaks_lifespan).then_some((started, self.startup)),
        }
    }
}

/// Whether a worker has been waiting for a CPU rather than for anything else.
fn is_starved(now: &ThreadStats, before: &ThreadStats, elapsed: Duration) -> bool {
    let delay = now.delay.saturating_sub(before.delay);
    now.cpu.saturating_sub(before.cpu) < ENOUGH_CPU && !now.is_stopped() && (now.is_runnable || delay >= elapsed / 2)
}

#[cfg(test)]
mod tests;
