//! Where a worker spends its time, from several looks at its stacks.

use std::collections::BTreeMap;

use tracing::warn;

use crate::control::protocol::StackAnswer;
use crate::control::stacks::{ThreadStack, WorkerStacks};
use crate::ids::{GenerationId, ProcessId};
use crate::supervisor::ends::Ends;
use crate::supervisor::stacks::{Inquiries, Purpose};

/// How often a worker is asked.
const LOOKS: usize = 10;
/// How many different stacks are logged, and how many frames of each, the innermost.
const STACKS: usize = 6;
const FRAMES: usize = 12;

/// Looks at one worker.
#[derive(Debug)]
pub(super) struct Samples {
    generation: GenerationId,
    worker: ProcessId,
    asked: usize,
    answered: usize,
    /// How often each stack was seen.
    seen: BTreeMap<String, usize>,
}

impl Samples {
    pub(super) fn new(generation: GenerationId, worker: ProcessId) -> Self {
        Self { generation, worker, asked: 0, answered: 0, seen: BTreeMap::new() }
    }

    pub(super) const fn worker(&self) -> ProcessId {
        self.worker
    }

    /// Takes the last answer and asks again.
    pub(super) fn go_on(&mut self, inquiries: &mut Inquiries, ends: &mut Ends) {
        for answer in inquiries.take_answers_about(self.worker, Purpose::Spin) {
            self.answered += 1;
            self.take(answer.as_ref());
            if let Some(answer) = &answer {
                ends.keep_stack(self.worker, answer);
            }
        }
        if self.asked == self.answered && self.asked < LOOKS {
            self.asked += 1;
            inquiries.ask_about(self.worker, Purpose::Spin);
        }
    }

    pub(super) const fn are_complete(&self) -> bool {
        self.answered >= LOOKS
    }

    fn take(&mut self, answer: Option<&StackAnswer>) {
        let threads = answer.map(|answer| WorkerStacks::read(answer).threads).unwrap_or_default();
        for thread in threads.iter().filter(|thread| !thread.frames.is_empty()) {
            *self.seen.entry(line(thread)).or_default() += 1;
        }
    }

    /// Logs the stacks, the most frequent first.
    pub(super) fn write(&self) {
        let mut stacks: Vec<(&String, &usize)> = self.seen.iter().collect();
        stacks.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (stack, count) in stacks.iter().take(STACKS) {
            let seen = format!("{count}/{LOOKS}");
            warn!(generation = self.generation.0, pid = %self.worker, seen, stack, "spinning worker");
        }
        if stacks.len() > STACKS {
            let more = stacks.len() - STACKS;
            warn!(generation = self.generation.0, pid = %self.worker, more, "spinning worker: stacks that were rarer");
        }
    }
}

/// The name of a thread, and its innermost frames.
fn line(thread: &ThreadStack) -> String {
    let name = thread.name.as_deref().unwrap_or(&thread.id);
    format!("{name}: {}", thread.innermost_first(FRAMES))
}
