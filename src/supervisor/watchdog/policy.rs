//! When a silent worker is a hung one, and when it may be ended. Pure: what was seen of the workers and the time go
//! in, verdicts come out.
//!
//! A worker's event loop regularly writes the time into its slot of the scoreboard. If that time is too long ago, the
//! worker is a suspect. Perhaps the whole machine was stopped: a closed laptop, a paused virtual machine, a frozen
//! cgroup. So what counts is that the worker stays silent while *we* run: we look several times, with some time in
//! between, and a pause of any length only counts as one look. A worker that is runnable but gets no CPU has more time,
//! and one that waits until its output is read is only reported.
//!
//! Workers are ended one at a time, because the others carry its load until the next one is ready.
//!
//! All times are on the clock of the scoreboard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::guard::scoreboard::State;
use crate::ids::ProcessId;
use crate::proc::thread_stats::ThreadStats;

/// Between two looks at a suspect.
const STEP: Duration = Duration::from_millis(250);
/// So many looks in vain make a suspect a hung worker: 1.5 s of our own running time.
const LOOKS: u32 = 6;
/// The same after we were stopped ourselves: a machine that resumes has much to catch up with.
const LOOKS_AFTER_PAUSE: u32 = 40;
/// A look that is this late means that we were stopped ourselves.
const PAUSE: Duration = Duration::from_secs(1);
/// From SIGABRT to SIGKILL: time to write a traceback.
const ABORT_GRACE: Duration = Duration::from_secs(1);
/// Who gets this much processor time and is still silent is not starved.
const ENOUGH_CPU: Duration = Duration::from_millis(250);
/// Between two looks at a worker that is silent for a reason.
const EXCUSED: Duration = Duration::from_secs(2);
/// A worker that waits for its output to be read is reported this often.
const REPORTS: Duration = Duration::from_mins(10);

/// How long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How old the stamp of a ready worker may get.
    pub timeout: Duration,
    /// How long a worker may start up, and how long the next hung worker waits for the last one's successor.
    pub startup: Duration,
    /// No worker is ended so soon after the start of any: Granian gives up when one slot fails twice in 5.5 s.
    pub pace: Duration,
    /// Whether every child of the main process is a worker, so that one without a slot is one that does not start.
    pub all_take_slots: bool,
}

/// A worker as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Who.
    pub id: ProcessId,
    /// When its process was started.
    pub started: Duration,
    /// What it says of itself, if it has a slot.
    pub stamp: Option<Stamp>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// How far it has got.
    pub state: State,
    /// When it took its slot.
    pub claimed: Duration,
    /// When its event loop last ran.
    pub heartbeat: Duration,
    /// Whether the server does not tell the app when it starts, so that a slot is taken with the first request.
    pub no_lifespan: bool,
    /// Whether SIGABRT makes it write where it is.
    pub traceback_on_abort: bool,
}

/// What is to be done about a worker, with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Who.
    pub id: ProcessId,
    /// What.
    pub remedy: Remedy,
    /// Whether it is one that does not get ready.
    pub is_starting: bool,
    /// How long it has been silent, or starting.
    pub silent: Duration,
    /// How long it was watched as a suspect.
    pub watched: Duration,
    /// The processor time that it took meanwhile.
    pub cpu: Duration,
    /// Its state in the kernel.
    pub state: char,
}

/// What is to be done about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is hung: SIGABRT, so that it writes where it is.
    Abort,
    /// It is hung: SIGKILL.
    Kill,
    /// SIGABRT did not end it: SIGKILL.
    Finish,
    /// It waits for its output to be read: a line in the log.
    Report,
}

/// The watch over the workers of the generation that serves.
#[derive(Debug)]
pub struct Liveness {
    rules: Rules,
    suspects: BTreeMap<ProcessId, Suspect>,
    /// When each was started, as it was found first: the age of a process is read on another clock, to the tick.
    started: BTreeMap<ProcessId, Duration>,
    /// Whether the workers of this generation take their slots when they start, as one of them has shown.
    speaks_lifespan: bool,
    ending: Option<Ending>,
    next: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// The stamp that came of age; a newer one clears it.
    mark: Duration,
    since: Duration,
    before: Option<ThreadStats>,
    looks: u32,
    needed: u32,
    again: Duration,
    reported: Option<Duration>,
}

/// What holds for all workers in one look.
#[derive(Debug, Clone, Copy)]
struct Look {
    now: Duration,
    /// Whether we were stopped ourselves since the last one.
    was_paused: bool,
    /// Before that no worker may be ended.
    may_end_at: Option<Duration>,
}

/// The worker that was ended last, until the next one may be.
#[derive(Debug, Clone, Copy)]
struct Ending {
    verdict: Verdict,
    at: Duration,
    kill_at: Option<Duration>,
}

impl Liveness {
    /// A watch that looks at once.
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

    /// When to look again, if nothing happens before; none while there is nobody to watch.
    #[must_use]
    pub const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Whether a worker was ended, and there is no other in its place yet.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Looks at the workers, of which so many should be ready. `condition` asks the kernel about one of them, and is
    /// called for suspects only; none when it is gone.
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
            // Nobody tells us when one gets ready.
            next = next.into_iter().chain([now + self.rules.timeout]).min();
        }
        self.next = next;
        verdicts
    }

    /// Looks at one worker: what is to be done about it, and when to look again.
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
            // It has just gone, or there is no descriptor to spare: nothing is done on a guess.
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

    /// Kills the worker that did not end on SIGABRT, and finds out whether the next one may be ended.
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

    /// Takes one more look, and says whether there have been enough of them. A newer stamp starts anew.
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

    /// Whether it is time for a line in the log, which counts as written.
    fn take_report(&mut self, now: Duration) -> bool {
        let is_due = self.reported.is_none_or(|at| now >= at + REPORTS);
        if is_due {
            self.reported = Some(now);
        }
        is_due
    }
}

impl Rules {
    /// The stamp that a worker is to renew, and how old it may get. None for one that is on its way out.
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

/// Whether a worker has been waiting for a processor rather than for anything else.
fn is_starved(now: &ThreadStats, before: &ThreadStats, elapsed: Duration) -> bool {
    let delay = now.delay.saturating_sub(before.delay);
    now.cpu.saturating_sub(before.cpu) < ENOUGH_CPU && !now.is_stopped() && (now.is_runnable || delay >= elapsed / 2)
}

#[cfg(test)]
mod tests;
