//! Counting a generation's workers and measuring their memory, from outside.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use super::machine::memory_budget::{Size, room};
use super::machine::worker_moves::Headcount;
use super::workers::is_pythons_own;
use crate::host;
use crate::ids::GenerationId;
use crate::proc::memory::{self, Footprint};
use crate::proc::process::Process;
use crate::proc::sockets;

/// The interval between two counts, while workers are moved from one generation to the other.
const INTERVAL: Duration = Duration::from_millis(50);

/// Counts the workers of those generations whose number of workers matters, at intervals.
#[derive(Debug, Default)]
pub(super) struct Headcounts {
    /// When they are counted again; none before the first time.
    next: Option<Instant>,
}

impl Component for Headcounts {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        if !world.state.counted().is_empty() {
            waits.until(self.next.unwrap_or_else(Instant::now));
        }
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        let counted = world.state.counted();
        if counted.is_empty() || self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.next = Some(now + INTERVAL);
        let count = |generation| {
            let workers = world.headcount(generation)?;
            Some(Event::Counted { generation, workers }.into())
        };
        counted.into_iter().filter_map(count).collect()
    }
}

impl World {
    /// What the memory has room for in addition to a generation.
    pub(super) fn measure(&mut self, generation: GenerationId) -> Event {
        let main = self.running.get(&generation).map(|running| running.main);
        let (mains, workers): (Vec<Process>, Vec<Process>) =
            self.members(generation).into_iter().partition(|member| Some(member.pid) == main);
        let read =
            |processes: Vec<Process>| processes.iter().filter_map(|p| Footprint::read(p.pid)).collect::<Vec<_>>();
        let size = Size::of(read(mains).first().copied(), &read(workers));
        let room = room(&host::memory_use(Path::new("/")), size);
        tracing::debug!(generation = generation.0, ?room, ?size, "memory");
        Event::Measured { room, workers: self.headcount(generation).map(|workers| workers.alive) }
    }

    /// The workers of a generation that has its listening socket from us; none if they cannot be seen.
    fn headcount(&mut self, generation: GenerationId) -> Option<Headcount> {
        let socket = self.shared_listener(generation)?;
        let alive = self.count_workers(generation, socket);
        if alive.is_empty() {
            return None;
        }
        let polling = alive.iter().filter(|worker| sockets::is_polled(worker.pid.as_raw(), socket)).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let accepting = if polling > 0 { polling } else { self.grown_workers(generation) };
        Some(Headcount { alive: count(alive.len()), accepting: count(accepting) })
    }

    /// The inode of the listening socket that all workers of a generation share.
    fn shared_listener(&self, generation: GenerationId) -> Option<u64> {
        self.listeners.inodes(generation).first().copied()
    }

    /// Counts the workers: children of the main process that have the listening socket, or had it when they were last
    /// counted, because a worker that is finishing has closed it.
    fn count_workers(&mut self, generation: GenerationId, socket: u64) -> Vec<Process> {
        let members = self.members(generation);
        let Some(running) = self.running.get_mut(&generation) else { return Vec::new() };
        let main = running.main;
        let sockets = BTreeSet::from([socket]);
        let known = &running.counted;
        let is_worker = |process: &Process| {
            process.parent == main
                && !process.is_zombie()
                && !is_pythons_own(process.pid)
                && (known.contains_key(&process.id()) || sockets::owns(process.pid.as_raw(), &sockets))
        };
        let workers: Vec<Process> = members.into_iter().filter(is_worker).collect();
        // The workers of the first count are assumed to be as old as the generation.
        let new = if known.is_empty() { running.started } else { Instant::now() };
        let first_seen = |id| (id, known.get(&id).copied().unwrap_or(new));
        running.counted = workers.iter().map(|worker| first_seen(worker.id())).collect();
        workers
    }

    /// How many workers have existed for as long as the generation took to become ready: if we cannot see how they wait
    /// for clients, those are assumed to be ready.
    fn grown_workers(&self, generation: GenerationId) -> usize {
        let Some(running) = self.running.get(&generation) else { return 0 };
        let boot = running.boot.unwrap_or(Duration::MAX);
        running.counted.values().filter(|first_seen| first_seen.elapsed() >= boot).count()
    }

    /// The workers that finish their requests and accept no new ones.
    pub(super) fn draining_workers(&mut self, generation: GenerationId) -> Vec<Process> {
        let Some(socket) = self.shared_listener(generation) else { return Vec::new() };
        let (polling, others): (Vec<Process>, Vec<Process>) = self
            .count_workers(generation, socket)
            .into_iter()
            .partition(|worker| sockets::is_polled(worker.pid.as_raw(), socket));
        if polling.is_empty() { Vec::new() } else { others }
    }

    /// Restores the OOM score of a generation that is ready.
    pub(super) fn end_trial(&mut self, generation: GenerationId) {
        let Some(running) = self.running.get_mut(&generation) else { return };
        if !std::mem::take(&mut running.on_trial) {
            return;
        }
        // The main process first: the processes that it starts from then on do not inherit the raised score.
        memory::withdraw_from_oom_killer(running.main);
        for member in self.members(generation) {
            memory::withdraw_from_oom_killer(member.pid);
        }
    }
}
