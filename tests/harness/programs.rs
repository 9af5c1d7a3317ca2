//! Programs that tests make.
//!
//! Other processes write them. A child that another test starts has a copy of every file that is open for writing in this
//! process, until it executes its program; meanwhile the kernel does not execute such a file ("text file busy").

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable file.
#[track_caller]
pub fn write_program(path: &Path, text: &str) {
    let write = r#"cat >"$1" && chmod 755 "$1""#;
    let mut shell =
        Command::new("/bin/sh").args(["-c", write, "sh"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{}", path.display());
}

/// Copies an executable file.
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to).status().unwrap().success(), "{}", to.display());
}
