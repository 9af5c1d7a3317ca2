//! Tests of the state machine, by topic.

mod failure;
pub(crate) mod harness;
mod later;
mod properties;
mod reload;
mod status;
mod stepwise;
mod stop;
mod walk;
