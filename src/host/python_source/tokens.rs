//! Python's tokens.

use super::strings::{Text, is_prefix, string};

/// A token with the line that it begins on, from 1 on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub line: u32,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// An identifier or a keyword.
    Name(String),
    /// A number, as it is written.
    Number(String),
    /// A string literal.
    Text(Text),
    /// An operator or delimiter; an empty one is a letter that Python does not know.
    Operator(&'static str),
}

impl Token {
    /// Whether it is this operator.
    pub fn is(&self, operator: &str) -> bool {
        matches!(&self.kind, Kind::Operator(found) if *found == operator)
    }

    /// Its text if it is an identifier or a keyword.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Name(name) => Some(name),
            _ => None,
        }
    }

    /// How it changes the depth of brackets.
    pub fn nesting(&self) -> i32 {
        match self.kind {
            Kind::Operator("(" | "[" | "{") => 1,
            Kind::Operator(")" | "]" | "}") => -1,
            _ => 0,
        }
    }
}

/// Longest first.
const OPERATORS: &[&str] = &[
    "**=", "//=", "<<=", ">>=", "...", "!=", "%=", "&=", "**", "*=", "+=", "-=", "->", "//", "/=", ":=", "<<", "<=",
    "==", ">=", ">>", "@=", "^=", "|=", "!", "%", "&", "(", ")", "*", "+", ",", "-", ".", "/", ":", ";", "<", "=",
    ">", "@", "[", "]", "^", "{", "|", "}", "~",
];

/// Reads the token at the beginning of the text, which is neither blank nor the end of a line; also returns its length.
pub(super) fn token(text: &str) -> (Kind, usize) {
    let word = text.find(|letter: char| !is_word(letter)).unwrap_or(text.len());
    if text[word..].starts_with(['"', '\'']) && is_prefix(&text[..word]) {
        let (value, length) = string(&text[..word], &text[word..]);
        return (Kind::Text(value), word + length);
    }
    let first = text.chars().next().unwrap_or_default();
    let is_fraction = first == '.' && text[1..].starts_with(|next: char| next.is_ascii_digit());
    if first.is_ascii_digit() || is_fraction {
        let length = number(text);
        return (Kind::Number(text[..length].to_owned()), length);
    }
    if word > 0 {
        return (Kind::Name(text[..word].to_owned()), word);
    }
    match OPERATORS.iter().find(|operator| text.starts_with(**operator)) {
        Some(operator) => (Kind::Operator(operator), operator.len()),
        None => (Kind::Operator(""), first.len_utf8()),
    }
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// How long a number is: digits, letters, a point, and the sign of an exponent.
fn number(text: &str) -> usize {
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    let belongs = |letter: char| {
        let is_exponent = matches!(before, 'e' | 'E') && !is_hexadecimal && matches!(letter, '+' | '-');
        before = letter;
        is_word(letter) || letter == '.' || is_exponent
    };
    let mut belongs = belongs;
    text.find(|letter| !belongs(letter)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(mut text: &str) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while !text.is_empty() {
            let (kind, length) = token(text);
            kinds.push(kind);
            text = text[length..].trim_start();
        }
        kinds
    }

    #[test]
    fn tokens_are_as_long_as_python_makes_them() {
        let number = |text: &str| Kind::Number(text.into());
        assert_eq!(kinds("1_000 0x1F 1e-3 .5 1."), ["1_000", "0x1F", "1e-3", ".5", "1."].map(number));
        assert_eq!(kinds("1-2"), [number("1"), Kind::Operator("-"), number("2")]);
        let text = |text: &str| Kind::Text(Text::Plain(text.into()));
        assert_eq!(kinds("rb 'a'u\"b\"''"), [Kind::Name("rb".into()), text("a"), text("b"), text("")]);
        assert_eq!(kinds("x:=**="), [Kind::Name("x".into()), Kind::Operator(":="), Kind::Operator("**=")]);
        assert_eq!(kinds("$"), [Kind::Operator("")]);
    }
}
