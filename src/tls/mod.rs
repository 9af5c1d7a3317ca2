//! Certificates and keys: reads what the settings name and judges whether a server can start with it, and makes of
//! any common key the clear PKCS#8 that both servers read.
//!
//! [`read`] is the thin shell that reads the files; [`check`] judges what they hold, and is pure.

mod certificate;
pub mod check;
mod encrypted;
pub mod key;
mod name;
mod pem;
mod public;
pub mod read;

pub use certificate::Certificate;
#[cfg(test)]
pub(crate) use check::example;
pub use check::{Findings, Pair, check};
pub use key::{Conversion, Form, Key, Kind};
pub use public::Public;
pub use read::{paths, read};
