//! Asking workers to leave, through the scoreboard.

use std::time::Duration;

use tracing::debug;

use super::World;
use super::machine::disconnecting::{Occasion, spread};
use super::machine::event::Event;
use crate::guard::scoreboard::{State, now};
use crate::ids::{GenerationId, ProcessId};

impl World {
    pub(super) fn retire(&self, generation: GenerationId, within: Duration, occasion: Occasion) -> Event {
        let streams = self.slots(generation).iter().fold(0, |sum: u32, (_, slot)| sum.saturating_add(slot.streams));
        let spread = spread(streams, within, occasion);
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            debug!(generation = generation.0, streams, ?spread, "asked its workers to leave");
            board.retire(now() + within, spread);
        }
        Event::Leaving { generation, streams, spread }
    }

    pub(super) fn retire_worker(&self, generation: GenerationId, worker: ProcessId, within: Duration) {
        let slots = self.slots(generation);
        let Some((_, slot)) = slots.iter().find(|(process, _)| process.id() == worker) else { return };
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            board.retire_worker(worker.pid, now() + within, spread(slot.streams, within, Occasion::Handover));
        }
    }

    pub(super) fn announce_successor(&self, generation: GenerationId, worker: ProcessId) {
        if let Some(successors) =
            self.running.get(&generation).and_then(|running| running.channels.successors.as_ref())
        {
            successors.announce(worker.pid);
        }
    }

    pub(super) fn retire_oldest(&self, generation: GenerationId, within: Duration) -> Event {
        let mut workers = self.slots(generation);
        workers.retain(|(_, slot)| slot.state != State::Stopping);
        workers.sort_by_key(|(process, _)| process.id().age_rank());
        let before = self.state.dismissed(generation);
        let is_only = self.workers.of(generation).len() <= before + 1;
        let oldest = workers.get(before).filter(|_| !is_only);
        let streams = oldest.map_or(0, |(_, slot)| slot.streams);
        if let Some((process, _)) = oldest.filter(|(_, slot)| !slot.is_leaving) {
            debug!(generation = generation.0, worker = %process.pid, streams, "asked the oldest worker to leave");
            self.retire_worker(generation, process.id(), within);
        }
        Event::WorkerLeaving { generation, streams, spread: spread(streams, within, Occasion::Handover) }
    }

    pub(super) fn keep(&self, generation: GenerationId) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            board.retire(Duration::ZERO, Duration::ZERO);
        }
    }
}
