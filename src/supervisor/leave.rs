//! Telling workers that they leave, through the scoreboard.

use std::time::Duration;

use tracing::debug;

use super::World;
use super::machine::event::Event;
use super::machine::leaving::{Occasion, spread};
use crate::guard::scoreboard::now;
use crate::ids::{GenerationId, ProcessId};

impl World {
    pub(super) fn retire(&self, generation: GenerationId, within: Duration, occasion: Occasion) -> Event {
        let streams = self.slots(generation).iter().map(|(_, slot)| slot.streams).sum();
        let spread = spread(streams, within, occasion);
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            debug!(generation = generation.0, streams, ?spread, "its workers are told to leave");
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

    /// Gunicorn's main process counts its workers as it starts them, and so does the kernel.
    pub(super) fn retire_oldest(&self, generation: GenerationId, within: Duration) {
        let workers = self.slots(generation).into_iter().map(|(process, _)| process.id());
        if let Some(worker) = workers.min_by_key(|worker| (worker.start, worker.pid)) {
            self.retire_worker(generation, worker, within);
        }
    }

    pub(super) fn keep(&self, generation: GenerationId) {
        if let Some(board) = self.running.get(&generation).and_then(|running| running.board.as_ref()) {
            board.retire(Duration::ZERO, Duration::ZERO);
        }
    }
}
