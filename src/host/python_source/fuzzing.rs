//! What is fuzzed here: the text of Python modules, which are the application's or Gunicorn's configuration.

use std::fmt::Write;

use super::assignments::{Assigned, Assignments};
use super::definitions::definitions;
use super::interface::interfaces;
use super::literal::Literal;
use super::{decode, statements};

/// A Python file. Each value that is found is one when it is written anew, and stands where it is said to stand.
pub(crate) fn python(bytes: &[u8]) {
    let source = decode(bytes);
    let lines = u32::try_from(source.split('\n').count()).unwrap_or(u32::MAX);
    let mut written = String::new();
    let mut expected = Vec::new();
    let names = definitions(&source);
    let _ = interfaces(&source);
    let found = Assignments::read(&source);
    for statement in statements::statements(&source) {
        assert!(!statement.tokens.is_empty());
        assert!(statement.tokens.iter().all(|token| (1..=lines).contains(&token.line)));
    }
    for name in &names {
        match found.get(name) {
            Some(Assigned::Literal { value, line }) => {
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
                let mut text = String::new();
                if as_python(&value, &mut text) {
                    _ = writeln!(written, "v{} = {text}", expected.len());
                    expected.push(value);
                }
            }
            Some(Assigned::Computed { line }) => assert!((1..=lines).contains(&line), "line {line} of {lines}"),
            None => {}
        }
    }
    let again = Assignments::read(&written);
    for (index, value) in expected.into_iter().enumerate() {
        match again.get(&format!("v{index}")) {
            Some(Assigned::Literal { value: read, .. }) => assert_eq!(read, value, "{written}"),
            other => panic!("{value:?} became {other:?}: {written}"),
        }
    }
}

/// The value in Python's syntax; false for a number that has none.
pub(super) fn as_python(value: &Literal, text: &mut String) -> bool {
    match value {
        Literal::Float(number) if !number.is_finite() => return false,
        Literal::Text(content) => {
            text.push('\'');
            for letter in content.chars() {
                match u32::from(letter) {
                    code @ (..0x20 | 0x22 | 0x27 | 0x5c | 0x7f..) => _ = write!(text, "\\U{code:08x}"),
                    _ => text.push(letter),
                }
            }
            text.push('\'');
        }
        Literal::Sequence(values) => {
            text.push('[');
            for value in values {
                if !as_python(value, text) {
                    return false;
                }
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
    true
}
