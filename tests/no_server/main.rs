//! Tests that need no running server: settings and plans, invalid input, the host's files, documents and shipped files,
//! the plain init.

#[path = "../harness/mod.rs"]
mod harness;

mod docs_current;
mod guard;
mod helm;
mod host;
mod import;
mod init;
mod invalid_settings;
mod kubernetes;
mod layering;
mod monitoring;
mod plan;
mod purity;
mod release;
mod settings;
mod shells;
mod systemd;
mod unusual_environment;
mod workflow;
