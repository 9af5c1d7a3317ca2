//! Talking to a running launcher: a Unix socket for commands, and an HTTP listener for metrics.
//!
//! A client sends one line, a JSON [`protocol::Request`], and gets one line, a JSON [`protocol::Answer`]; then the
//! launcher closes the connection. [`client`] is one connection as a state machine over bytes; [`server`] is the thin
//! shell that moves the bytes within the supervisor's `poll`. Nothing in it blocks, and what a client may use is
//! limited in bytes, time and number. [`socket`] decides where the socket is, creates and removes it; [`find`] and
//! [`ask`] are the client's side. [`table`], [`prometheus`] and [`live_plan`] present the responses.

pub mod ask;
pub mod client;
pub mod find;
pub mod get;
pub mod http;
pub mod live_plan;
pub mod prometheus;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod table;
