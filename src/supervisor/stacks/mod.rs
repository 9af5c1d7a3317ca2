//! `mcp-launch stacks`: asks the workers what they are doing. [`policy`] decides when one has answered; this component
//! observes.
//!
//! All workers are asked at once, and everybody who has asked meanwhile gets the next answers. While nobody asks, nothing
//! is done.

pub mod policy;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::control::protocol::{Answer, StackAnswer, StackState};
use crate::control::server::ClientId;
use crate::guard::scoreboard;
use crate::guard::stacks::{FOR_ALL, FOR_MAIN, FOR_PYTHON, Handlers, StackMemory};
use crate::ids::{GenerationId, ProcessId};
use crate::proc::process::Process;
use crate::proc::signals::SignalStatus;
use crate::proc::thread_stats::MainThread;
use policy::{Interpreter, Sample, State, Still};

/// The interval between two looks at the workers that have not answered.
const STEP: Duration = Duration::from_millis(10);
/// How much of one worker's threads is passed on, and how much of all workers' together.
const MOST: usize = 256 << 10;
const MOST_OF_ALL: usize = 16 << 20;

/// What is to be asked, and what was answered.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    waiting: Vec<Question>,
    for_clients: Vec<(ClientId, Answer)>,
    for_us: Vec<(ProcessId, Purpose, Option<StackAnswer>)>,
}

/// What we want to know it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It spins.
    Spin,
    /// It hangs and is about to be ended: it will only tell where its threads are.
    Hang,
    /// Its event loop has been blocked for longer than a request may take.
    Blocked,
}

/// Who wants to know, and what about.
#[derive(Debug)]
enum Question {
    /// A client, about these workers, or about all.
    Client(ClientId, BTreeSet<i32>),
    /// We ourselves, about one worker.
    Us(ProcessId, Purpose),
}

impl Inquiries {
    /// A client asks about these workers, or about all.
    pub(super) fn ask(&mut self, client: ClientId, pids: impl IntoIterator<Item = i32>) {
        self.waiting.push(Question::Client(client, pids.into_iter().collect()));
    }

    /// The answers for clients.
    pub(super) fn take_answers(&mut self) -> Vec<(ClientId, Answer)> {
        std::mem::take(&mut self.for_clients)
    }

    /// Asks about a worker for the log and the record of its end.
    pub(super) fn ask_about(&mut self, worker: ProcessId, purpose: Purpose) {
        // One worker at a time is asked for a purpose; answers that came too late are not kept.
        self.for_us.retain(|found| found.0 == worker || found.1 != purpose);
        self.waiting.push(Question::Us(worker, purpose));
    }

    /// When to go on: now if there is an answer to that, else when the time for it is over.
    pub(super) fn due(&self, worker: ProcessId, purpose: Purpose, until: Instant) -> Instant {
        let has_answer = self.for_us.iter().any(|found| (found.0, found.1) == (worker, purpose));
        if has_answer { Instant::now() } else { until }
    }

    /// The answers to that; none if the worker no longer exists.
    pub(super) fn take_answers_about(&mut self, worker: ProcessId, purpose: Purpose) -> Vec<Option<StackAnswer>> {
        let is_meant = |found: &mut (ProcessId, Purpose, _)| (found.0, found.1) == (worker, purpose);
        self.for_us.extract_if(.., is_meant).map(|(_, _, answer)| answer).collect()
    }
}

impl Question {
    fn is_about(&self, worker: &Process) -> bool {
        match self {
            Self::Client(_, pids) => pids.is_empty() || pids.contains(&worker.pid.as_raw()),
            Self::Us(id, _) => *id == worker.id(),
        }
    }

    const fn patience(&self) -> Duration {
        match self {
            Self::Us(_, Purpose::Hang | Purpose::Blocked) => policy::BRIEFLY,
            _ => policy::PATIENCE,
        }
    }
}

/// Asks the workers.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    inquiry: Option<Inquiry>,
    /// The number of the last question.
    number: u32,
}

