//! What the state machine knows of a plan.

use crate::ids::PlanId;
use crate::plan::Policy;

/// What the state machine knows of a plan.
#[derive(Debug, Clone)]
pub struct PlanFacts {
    /// Its number.
    pub id: PlanId,
    /// How it is looked after.
    pub policy: Policy,
    /// Exit statuses that mean "cannot boot" when they come before readiness.
    pub boot_statuses: Vec<u8>,
    /// Whether a generation of it was ever ready.
    pub proven: bool,
    /// How many workers it has.
    pub workers: u32,
    /// Whether TTIN and TTOU change that number one by one: Gunicorn.
    pub resizable: bool,
    /// Whether it is resizable and new clients can be shared out between two generations of the kind: each has a
    /// listening socket from us, and not a Unix socket, of which one at a time has the path.
    pub shareable: bool,
}
