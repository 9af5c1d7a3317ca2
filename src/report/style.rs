//! Colours and line breaks.

/// Whether to use colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub colour: bool,
}

impl Style {
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn value(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// Select Graphic Rendition, ECMA-48.
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The words of a text.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Puts as many pieces on each line as fit; one that is too long gets its own line.
pub(super) fn wrap(pieces: Vec<String>, between: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line)
                if [line.as_str(), between, &piece].map(|part| part.chars().count()).iter().sum::<usize>()
                    <= width =>
            {
                line.push_str(between);
                line.push_str(&piece);
            }
            _ => lines.push(piece),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let broken = |text| wrap(words(text), " ", 7);
        assert_eq!(broken("one two three"), ["one two", "three"]);
        assert_eq!(broken("incomprehensibilities is long"), ["incomprehensibilities", "is long"]);
        assert!(broken("").is_empty());
    }
}
