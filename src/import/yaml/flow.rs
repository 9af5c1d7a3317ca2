//! Values in brackets and in quotation marks, which may go on over several lines.

use std::iter::Peekable;
use std::str::Chars;

use super::{DEEPEST, Nodes, Wrong, Yaml, mapping};

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It ends before the value does.
    Unfinished,
    Wrong(Wrong),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

const TAG: Stop = Stop::Wrong("has a tag, which is not understood here");

struct Flow<'a, 'n> {
    rest: Peekable<Chars<'a>>,
    nodes: &'n mut Nodes,
}

/// Reads a value that begins with a bracket or a quotation mark, and returns what stands behind it.
pub(super) fn read(text: &str, nodes: &mut Nodes) -> Result<(Yaml, String), Stop> {
    let mut flow = Flow { rest: text.chars().peekable(), nodes };
    let value = flow.value(0)?;
    Ok((value, flow.rest.collect()))
}

impl Flow<'_, '_> {
    /// The next letter that is neither a space nor in a comment.
    fn next_token(&mut self) -> Result<char, Stop> {
        while let Some(letter) = self.rest.peek().copied() {
            match letter {
                '#' => while self.rest.next_if(|letter| *letter != '\n').is_some() {},
                _ if letter.is_whitespace() => drop(self.rest.next()),
                _ => return Ok(letter),
            }
        }
        Err(Stop::Unfinished)
    }

    fn value(&mut self, depth: usize) -> Result<Yaml, Stop> {
        if depth > DEEPEST {
            return Err(Stop::Wrong("is nested too deeply"));
        }
        match self.next_token()? {
            '[' => self.list(depth),
            '{' => self.map(depth),
            '"' | '\'' => {
                let text = self.quoted()?;
                Ok(self.nodes.scalar(text)?)
            }
            '*' => {
                let name = self.plain();
                Ok(self.nodes.alias(name.trim_start_matches('*'))?)
            }
            '&' => Err(Stop::Wrong("has an anchor inside brackets, which is not understood here")),
            '!' => Err(TAG),
            _ => {
                let text = self.plain();
                Ok(self.nodes.scalar(text)?)
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Yaml, Stop> {
        self.rest.next();
        let mut items = Vec::new();
        while self.next_token()? != ']' {
            items.push(self.value(depth + 1)?);
            self.separator(']', "has something between the values of a list that is no comma")?;
        }
        self.rest.next();
        self.nodes.node()?;
        Ok(Yaml::List(items))
    }

    /// Skips the comma behind an element; there need not be one before the closing bracket.
    fn separator(&mut self, closing: char, wrong: Wrong) -> Result<(), Stop> {
        match self.next_token()? {
            ',' => drop(self.rest.next()),
            letter if letter == closing => {}
            _ => return Err(Stop::Wrong(wrong)),
        }
        Ok(())
    }

    fn map(&mut self, depth: usize) -> Result<Yaml, Stop> {
        self.rest.next();
        let mut entries = Vec::new();
        loop {
            let key = match self.next_token()? {
                '}' => break,
                '"' | '\'' => self.quoted()?,
                '[' | '{' | '?' | '*' | '&' => return Err(Stop::Wrong("has a key that is not text")),
                '!' => return Err(TAG),
                _ => self.plain(),
            };
            self.nodes.key(&key)?;
            let value = if self.next_token()? == ':' {
                self.rest.next();
                if matches!(self.next_token()?, ',' | '}') { self.nodes.scalar("")? } else { self.value(depth + 1)? }
            } else {
                self.nodes.scalar("")?
            };
            entries.push((key, value));
            self.separator('}', "has something between the entries of a mapping that is no comma")?;
        }
        self.rest.next();
        self.nodes.node()?;
        Ok(mapping(entries)?)
    }

    /// Up to what can end it inside brackets.
    fn plain(&mut self) -> String {
        let mut text = String::new();
        while let Some(letter) = self.rest.peek().copied() {
            let mut ahead = self.rest.clone();
            ahead.next();
            let is_key =
                letter == ':' && ahead.peek().is_none_or(|next| next.is_whitespace() || ",]}".contains(*next));
            let is_comment = letter == '#' && text.ends_with(char::is_whitespace);
            if ",[]{}".contains(letter) || is_key || is_comment {
                break;
            }
            text.push(if letter == '\n' { ' ' } else { letter });
            self.rest.next();
        }
        text.trim_end().to_owned()
    }

    fn quoted(&mut self) -> Result<String, Stop> {
        let quote = self.rest.next();
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or(Stop::Unfinished)? {
                '\'' if quote == Some('\'') && self.rest.next_if_eq(&'\'').is_some() => text.push('\''),
                letter if Some(letter) == quote => return Ok(text),
                '\\' if quote == Some('"') => self.escaped(&mut text)?,
                // A line's end is a space, and so is the indentation of the next.
                '\n' => {
                    text.truncate(text.trim_end().len());
                    text.push(' ');
                    while self.rest.next_if(|letter| letter.is_whitespace()).is_some() {}
                }
                letter => text.push(letter),
            }
        }
    }

    fn escaped(&mut self, text: &mut String) -> Result<(), Stop> {
        let letter = self.rest.next().ok_or(Stop::Unfinished)?;
        let digits = match letter {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '\n' => {
                while self.rest.next_if(|letter| letter.is_whitespace()).is_some() {}
                return Ok(());
            }
            _ => 0,
        };
        let meant = match letter {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            'e' => '\u{1b}',
            '"' | '\\' | '/' | ' ' => letter,
            _ if digits > 0 => {
                let code: String = self.rest.by_ref().take(digits).collect();
                let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                code.ok_or(Stop::Wrong("has an escape that is no letter"))?
            }
            _ => return Err(Stop::Wrong("has an escape that is not understood here")),
        };
        text.push(meant);
        Ok(())
    }
}