/// The question that is being asked.
#[derive(Debug)]
struct Inquiry {
    number: u32,
    since: Instant,
    next: Instant,
    questions: Vec<Question>,
    workers: Vec<Asked>,
}

/// A worker that was asked.
#[derive(Debug)]
struct Asked {
    generation: GenerationId,
    process: Process,
    /// Its area in the memory for stacks, if it has one.
    area: Option<usize>,
    /// Its threads when it was asked, and at the last look; when the main thread was last running, and when another one was.
    threads: (MainThread, MainThread),
    ran: (Instant, Instant),
    /// The signal for faulthandler that it got, and what it did with that before; none until then.
    interrupted: Option<(i32, SignalStatus)>,
    has_dumped: bool,
    answer: Option<StackAnswer>,
}

impl Component for Stacks {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        match &self.inquiry {
            Some(inquiry) => {
                waits.until(inquiry.next);
                for wakeup in world.running.values().filter_map(|running| running.channels.wakeup.as_ref()) {
                    waits.readable(wakeup.as_fd());
                }
            }
            None if world.inquiries.waiting.is_empty() => {}
            None => waits.until(Instant::now()),
        }
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        let Some(inquiry) = &mut self.inquiry else { return self.begin(world, now) };
        let interruptions = inquiry.look(world, now);
        if inquiry.workers.iter().all(|worker| worker.answer.is_some())
            && let Some(inquiry) = self.inquiry.take()
        {
            inquiry.reply(world);
        }
        interruptions
    }
}

impl Stacks {
    /// Asks all workers if somebody is waiting.
    fn begin(&mut self, world: &mut World, now: Instant) -> Vec<Output> {
        let questions = std::mem::take(&mut world.inquiries.waiting);
        if questions.is_empty() {
            return Vec::new();
        }
        world.look_at_workers();
        // 0 is what an area contains before the first question.
        self.number = self.number.wrapping_add(1).max(1);
        let is_meant = |worker: &Process| questions.iter().any(|question| question.is_about(worker));
        let workers: Vec<Asked> =
            world.running.keys().flat_map(|generation| world.askable(*generation, &is_meant)).collect();
        let number = self.number;
        let asked = workers.iter().filter_map(|worker| worker.question(number)).collect();
        self.inquiry = Some(Inquiry { number, since: now, next: now + STEP, questions, workers });
        asked
    }
}

impl Inquiry {
    /// Looks who has answered, and returns what is to be done about those whose interpreter stands still.
    fn look(&mut self, world: &World, now: Instant) -> Vec<Output> {
        let mut interruptions = Vec::new();
        let since = now.saturating_duration_since(self.since);
        let share = MOST.min(MOST_OF_ALL / self.workers.len().max(1));
        let patience = self.questions.iter().map(Question::patience).max().unwrap_or(policy::PATIENCE);
        for worker in self.workers.iter_mut().filter(|worker| worker.answer.is_none()) {
            let memory = world.running.get(&worker.generation).and_then(|running| running.stacks.as_ref());
            let sample = worker.sample(memory, self.number);
            interruptions.extend(worker.interruption(memory, sample, (since, now), world));
            if let Some(state) = policy::judge(sample, since, patience) {
                worker.answer = Some(worker.answer(state, sample, memory, share, world));
            }
        }
        self.next = now + STEP;
        interruptions
    }

    /// Gives the answers to those who want to know.
    fn reply(self, world: &mut World) {
        let answers = |question: &Question| -> Vec<StackAnswer> {
            let meant = self.workers.iter().filter(|worker| question.is_about(&worker.process));
            meant.filter_map(|worker| worker.answer.clone()).collect()
        };
        for question in &self.questions {
            let answers = answers(question);
            match question {
                Question::Client(client, _) => world.inquiries.for_clients.push((*client, Answer::Stacks(answers))),
                Question::Us(id, purpose) => world.inquiries.for_us.push((*id, *purpose, answers.into_iter().next())),
            }
        }
    }
}

