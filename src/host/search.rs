//! Finding programs, as a shell does.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Program;

/// Searched if there is no `PATH`, as `execvp` does, and where the official Python images install Python.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The directories of `PATH`.
pub(super) struct SearchPath<'a> {
    path: &'a OsStr,
    cwd: &'a Path,
}

impl<'a> SearchPath<'a> {
    pub(super) fn new(path: Option<&'a OsStr>, cwd: &'a Path) -> Self {
        Self { path: path.unwrap_or(DEFAULT_PATH.as_ref()), cwd }
    }

    /// The program with this name, or at this path if it contains a slash. An executable one wins over an earlier one
    /// that is not executable; if none is, the first one says why.
    pub(super) fn find(&self, name: impl AsRef<OsStr>) -> Program {
        let name = name.as_ref();
        if name.as_encoded_bytes().contains(&b'/') {
            return program_at(self.cwd.join(name));
        }
        if let Ok(found) = which::which_in(name, Some(self.path), self.cwd) {
            return Program::Found(found);
        }
        std::env::split_paths(self.path)
            .map(|directory| program_at(self.cwd.join(directory).join(name)))
            .find(|program| *program != Program::Missing)
            .unwrap_or_default()
    }

    /// For messages.
    pub(super) fn display(&self) -> impl std::fmt::Display {
        self.path.display()
    }
}

/// What kind of program a path is. A dangling symbolic link counts as missing.
pub(super) fn program_at(path: PathBuf) -> Program {
    let why = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => "is a directory".into(),
        Ok(metadata) if !metadata.is_file() => "is not a regular file".into(),
        Ok(_) if access(&path, AccessFlags::X_OK).is_ok() => return Program::Found(path),
        Ok(_) => "is not executable".into(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Program::Missing;
        }
        Err(error) => format!("cannot be inspected: {error}"),
    };
    Program::NotExecutable { path, why }
}
