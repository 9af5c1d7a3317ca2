//! What the kernel reports about processes, threads, sockets and memory, read from `/proc` and through
//! `sock_diag(7)`.
//!
//! One parser for each file. Kernel text is bytes: a process name may contain any byte but NUL, and may be cut within
//! a character.

pub mod memory;
pub mod process;
mod sock_diag;
pub mod sockets;
mod stat;
pub mod thread_stats;
pub mod unix_sockets;
pub mod usage;
