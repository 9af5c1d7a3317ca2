//! What watchdog, recycling and presence have in common: a policy's watch over the workers of one generation.

use crate::ids::GenerationId;

/// A policy that watches the workers of one generation.
#[derive(Debug)]
pub(super) struct Watched<P> {
    pub(super) generation: GenerationId,
    pub(super) policy: P,
    /// Of the list of workers, at the last look; none before the first.
    revision: Option<u64>,
}

impl<P> Watched<P> {
    pub(super) const fn new(generation: GenerationId, policy: P) -> Self {
        Self { generation, policy, revision: None }
    }

    /// Whether workers have come or gone since the last look, which is what follows.
    pub(super) fn take_change(&mut self, revision: u64) -> bool {
        self.revision.replace(revision) != Some(revision)
    }
}
