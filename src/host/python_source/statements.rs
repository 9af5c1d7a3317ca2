//! Logical lines, joined from physical ones as by Python's tokenizer.

use super::tokens::{Token, token};

/// A logical line, which has at least one token. Statements separated by `;` are not split yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    /// The column that it begins in.
    pub indent: usize,
    pub tokens: Vec<Token>,
}

/// Splits a text, whose lines end with `\n`, into its logical lines.
pub(super) fn statements(source: &str) -> impl Iterator<Item = Statement> {
    let mut reader = Reader { rest: source.trim_start_matches('\u{feff}'), line: 1 };
    std::iter::from_fn(move || reader.statement())
}

/// Splits tokens at this operator, outside of brackets.
pub(super) fn split<'a>(tokens: &'a [Token], operator: &str) -> Vec<&'a [Token]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            depth = (depth + token.nesting()).max(0);
            depth == 0 && token.is(operator)
        })
        .collect()
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
}

impl Reader<'_> {
    fn statement(&mut self) -> Option<Statement> {
        let mut tokens: Vec<Token> = Vec::new();
        let (mut indent, mut depth) = (0, 0);
        while let Some(letter) = self.rest.chars().next() {
            match letter {
                '\n' if depth == 0 && !tokens.is_empty() => {
                    self.skip(1);
                    break;
                }
                '\n' => {
                    self.skip(1);
                    indent = if tokens.is_empty() { 0 } else { indent };
                }
                '\\' if self.rest[1..].starts_with('\n') => self.skip(2),
                '#' => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                _ if letter.is_whitespace() => {
                    if tokens.is_empty() {
                        indent = column_behind(indent, letter);
                    }
                    self.skip(letter.len_utf8());
                }
                _ => {
                    let token = self.token();
                    depth = (depth + token.nesting()).max(0);
                    tokens.push(token);
                }
            }
        }
        (!tokens.is_empty()).then_some(Statement { indent, tokens })
    }

    fn token(&mut self) -> Token {
        let (kind, length) = token(self.rest);
        let token = Token { kind, line: self.line };
        self.skip(length);
        token
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        let lines = skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
    }
}

/// A tab goes to the next multiple of 8, and a form feed resets the column.
const fn column_behind(column: usize, blank: char) -> usize {
    match blank {
        '\t' => (column / 8 + 1) * 8,
        '\x0c' => 0,
        _ => column + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(source: &str) -> Vec<(usize, u32, usize)> {
        statements(source).map(|found| (found.indent, found.tokens[0].line, found.tokens.len())).collect()
    }

    #[test]
    fn physical_lines_are_put_together() {
        assert_eq!(shape("a = (\n  1,\n\n  # more\n  2)\nb = 1"), [(0, 1, 7), (0, 6, 3)]);
        assert_eq!(shape("a = \\\n  1\nb"), [(0, 1, 3), (0, 3, 1)]);
        assert_eq!(shape("\n  # only a comment\n\tif x:\n\t    y"), [(8, 3, 3), (12, 4, 1)]);
        assert_eq!(shape("a = '''\n\n'''\nb"), [(0, 1, 3), (0, 4, 1)]);
        assert_eq!(shape("a)\nb"), [(0, 1, 2), (0, 2, 1)]);
        assert_eq!(shape(""), []);
    }
}
