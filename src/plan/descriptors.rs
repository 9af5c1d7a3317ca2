//! What the server inherits from the launcher.

use super::Module;

/// A descriptor that the server inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in the server.
    pub number: i32,
    /// What it is.
    pub what: Inherited,
}

/// What can be inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inherited {
    /// The listening socket for [`Plan::bind`], which all workers share.
    Listener,
    /// A listening socket for [`Plan::bind`] that belongs to one worker: the first of these is the first worker's.
    WorkerListener,
    /// A listening socket for the one of [`Plan::further_binds`] with this index.
    FurtherListener(usize),
    /// A private listening socket of this generation, if nothing else tells when it is ready: a response there comes
    /// from this generation.
    ProbeListener,
    /// A memory file with the chain and the key of [`Plan::credentials`].
    Pair,
    /// A memory file with the CA certificates for verifying clients.
    Authority,
    /// A memory file with Python modules, importable through a path entry (a zip archive).
    Modules(Vec<Module>),
    /// The [scoreboard](crate::guard::scoreboard) of the generation.
    Scoreboard,
    /// The [memory](crate::guard::stacks) through which the workers of the generation tell what they are doing.
    Stacks,
    /// The end of a pipe through which a worker wakes the launcher, which then looks at the scoreboard.
    Wakeup,
    /// The end of a pipe from which the main process learns that workers which leave have a successor already.
    Successors,
    /// The workers' end of the channel through which we borrow copies of their listening sockets.
    BorrowedSockets,
}

impl Inherited {
    /// Whether clients of [`Plan::bind`] arrive at it.
    #[must_use]
    pub const fn is_public_listener(&self) -> bool {
        matches!(self, Self::Listener | Self::WorkerListener)
    }
}
