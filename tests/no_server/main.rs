//! What needs no running server: settings and plans, what is refused, what the host's files say, documents and files
//! that are shipped, the plain init.

#[path = "../harness/mod.rs"]
mod harness;

mod docs_current;
mod guard;
mod host;
mod init;
mod kubernetes;
mod layering;
mod odd_input;
mod plan;
mod refusals;
mod release;
mod settings;
mod shells;
mod systemd;