impl Asked {
    fn question(&self, number: u32) -> Option<Output> {
        self.area?;
        Some(Action::AskForStacks { generation: self.generation, worker: self.process.id(), number }.into())
    }

    /// What is seen of it now.
    fn sample(&mut self, memory: Option<&StackMemory>, number: u32) -> Sample {
        let is_same = |now: &Process| now.start == self.process.start && !now.is_zombie();
        let process = Process::read(self.process.pid).filter(is_same);
        let reached = memory.zip(self.area);
        let has_handled = |(signal, before): &(i32, SignalStatus)| {
            SignalStatus::read(&self.process, *signal).is_some_and(|status| status.has_handled(before))
        };
        let has_dumped = reached.is_some_and(|(memory, area)| {
            memory.written(area) == Some(number)
                || self.interrupted.as_ref().is_some_and(has_handled) && memory.has_dump(area)
        });
        self.has_dumped |= has_dumped;
        Sample {
            is_gone: process.is_none(),
            is_stopped: process.is_some_and(|process| matches!(process.state, 'T' | 't')),
            can_answer: reached.is_some(),
            takes_signal: self.handlers(memory).is_some(),
            has_dumped: self.has_dumped,
            has_answered: reached.is_some_and(|(memory, area)| memory.answered(area) == Some(number)),
        }
    }

    /// Its own handlers.
    fn handlers(&self, memory: Option<&StackMemory>) -> Option<Handlers> {
        memory.zip(self.area).and_then(|(memory, area)| memory.handlers(area)).filter(|it| it.pid == self.process.pid)
    }

    /// Has faulthandler write where those threads are that stand still, if the interpreter does not react.
    fn interruption(
        &mut self,
        memory: Option<&StackMemory>,
        sample: Sample,
        (since, now): (Duration, Instant),
        world: &World,
    ) -> Option<Output> {
        let has_reacted = sample.has_dumped || sample.has_answered || sample.is_gone || sample.is_stopped;
        if has_reacted || self.interrupted.is_some() {
            return None;
        }
        let handlers = self.handlers(memory)?;
        let heartbeat = world.heartbeat_age(self.generation, &self.process).filter(|_| handlers.beats_in_thread);
        let all_threads = match self.interpreter(heartbeat, now)?.still(since)? {
            Still::All => handlers.for_all,
            Still::Main => false,
        };
        let signal = if all_threads { FOR_ALL } else { FOR_MAIN };
        self.interrupted = Some((signal, SignalStatus::read(&self.process, signal)?));
        let (generation, worker) = (self.generation, self.process.id());
        Some(Action::InterruptForStacks { generation, worker, all_threads }.into())
    }

    /// What is known of its interpreter now.
    fn interpreter(&mut self, heartbeat: Option<Duration>, now: Instant) -> Option<Interpreter> {
        let (asked, before) = self.threads;
        let threads = MainThread::read(&self.process)?;
        if threads.is_running {
            self.ran.0 = now;
        }
        if threads.others_cpu != before.others_cpu {
            self.ran.1 = now;
        }
        self.threads.1 = threads;
        Some(Interpreter {
            asleep: now.saturating_duration_since(self.ran.0),
            cpu: threads.cpu.saturating_sub(asked.cpu),
            waits: threads.waits.saturating_sub(asked.waits),
            others_asleep: now.saturating_duration_since(self.ran.1),
            heartbeat,
        })
    }

