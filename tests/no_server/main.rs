//! What needs no running server: settings and plans, what is refused, what the host's files say, documents and files
//! that are shipped, the plain init.

#[path = "../harness/mod.rs"]
mod harness;

mod docs_current;
mod guard;
mod host;
mod init;
mod invalid_settings;
mod kubernetes;
mod layering;
mod plan;
mod release;
mod settings;
mod shells;
mod systemd;
mod unusual_surroundings;
