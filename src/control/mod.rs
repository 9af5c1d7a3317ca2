//! Talking to a running launcher: a Unix socket for commands, and an HTTP listener for metrics and a status page.
//!
//! A client sends one line, a JSON [`protocol::Request`], and gets one line, a JSON [`protocol::Answer`]; then the
//! launcher closes the connection. [`client`] is one connection as a state machine over bytes; [`server`] is the thin
//! shell that moves the bytes within the supervisor's `poll`. Nothing in it blocks, and what a client may use is
//! limited in bytes, time and number. [`socket`] decides where the socket is, creates and removes it; [`find`] and
//! [`ask`] are the client's side. [`table`], [`end`], [`prometheus`], [`live_plan`] and [`stacks`] present the responses;
//! `page` and `public_status` are what a browser gets.

pub mod ask;
pub mod client;
pub mod end;
pub mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod get;
pub mod http;
pub mod live_plan;
mod page;
pub mod prometheus;
pub mod protocol;
mod public_status;
pub mod server;
pub mod socket;
pub mod stacks;
pub mod table;
