//! The directories where a running launcher keeps its socket and its lock.

use std::ffi::OsStr;
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};

use super::Environment;

/// The directories where files of a running launcher may be, best first: `$XDG_RUNTIME_DIR`, `/run`, `/tmp`.
pub fn runtime_directories(env: &Environment) -> impl Iterator<Item = PathBuf> {
    let own = env.get(OsStr::new("XDG_RUNTIME_DIR")).map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain(["/run", "/tmp"].map(PathBuf::from))
}

/// Those of the [`runtime_directories`] that are writable.
pub fn writable_runtime_directories(env: &Environment) -> impl Iterator<Item = PathBuf> {
    runtime_directories(env).filter(|path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok())
}
