//! Files in memory that a server inherits: our modules, certificates and keys.

pub(crate) mod credentials;
pub mod modules;
