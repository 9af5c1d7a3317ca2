//! Reading files that the user names.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file. The result includes its length.
///
/// # Errors
/// Errors of opening it, and an error for anything that is not a regular file: a pipe would make us wait for its
/// writer, and a device may never end.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// Reads a regular file of at most `largest` bytes.
///
/// # Errors
/// Errors of [`open`] and of reading, and an error for a larger file.
pub fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let (file, length) = open(path)?;
    if length > largest {
        return Err(io::Error::other(format!("it has {length} bytes, and at most {largest} are read")));
    }
    // One allocation: if the buffer grew, callers that read secrets could not wipe the old copy.
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0).max(4096) + 1);
    file.take(largest).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn what_is_not_a_regular_file_of_reasonable_size_is_an_error_and_nothing_waits() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, large) = (directory.path().join("pipe"), directory.path().join("large"));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        std::fs::write(&large, "12345").unwrap();
        let error = |path: &Path| read(path, 4).unwrap_err().to_string();
        assert_eq!(error(&pipe), "it is not a regular file");
        assert_eq!(error(Path::new("/dev/zero")), "it is not a regular file");
        assert_eq!(error(&large), "it has 5 bytes, and at most 4 are read");
        assert_eq!(read(directory.path(), 4).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&large, 5).unwrap(), b"12345");
    }
}
