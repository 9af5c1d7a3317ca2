//! Certificates and keys: reads what the settings name and judges whether a server can start with it, and makes of
//! any common key the clear PKCS#8 that both servers read. Nothing calls it yet.
//!
//! [`read`] is the thin shell that reads the files; [`check`] judges what they hold, and is pure.

mod certificate;
pub mod check;
pub mod key;
mod pem;
pub mod read;
mod traditional;

pub use certificate::Certificate;
pub use check::{Findings, Pair, check};
pub use key::{Form, Key, Kind};
pub use read::read;
