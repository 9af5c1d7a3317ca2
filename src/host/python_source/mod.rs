//! What the text of a Python module says of itself, told without running it.
//!
//! [`statements`] puts tokens together to logical lines, as Python's own tokenizer does; [`definitions`] and
//! [`assignments`] read those. Nothing here fails: what is no Python, or too dynamic to be told, is simply not known.

mod assignments;
mod definitions;
mod interface;
mod literal;
mod statements;
mod strings;
mod tokens;

use std::path::Path;

pub use assignments::{Assigned, Assignments};
pub(super) use definitions::definitions;
pub use interface::Interface;
pub(super) use interface::{Borrowed, interfaces};
pub use literal::Literal;

/// As much of a module's text as is read.
const MOST: u64 = 1 << 20;

/// The text of a file, or nothing where it cannot be read.
pub(super) fn read(file: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    decode(&bytes)
}

/// Source text with its line ends made one kind, decoded as Python does: UTF-8 unless one of the first two lines
/// names another encoding.
fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let is_latin_1 = bytes.split(|byte| *byte == b'\n').take(2).any(names_latin_1);
    let text = if is_latin_1 {
        bytes.iter().map(|byte| char::from(*byte)).collect()
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Whether a line is the comment that names Latin-1 (PEP 263). Of other encodings only ASCII can be relied on.
fn names_latin_1(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line).to_ascii_lowercase().replace('_', "-");
    let Some((_, name)) = line.trim_start().strip_prefix('#').and_then(|comment| comment.split_once("coding")) else {
        return false;
    };
    let name = name.trim_start_matches([':', '=']).trim_start();
    ["latin-1", "latin1", "iso-8859-1", "l1"].iter().any(|known| name.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_encoding_is_the_one_that_the_text_names() {
        assert_eq!(decode(b"\xef\xbb\xbfa = 'x'\r\nb\rc"), "a = 'x'\nb\nc");
        assert_eq!(decode(b"#!/bin/sh\n# -*- coding: latin-1 -*-\nname = '\xe9'"), {
            "#!/bin/sh\n# -*- coding: latin-1 -*-\nname = '\u{e9}'"
        });
        assert_eq!(decode(b"# vim: set fileencoding=iso-8859-1 :\n'\xe9'").chars().nth_back(1), Some('\u{e9}'));
        assert_eq!(decode(b"'\xe9'"), "'\u{fffd}'");
    }
}
