//! What is typed. Pure.

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// End.
    Quit,
    /// Give the terminal back for a while, as Ctrl-Z does.
    Suspend,
    /// Sort by the next column.
    Right,
    /// Sort by the column before.
    Left,
    /// Turn the order round.
    Reverse,
    /// Scroll.
    Up,
    /// Scroll.
    Down,
    /// Look now, and draw everything anew.
    Refresh,
}

/// Understands what a terminal sends; a sequence may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The beginning of a sequence of an arrow key.
    begun: Vec<u8>,
}

impl Keys {
    /// Takes what was read.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.take_one(*byte)).collect()
    }

    fn take_one(&mut self, byte: u8) -> Option<Key> {
        match (self.begun.as_slice(), byte) {
            (_, 0x1b) => {
                self.begun = vec![byte];
                None
            }
            ([0x1b], b'[' | b'O') => {
                self.begun.push(byte);
                None
            }
            // Parameters, and what belongs to them.
            ([0x1b, ..], 0x20..=0x3f) if self.begun.len() > 1 => None,
            ([0x1b, ..], _) if self.begun.len() > 1 => {
                self.begun.clear();
                arrow(byte)
            }
            _ => {
                self.begun.clear();
                key(byte)
            }
        }
    }
}

/// The last byte of the sequence of an arrow key.
const fn arrow(byte: u8) -> Option<Key> {
    Some(match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        _ => return None,
    })
}

/// Letters, those of `less` and `vi` too, and control characters, which the terminal passes on.
const fn key(byte: u8) -> Option<Key> {
    Some(match byte {
        b'q' | b'Q' | 0x03 | 0x04 | 0x1c => Key::Quit,
        0x1a => Key::Suspend,
        b'>' | b'l' | b'\t' => Key::Right,
        b'<' | b'h' => Key::Left,
        b'r' | b'R' => Key::Reverse,
        b'k' => Key::Up,
        b'j' => Key::Down,
        b' ' | 0x0c => Key::Refresh,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_sequences_are_understood() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"q\x03rx\x1a"), [Key::Quit, Key::Quit, Key::Reverse, Key::Suspend]);
        assert_eq!(keys.take(b"\x1b[C\x1bOD\x1b[A\x1b[B"), [Key::Right, Key::Left, Key::Up, Key::Down]);
        // In pieces, with parameters, unknown ones, and a single Escape.
        assert_eq!([keys.take(b"\x1b"), keys.take(b"["), keys.take(b"C")].concat(), [Key::Right]);
        assert_eq!(keys.take(b"\x1b[1;5C\x1b[5~\x1bq"), [Key::Right, Key::Quit]);
        assert_eq!(keys.take(b"\x1b\x1b[D"), [Key::Left]);
    }
}
