//! Literal values in a text.

use std::fmt;

use super::strings::Text;
use super::tokens::{Kind, Token};

/// A Python value that is written as a literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A list or a tuple.
    Sequence(Vec<Literal>),
}

/// How deeply nested brackets are followed.
const DEEPEST: u32 = 16;

/// The value of these tokens: all of them, without any computation.
pub(super) fn literal(tokens: &[Token]) -> Option<Literal> {
    let mut parser = Parser { rest: tokens, depth: 0 };
    let value = parser.value_or_tuple(None)?;
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a [Token],
    depth: u32,
}

impl Parser<'_> {
    /// One value, or several separated by commas, up to this end.
    fn value_or_tuple(&mut self, end: Option<&str>) -> Option<Literal> {
        let (mut values, has_comma) = self.values(end)?;
        match (values.len(), has_comma) {
            (1, false) => values.pop(),
            _ => Some(Literal::Sequence(values)),
        }
    }

    /// Values separated by commas, and whether there was a comma.
    fn values(&mut self, end: Option<&str>) -> Option<(Vec<Literal>, bool)> {
        let (mut values, mut has_comma) = (Vec::new(), false);
        loop {
            let at_end = end.map_or(self.rest.is_empty() && has_comma, |end| self.takes(end));
            if at_end {
                return Some((values, has_comma));
            }
            values.push(self.value()?);
            if self.takes(",") {
                has_comma = true;
            } else {
                let ended = end.map_or(self.rest.is_empty(), |end| self.takes(end));
                return ended.then_some((values, has_comma));
            }
        }
    }

    fn value(&mut self) -> Option<Literal> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match &first.kind {
            Kind::Text(Text::Plain(text)) => self.joined(text.clone()),
            Kind::Number(number) => numeric(number),
            Kind::Operator("-") => self.nested(|parser| parser.value()?.negative()),
            Kind::Operator("(") => self.nested(|parser| parser.value_or_tuple(Some(")"))),
            Kind::Operator("[") => self.nested(|parser| Some(Literal::Sequence(parser.values(Some("]"))?.0))),
            Kind::Name(name) => constant(name),
            _ => None,
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Literal>) -> Option<Literal> {
        if self.depth >= DEEPEST {
            return None;
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Adjacent strings are one.
    fn joined(&mut self, mut text: String) -> Option<Literal> {
        while let Some(Token { kind: Kind::Text(next), .. }) = self.rest.first() {
            match next {
                Text::Plain(next) => text.push_str(next),
                Text::Begins(_) => return None,
            }
            self.rest = &self.rest[1..];
        }
        Some(Literal::Text(text))
    }

    fn takes(&mut self, operator: &str) -> bool {
        let found = self.rest.first().is_some_and(|token| token.is(operator));
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }
}

/// Roughly as Python would write it, for people.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Sequence(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
        }
    }
}

impl Literal {
    fn negative(self) -> Option<Self> {
        match self {
            Self::Int(number) => number.checked_neg().map(Self::Int),
            Self::Float(number) => Some(Self::Float(-number)),
            _ => None,
        }
    }
}

fn constant(name: &str) -> Option<Literal> {
    match name {
        "None" => Some(Literal::None),
        "True" => Some(Literal::Bool(true)),
        "False" => Some(Literal::Bool(false)),
        _ => None,
    }
}

fn numeric(written: &str) -> Option<Literal> {
    let text = written.replace('_', "").to_ascii_lowercase();
    let whole = |digits: &str, radix| i128::from_str_radix(digits, radix).ok().map(Literal::Int);
    match text.get(..2) {
        Some("0x") => whole(&text[2..], 16),
        Some("0o") => whole(&text[2..], 8),
        Some("0b") => whole(&text[2..], 2),
        // Python 2 read `022` as octal; for Python 3 it is an error.
        Some(start)
            if start.starts_with('0') && start.as_bytes()[1].is_ascii_digit() && !text.contains(['.', 'e']) =>
        {
            text.bytes().all(|digit| digit == b'0').then_some(Literal::Int(0))
        }
        _ if text.bytes().all(|letter| letter.is_ascii_digit()) => whole(&text, 10),
        _ => text.parse().ok().map(Literal::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::super::statements::statements;
    use super::*;

    fn of(source: &str) -> Option<Literal> {
        literal(&statements(source).next()?.tokens)
    }

    fn text(text: &str) -> Literal {
        Literal::Text(text.into())
    }

    #[test]
    fn what_is_spelled_out_is_read() {
        let list = |texts: &[&str]| Literal::Sequence(texts.iter().map(|one| text(one)).collect());
        for (source, wanted) in [
            ("None", Literal::None),
            ("(True)", Literal::Bool(true)),
            ("0o007", Literal::Int(7)),
            ("1_000", Literal::Int(1000)),
            ("-3", Literal::Int(-3)),
            ("00", Literal::Int(0)),
            ("2.5e1", Literal::Float(25.0)),
            ("'a' \"b\" r'\\c'", text("ab\\c")),
            ("('a'\n 'b')", text("ab")),
            ("['a', 'b',]", list(&["a", "b"])),
            ("[('a')]", list(&["a"])),
            ("('a',)", list(&["a"])),
            ("'a', 'b'", list(&["a", "b"])),
            ("'a',", list(&["a"])),
            ("[]", list(&[])),
            ("()", list(&[])),
            ("[['a']]", Literal::Sequence(vec![list(&["a"])])),
        ] {
            assert_eq!(of(source), Some(wanted), "{source}");
        }
    }

    #[test]
    fn what_must_be_worked_out_is_not() {
        for source in [
            "1 + 1",
            "f()",
            "'a' % b",
            "x",
            "[x]",
            "'a' if b else 'c'",
            "f'{a}'",
            "'a' f'{b}'",
            "b'a'",
            "{}",
            "1 2",
            "(",
            "[1",
            "022",
            "1j",
            "not True",
            "['a' 'b' for x in y]",
            "lambda: 1",
            "-'a'",
            "'a'.upper()",
            ",",
            "[,]",
        ] {
            assert_eq!(of(source), None, "{source}");
        }
        assert_eq!(of(&"(".repeat(10_000)), None);
        assert_eq!(of(&"-".repeat(10_000)), None);
    }
}
