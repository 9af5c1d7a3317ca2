//! What the kernel says of processes, threads, sockets and memory, read from `/proc` and over `sock_diag(7)`.
//!
//! One parser for each file. Kernel text is bytes: a process name may be any bytes but NUL, cut in the middle of a
//! letter.

pub mod memory;
pub mod process;
mod sock_diag;
pub mod sockets;
pub mod thread_stats;
pub mod usage;
