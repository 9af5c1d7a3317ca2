//! Reading a file of `/proc`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What most of them hold at most. Their size is reported as 0, and without one the standard library begins with 32
/// bytes, which takes six reads for a line of `stat`.
const USUAL: usize = 4096;

/// Its content.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Its content, of a file that holds numbers and names that the kernel chose.
pub(super) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}
