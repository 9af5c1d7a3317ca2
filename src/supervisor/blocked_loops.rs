//! Logs where a worker is whose event loop has been blocked for longer than a request may take
//! (`MCP_LAUNCH_REQUEST_TIMEOUT`). It does not end such a worker: that is the [watchdog](super::watchdog)'s task, which has
//! a limit of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::warn;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::observers::log::show_rounded;
use super::stacks::Purpose;
use crate::control::protocol::StackAnswer;
use crate::control::stacks::WorkerStacks;
use crate::guard::scoreboard::{self, State};
use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;

/// The longest interval between two heartbeats: only a longer silence counts.
const BEAT: Duration = Duration::from_millis(500);
/// A look that is this late means that we were stopped ourselves, and perhaps the workers as well.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a worker has to tell where it is.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// How many different stacks are logged, and how many frames of each, the innermost.
const STACKS: usize = 6;
const FRAMES: usize = 20;

/// Looks for workers that are silent.
#[derive(Debug, Default)]
pub(super) struct BlockedLoops {
    /// When to look next, on the clock of the scoreboard; none before the first look.
    next: Option<Duration>,
    /// The last heartbeat of each worker that was asked: a pause is logged once.
    asked: BTreeMap<ProcessId, Duration>,
    /// The worker that is asked, how long it had been silent, and when it has had time enough to answer.
    waiting: Option<(ProcessId, Duration, Instant)>,
}

impl Component for BlockedLoops {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        if world.longest_pause().is_none() {
            return;
        }
        waits.until(self.next.map(|next| Instant::now() + next.saturating_sub(scoreboard::now())));
        waits.until(self.waiting.map(|(worker, _, until)| world.inquiries.due(worker, Purpose::Blocked, until)));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let Some((generation, pause)) = world.longest_pause() else {
            *self = Self::default();
            return Vec::new();
        };
        self.log_answer(generation, world);
        let now = scoreboard::now();
        if self.next.is_some_and(|next| now > next + PAUSE) {
            self.next = Some(now + 2 * BEAT);
        } else if self.next.is_none_or(|next| next <= now) {
            self.look(generation, pause, now, world);
        }
        Vec::new()
    }
}

impl BlockedLoops {
    /// Asks the first worker that has been silent for too long, if none is being asked.
    fn look(&mut self, generation: GenerationId, pause: Duration, now: Duration, world: &mut World) {
        let is_ready = |slot: &scoreboard::Slot| slot.state == State::Ready;
        let beats: Vec<(ProcessId, Duration)> = world
            .slots(generation)
            .into_iter()
            .filter(|(_, slot)| is_ready(slot))
            .map(|(process, slot): (Process, _)| (process.id(), slot.heartbeat))
            .collect();
        self.asked.retain(|id, heartbeat| beats.contains(&(*id, *heartbeat)));
        let silent = |heartbeat: Duration| now.saturating_sub(heartbeat);
        let is_late =
            |(id, heartbeat): &&(ProcessId, Duration)| silent(*heartbeat) >= pause && !self.asked.contains_key(id);
        if self.waiting.is_none()
            && let Some((id, heartbeat)) = beats.iter().find(is_late)
        {
            self.asked.insert(*id, *heartbeat);
            self.waiting = Some((*id, silent(*heartbeat), Instant::now() + ANSWERED_WITHIN));
            world.inquiries.ask_about(*id, Purpose::Blocked);
        }
        // A worker that is silent already has been asked, or is as soon as the one before has answered.
        let due = beats.iter().map(|(_, heartbeat)| *heartbeat + pause).filter(|due| *due > now).min();
        self.next = Some(due.unwrap_or(now + pause));
    }

    fn log_answer(&mut self, generation: GenerationId, world: &mut World) {
        let Some((worker, silent, until)) = self.waiting else { return };
        let answers = world.inquiries.take_answers_about(worker, Purpose::Blocked);
        if answers.is_empty() && Instant::now() < until {
            return;
        }
        self.waiting = None;
        // Others may be waiting for their turn.
        self.next = None;
        let (generation, silent) = (generation.0, show_rounded(silent));
        warn!(generation, pid = %worker, silent, "worker is blocked for longer than a request may take");
        let stacks = answers.iter().flatten().next().map(stacks).unwrap_or_default();
        for stack in stacks.iter().take(STACKS) {
            warn!(generation, pid = %worker, stack, "blocked worker");
        }
    }
}

/// Where the threads are, each place once, the main thread first: it has the event loop, if there is one.
fn stacks(answer: &StackAnswer) -> Vec<String> {
    let mut stacks = Vec::new();
    // The main thread is the last one.
    for stack in WorkerStacks::read(answer).threads.iter().rev().map(|thread| thread.innermost_first(FRAMES)) {
        if !stacks.contains(&stack) {
            stacks.push(stack);
        }
    }
    stacks
}

impl World {
    /// The serving generation, if its workers must not be silent for so long.
    fn longest_pause(&self) -> Option<(GenerationId, Duration)> {
        let serving = self.state.serving().filter(|_| !self.state.is_ending())?;
        self.running.get(&serving.id)?.board.as_ref()?;
        let pause = self.plans.get(&serving.plan)?.longest_pause?;
        Some((serving.id, pause + BEAT))
    }
}
