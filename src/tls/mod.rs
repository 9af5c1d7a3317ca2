//! Certificates and keys: reads what the settings name and judges whether a server can start with it, and makes of
//! any common key the clear PKCS#8 that both servers read.
//!
//! [`read`] is the thin shell that reads the files; [`check`] judges what they hold, and is pure.

mod certificate;
mod check;
mod encrypted;
mod key;
mod name;
mod pem;
mod public;
mod read;

pub use certificate::Certificate;
#[cfg(test)]
pub(crate) use check::example;
pub use check::{Findings, Pair, check};
pub use key::{Conversion, Form, Key, Kind};
pub use public::Public;
pub use read::{paths, read};
