//! The guard: what of ours runs inside each worker, and the memory in which it tells us how the worker is.

pub mod scoreboard;
