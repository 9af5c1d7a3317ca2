//! What watchdog, recycling and presence have in common: a policy that watches the workers of one generation.

use crate::ids::GenerationId;

/// A policy that watches the workers of one generation.
#[derive(Debug)]
pub(super) struct WorkerWatch<P> {
    pub(super) generation: GenerationId,
    pub(super) policy: P,
    /// The revision of the list of workers at the last check; none before the first.
    revision: Option<u64>,
}

impl<P> WorkerWatch<P> {
    pub(super) const fn new(generation: GenerationId, policy: P) -> Self {
        Self { generation, policy, revision: None }
    }

    /// Whether workers have come or gone since the last check; this counts as a check.
    pub(super) fn take_change(&mut self, revision: u64) -> bool {
        self.revision.replace(revision) != Some(revision)
    }
}