    /// Its answer, in the state that it is in.
    fn answer(
        &self,
        state: State,
        sample: Sample,
        memory: Option<&StackMemory>,
        most: usize,
        world: &World,
    ) -> StackAnswer {
        let is_its_own = !matches!(state, State::Ended | State::Unreachable);
        let written = memory.zip(self.area).filter(|_| is_its_own).map(|(memory, area)| memory.take(area, most));
        let written = written.unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let heartbeat = world.heartbeat_age(self.generation, &self.process).map(|age| age.as_secs_f64());
        StackAnswer {
            generation: self.generation.0,
            pid: self.process.pid.as_raw(),
            state: state.into(),
            heartbeat_seconds_ago: heartbeat.map(|seconds| (seconds * 1000.0).round() / 1000.0),
            threads: text(written.dump),
            is_cut: written.is_cut,
            tasks: if sample.has_answered { text(written.answer) } else { String::new() },
        }
    }
}

impl World {
    /// The workers of a generation, each with the place where it answers.
    fn askable(&self, generation: GenerationId, is_meant: &impl Fn(&Process) -> bool) -> Vec<Asked> {
        let slots = self.slots(generation);
        let running = self.running.get(&generation);
        let board = running.filter(|running| running.stacks.is_some()).and_then(|running| running.board.as_ref());
        let asked = |process: Process| {
            let has_slot = slots.iter().any(|(found, _)| found.id() == process.id());
            let area = board.filter(|_| has_slot).and_then(|board| board.newest(process.pid));
            let (threads, now) = (MainThread::read(&process).unwrap_or_default(), Instant::now());
            let (threads, ran) = ((threads, threads), (now, now));
            Asked { generation, process, area, threads, ran, interrupted: None, has_dumped: false, answer: None }
        };
        self.workers.of(generation).into_iter().filter(is_meant).map(asked).collect()
    }

    fn heartbeat_age(&self, generation: GenerationId, process: &Process) -> Option<Duration> {
        let slots = self.slots(generation);
        let slot = slots.iter().find(|(found, _)| found.id() == process.id()).map(|(_, slot)| *slot)?;
        Some(scoreboard::now().saturating_sub(slot.heartbeat))
    }

    /// Asks a worker what it is doing.
    pub(super) fn ask_for_stacks(&self, generation: GenerationId, worker: ProcessId, number: u32) {
        let Some(running) = self.running.get(&generation) else { return };
        let Some((memory, board)) = running.stacks.as_ref().zip(running.board.as_ref()) else { return };
        let Some(area) = board.newest(worker.pid) else { return };
        if let Err(errno) = memory.ask(area, number) {
            tracing::debug!(pid = %worker, errno = errno.desc(), "not asked");
            return;
        }
        send(worker, FOR_PYTHON, memory.handlers(area).is_some_and(|it| it.pid == worker.pid && it.for_python));
    }

    /// Has faulthandler write where the threads of a worker are, or its main thread.
    pub(super) fn interrupt_for_stacks(&self, generation: GenerationId, worker: ProcessId, all_threads: bool) {
        let Some(running) = self.running.get(&generation) else { return };
        let Some((memory, board)) = running.stacks.as_ref().zip(running.board.as_ref()) else { return };
        let handlers = board.newest(worker.pid).and_then(|area| memory.handlers(area));
        let Some(handlers) = handlers.filter(|handlers| handlers.pid == worker.pid) else { return };
        if all_threads {
            send(worker, FOR_ALL, handlers.for_all);
        } else {
            send(worker, FOR_MAIN, handlers.for_main);
        }
    }
}

/// Sends a worker a signal that it has told to handle. Without a handler the signal would end it, so the kernel is asked too.
fn send(worker: ProcessId, signal: i32, is_handled: bool) {
    let Some(process) = Process::read(worker.pid).filter(|process| process.id() == worker) else { return };
    let is_stopped = matches!(process.state, 'T' | 't');
    if is_handled && !is_stopped && SignalStatus::read(&process, signal).is_some_and(|status| status.is_caught) {
        let _ = process.signal_by_number(signal);
    }
}

impl From<State> for StackState {
    fn from(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Blocked => Self::Blocked,
            State::Stopped => Self::Stopped,
            State::Ended => Self::Ended,
            State::Silent => Self::Silent,
            State::Unreachable => Self::Unreachable,
        }
    }
}
