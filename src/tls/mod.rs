//! Certificates and keys: reads the files that the settings name, checks whether a server can start with them, and
//! converts any common key to unencrypted PKCS#8, which both servers read.
//!
//! This happens whenever a plan is made, so a reload with a broken certificate is refused. A generation serves with the
//! copy in its plan (`plan/tls.rs`), which is never written to disk (`run/memfd/credentials.rs`).
//!
//! [`read`] is the thin shell that reads the files; [`check`] checks their contents, and is pure.

mod certificate;
mod check;
mod encrypted;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
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
