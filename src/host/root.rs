//! Where `/proc` and `/sys` are: at `/`, or in a directory tree that describes another machine.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The directory that `/proc` and `/sys` are in.
pub(super) struct Root<'a>(&'a Path);

impl<'a> Root<'a> {
    pub(super) const fn new(path: &'a Path) -> Self {
        Self(path)
    }

    /// Whether this is the machine that we run on, which system calls can also describe.
    pub(super) fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The path here of a file on the described machine.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads a file by its name on the described machine.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = fs::read(self.path(path.as_ref()))?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Reads a file with one value, which may not exist; any other failure becomes a note.
    pub(super) fn value(&self, path: &Path, notes: &mut Vec<String>) -> Option<String> {
        match self.read(path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                    notes.push(format!("cannot read {}: {error}; ignored", path.display()));
                }
                None
            }
        }
    }
}

/// Decodes the escapes of the mount table, where a space in a path is `\040`.
pub(super) fn unescape_octal(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        plain.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        assert_eq!(unescape_octal(r"/mnt/a\040b\134c"), Path::new(r"/mnt/a b\c"));
        assert_eq!(unescape_octal(r"/odd\04"), Path::new(r"/odd\04"));
        assert_eq!(unescape_octal(r"\"), Path::new(r"\"));
    }

    proptest! {
        #[test]
        fn every_path_survives_being_escaped(path in "[ -~\t\n]{0,40}") {
            let escaped = path.replace('\\', r"\134").replace(' ', r"\040").replace('\t', r"\011").replace('\n', r"\012");
            prop_assert_eq!(unescape_octal(&escaped), PathBuf::from(path));
        }
    }
}
