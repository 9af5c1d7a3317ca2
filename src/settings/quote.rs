//! Values as messages show them: short, on one line, and without terminal control characters.

/// How many characters of a longer text are shown.
const SHOWN: usize = 80;

/// The text in quotes, escaped, and cut if it is long.
#[must_use]
pub fn quote(text: &str) -> String {
    cut(text, |part| format!("{part:?}"))
}

/// The text without quotes, cut if it is long.
#[must_use]
pub fn shorten(text: &str) -> String {
    cut(text, str::to_owned)
}

fn cut(text: &str, show: impl Fn(&str) -> String) -> String {
    match text.char_indices().nth(SHOWN) {
        None => show(text),
        Some((end, _)) => format!("{}… ({} bytes)", show(&text[..end]), text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_quoted_and_escaped() {
        assert_eq!(quote("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_its_size_is_shown() {
        let megabyte = "ä".repeat(500_000);
        assert_eq!(quote(&megabyte), format!("\"{}\"… (1000000 bytes)", "ä".repeat(SHOWN)));
        assert_eq!(shorten(&"x".repeat(SHOWN)), "x".repeat(SHOWN));
    }
}
