//! Which server is better for this app: both are run, measured and compared.
//!
//! Data flows one way: **options and settings → a schedule of steps → measurements → rows → advice → a report** (text or `page`). Only
//! the middle, `run`, touches the machine: it starts this program with the user's settings, once per step, drives it
//! with a load generator, and reads `/proc`. Everything before and after is made from plain data.
//!
//! Each round is a new start of each server, alternating (A B A B …). So a start, a warm-up and an accidental memory
//! layout count once per round, and a machine that becomes slower does so for both. Whether two servers differ is
//! decided by how much the rounds differ ([`statistics`]); if that cannot be decided, the report says so.
//!
//! However it ends, everything is cleaned up: the only files are the control sockets of the launchers, which are
//! removed at the end; scripts and logs are in memory and in pipes; and if we are killed, the kernel ends the child
//! processes.

mod advice;
mod client;
mod instance;
mod interrupt;
pub mod load;
mod machine;
pub mod measure;
pub mod options;
pub mod page;
mod process;
mod progress;
pub mod report;
mod rows;
mod run;
mod schedule;
pub mod statistics;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::host::Environment;
use crate::problem::Exit;
use crate::sys::SignalState;
pub use interrupt::Interrupt;
use load::Generator;
use measure::Failure;
use options::Options;
pub use run::{load_generator, run};

/// The conditions under which the servers are compared.
#[derive(Debug)]
pub struct Terms {
    /// This program.
    pub program: PathBuf,
    /// The environment of the launchers.
    pub env: Environment,
    /// The signal state that they get.
    pub signals: SignalState,
    /// The user's options.
    pub options: Options,
    /// The load generator.
    pub generator: Generator,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// Where control sockets are made.
    pub sockets: PathBuf,
    /// How many control sockets have been named so far.
    pub socket_count: AtomicUsize,
    /// How long a server may take to start.
    pub startup_timeout: Duration,
    /// How long a server may take to stop.
    pub stop_timeout: Duration,
}

/// Why a step was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Interrupted by this signal.
    Interrupted(u8),
    /// The server fails.
    Failed(Failure),
}

impl Trouble {
    fn failed(exit: Exit, why: impl Into<String>) -> Self {
        Self::Failed(Failure { why: why.into(), exit })
    }
}

impl Terms {
    fn go_on(&self) -> Result<(), Trouble> {
        self.interrupt.signal().map_or(Ok(()), |signal| Err(Trouble::Interrupted(signal)))
    }

    fn request_bytes(&self) -> Vec<u8> {
        self.options.request.bytes("localhost")
    }

    fn next_socket(&self) -> PathBuf {
        instance::socket_name(&self.sockets, self.socket_count.fetch_add(1, Ordering::Relaxed))
    }
}
