//! What a server inherits as files in memory: modules of ours, certificates and keys.

pub mod credentials;
pub mod modules;
