//! The record of each end: what it was, why, and what it was doing. It is logged, and the last ones are kept for clients
//! that ask. [`story`] decides what it says; here the facts are collected.

pub mod story;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Instant, UNIX_EPOCH};

use nix::unistd::Pid;
use tracing::{info, warn};

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::generation::Stage;
use super::machine::note::Note;
use super::machine::outcome::Outcome;
use super::observers::log::server_name;
use super::watchdog::pair;
use super::workers::WorkerExit;
use crate::control::end::End;
use crate::control::protocol::StackAnswer;
use crate::control::stacks::{Frame, WorkerStacks};
use crate::guard::scoreboard;
use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;
use story::{Progress, Remains, ServerExit, Setting};

/// How many are kept.
const KEPT: usize = 20;

/// The last ends.
#[derive(Debug, Default)]
pub(super) struct Ends {
    last: VecDeque<End>,
    /// Generations whose servers' ends have been recorded, until they are gone.
    recorded: BTreeSet<GenerationId>,
    /// The last generation whose main process the kernel killed for lack of memory.
    oom: Option<GenerationId>,
    /// Where the main threads of workers were that hang or spin, until they have ended.
    stacks: BTreeMap<ProcessId, Vec<Frame>>,
}

impl Ends {
    /// The last ends, the last one last.
    pub(super) fn list(&self) -> Vec<End> {
        self.last.iter().cloned().collect()
    }

    /// Whether the kernel killed the main process of a generation for lack of memory.
    pub(super) fn was_oom(&self, generation: GenerationId) -> bool {
        self.oom == Some(generation)
    }

    /// Keeps where a worker is, for the record of its end.
    pub(super) fn keep_stack(&mut self, worker: ProcessId, answer: &StackAnswer) {
        // The main thread is the last one.
        if let Some(thread) = WorkerStacks::read(answer).threads.last() {
            self.stacks.insert(worker, story::innermost(thread));
        }
    }

    fn add(&mut self, end: Option<End>) {
        let Some(end) = end else { return };
        write(&end);
        self.last.push_back(end);
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }
}

/// Records the ends that the state machine has decided on, before the processes and their scoreboard are gone: of servers
/// that have failed, and of workers whose time is up.
#[derive(Debug)]
pub(super) struct Recorder;

impl Component for Recorder {
    fn wait_for<'a>(&'a self, _world: &'a World, _waits: &mut Waits<'a>) {}

    fn turn(&mut self, _world: &mut World, _ready: &Ready) -> Vec<Output> {
        Vec::new()
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        let (generation, outcome) = match action {
            Action::Log(Note::NotReadyInTime { generation, .. }) => (*generation, Outcome::NotReady),
            Action::Log(Note::KeepsDying { generation }) => (*generation, Outcome::KeepsDying),
            Action::Log(Note::NoWorkers { generation }) => (*generation, Outcome::NoWorkers),
            Action::Kill { generation } => return world.record_cut_short(*generation),
            Action::KillAll => {
                let all: Vec<GenerationId> = world.running.keys().copied().collect();
                return all.into_iter().for_each(|generation| world.record_cut_short(generation));
            }
            _ => return,
        };
        let Some(main) = world.running.get(&generation).map(|running| running.main) else { return };
        world.record_server(generation, main, outcome, None, true);
    }
}

impl World {
    /// What these workers of a generation left on its scoreboard.
    pub(super) fn remains(&self, generation: GenerationId, workers: &[Process]) -> Vec<Remains> {
        let board = self.running.get(&generation).and_then(|running| running.board.as_ref());
        let Some(board) = board else { return Vec::new() };
        let own = pair(&board.slots(), workers, scoreboard::now());
        own.into_iter().map(|(_, slot)| Remains { slot, report: board.report(&slot) }).collect()
    }

    /// Records how a worker ended.
    pub(super) fn record_worker(&mut self, exit: &WorkerExit, remains: Option<&Remains>) {
        let stack = self.ends.stacks.remove(&exit.process.id()).unwrap_or_default();
        let record = story::of_worker(exit, remains, stack, &self.setting(exit.generation));
        self.ends.add(record);
    }

    /// Records the workers of a generation that is stopping, if they end with requests in progress.
    fn record_cut_short(&mut self, generation: GenerationId) {
        for exit in self.workers.cut_short(generation, Instant::now()) {
            let remains = self.remains(generation, &[exit.process]).pop();
            if remains.as_ref().is_some_and(Remains::has_requests) {
                self.record_worker(&exit, remains.as_ref());
            }
        }
    }

    /// Records how a server ended, once.
    pub(super) fn record_server(
        &mut self,
        generation: GenerationId,
        pid: Pid,
        outcome: Outcome,
        why: Option<String>,
        survivors: bool,
    ) {
        let progress = self.progress(generation);
        if !survivors && matches!(progress, Progress::Replaced | Progress::Stopping) {
            self.record_cut_short(generation);
        }
        let running = self.running.get(&generation);
        let age = running.map(|running| running.started.elapsed()).unwrap_or_default();
        let is_asked_for = matches!(progress, Progress::Replaced | Progress::Stopping);
        let is_killed = outcome == Outcome::Signaled(libc::SIGKILL) && !is_asked_for;
        let is_oom = is_killed && self.workers.claim_oom(Instant::now());
        if is_oom {
            self.ends.oom = Some(generation);
        }
        let running = &self.running;
        self.ends.recorded.retain(|id| running.contains_key(id));
        if !self.ends.recorded.insert(generation) {
            return;
        }
        let workers = if survivors { Vec::new() } else { self.remains(generation, &self.workers.of(generation)) };
        let exit = ServerExit { generation, pid, outcome, is_oom, why, progress, age, workers };
        let record = story::of_server(&exit, &self.setting(generation));
        self.ends.add(record);
    }

    fn progress(&self, generation: GenerationId) -> Progress {
        let found = self.state.generations().iter().find(|found| found.id == generation);
        match found.map(|found| &found.stage) {
            _ if self.state.is_ending() => Progress::Stopping,
            Some(Stage::Starting { .. }) => Progress::Starting,
            Some(Stage::Serving { .. }) => Progress::Serving,
            Some(Stage::Lingering { .. } | Stage::Leaving(_)) | None => Progress::Replaced,
        }
    }

    fn setting(&self, generation: GenerationId) -> Setting {
        Setting {
            server: self.plan_of(generation).map(server_name).unwrap_or_default(),
            now: scoreboard::now(),
            since_1970: UNIX_EPOCH.elapsed().unwrap_or_default(),
        }
    }
}

/// Logs a record: what is routine, more quietly.
fn write(end: &End) {
    let record = serde_json::to_string(end).unwrap_or_default();
    let is_routine = match end.cause.as_str() {
        "rss" | "age" | "requests" | "replaced" => true,
        cause => cause == "exit" && end.status == Some(0),
    };
    if is_routine {
        info!(%record, "end");
    } else {
        warn!(%record, "end");
    }
}
