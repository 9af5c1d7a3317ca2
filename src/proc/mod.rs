//! What the kernel reports about processes, threads, sockets and memory, read from `/proc` and through
//! `sock_diag(7)`.
//!
//! One parser for each file. Kernel text is bytes: a process name may contain any byte but NUL, and may be cut within
//! a character.
//!
//! Not the crate `procfs`: it reads all 52 fields where ours reads ten, holds a directory open for each process
//! although we may have only one spare descriptor, has neither `sock_diag` nor a search for children by scan, and
//! brings three crates.

mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod memory;
pub mod process;
pub mod signals;
mod sock_diag;
pub mod sockets;
mod stat;
pub mod thread_stats;
pub mod unix_sockets;
pub mod usage;
