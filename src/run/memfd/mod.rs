//! What a server inherits as files in memory: modules of ours, certificates and keys.

pub(crate) mod credentials;
pub mod modules;
