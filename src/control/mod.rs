//! The way to talk to a running launcher: a Unix socket for commands, and an HTTP listener for metrics.
//!
//! A client sends one line, a JSON [`protocol::Request`], and gets one line, a JSON [`protocol::Answer`]; then the
//! launcher closes. [`client`] is one connection as a state machine over bytes, [`server`] the thin shell that moves
//! the bytes inside the supervisor's one `poll`: nothing in it waits, and what a client may use is bounded in bytes,
//! time and number. [`socket`] says where the socket lies, makes it and removes it; [`ask`] is the client's side.
//! [`table`], [`prometheus`] and [`live_plan`] show what the answers hold.

pub mod ask;
pub mod client;
pub mod get;
pub mod http;
pub mod live_plan;
pub mod prometheus;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod table;
