//! The file for `--html`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::problem::{Exit, Problem};

/// The file, opened before anything is measured: afterwards it would be too late to find out that it cannot be written.
/// What was in it stays there until there is a page.
pub(super) struct PageFile {
    path: PathBuf,
    file: File,
}

impl PageFile {
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let opened = File::options().create(true).write(true).truncate(false).open(path);
        let file = opened.map_err(|error| cannot_write(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(&mut self, page: &str) -> Result<(), Problem> {
        let written = self.shorten().and_then(|()| self.file.write_all(page.as_bytes()));
        written.map_err(|error| cannot_write(&self.path, &error))
    }

    /// A pipe has no length.
    fn shorten(&self) -> io::Result<()> {
        if self.file.metadata()?.is_file() { self.file.set_len(0) } else { Ok(()) }
    }
}

/// Without a page, no empty file is left behind.
impl Drop for PageFile {
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Exit::Usage, format!("--html: {} cannot be written: {error}", path.display()))
}
