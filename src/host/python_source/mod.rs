//! What the text of a Python module says, found without running it.
//!
//! [`statements`] joins tokens to logical lines, as Python's own tokenizer does; [`definitions`] and [`assignments`]
//! read those. Nothing here fails: what is not Python, or too dynamic, counts as not known.

mod assignments;
mod definitions;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod interface;
mod literal;
#[cfg(test)]
mod python_tests;
mod statements;
mod strings;
mod tokens;

use std::path::Path;

use super::regular_file;

pub use assignments::{Assigned, Assignments};
pub(super) use definitions::definitions;
pub use interface::Interface;
pub(super) use interface::{Borrowed, interfaces};
pub use literal::Literal;

/// How much of a module's text is read.
const MOST: u64 = 1 << 20;

/// The text of a file, or nothing if it cannot be read.
pub(super) fn read(file: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let _ = regular_file::open(file).and_then(|(file, _)| file.take(MOST).read_to_end(&mut bytes));
    decode(&bytes)
}

/// Source text with uniform line ends, decoded as Python does: UTF-8 unless one of the first two lines names another
/// encoding.
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

/// Whether a line is the comment that names Latin-1 (PEP 263). In other encodings only ASCII is certain.
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
