//! What a module assigns to its names, as far as its text shows it.

use std::collections::{BTreeMap, BTreeSet};

use super::definitions::{assigned, bound, opens_block, opens_scope, targets};
use super::literal::{Literal, literal};
use super::statements::{Statement, split, statements};
use super::strings::Text;
use super::tokens::{Kind, Token};

/// What is known of a name's value after the module has run.
#[derive(Debug, Clone, PartialEq)]
pub enum Assigned {
    /// The text contains it.
    Literal {
        /// The value.
        value: Literal,
        /// The line of the assignment.
        line: u32,
    },
    /// Its value is only known when the module runs.
    Computed {
        /// The line of the binding.
        line: u32,
    },
}

/// `a = b = … = value` has fewer names than this.
const MOST_TARGETS: usize = 16;

/// The names that a module binds, and the string literals in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    names: BTreeMap<String, Assigned>,
    /// Names that functions assign to, whenever they are called.
    global: BTreeMap<String, u32>,
    /// The line of something that may bind any name.
    open: Option<u32>,
    texts: BTreeSet<String>,
}

impl Assignments {
    /// Reads a module.
    #[must_use]
    pub fn read(source: &str) -> Self {
        let mut found = Self::default();
        let mut blocks = Blocks::default();
        for statement in statements(source) {
            found.note_texts(&statement.tokens);
            match blocks.enter(&statement) {
                Place::Scope => found.declare_global(&statement.tokens),
                Place::Block => found.bind(&statement.tokens, false),
                Place::Module => found.bind(&statement.tokens, true),
            }
        }
        found
    }

    /// What is known of a name; none if it is not bound.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Assigned> {
        let anything = |line: &u32| Assigned::Computed { line: *line };
        let global = self.global.get(name).map(anything);
        global.or_else(|| self.names.get(name).cloned()).or_else(|| self.open.as_ref().map(anything))
    }

    /// Whether the module contains this text, as a string literal, as part of one, or as a continuation of one:
    /// `GUNICORN_` stands for every variable with that prefix.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        self.texts.iter().any(|text| text.contains(name) || text.ends_with('_') && name.starts_with(text.as_str()))
    }

    fn note_texts(&mut self, tokens: &[Token]) {
        self.texts.extend(tokens.iter().filter_map(|token| match &token.kind {
            Kind::Text(Text::Plain(text) | Text::Begins(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }));
    }

    fn declare_global(&mut self, tokens: &[Token]) {
        for part in split(tokens, ";") {
            if let Some((first, names)) = part.split_first().filter(|(first, _)| first.name() == Some("global")) {
                let names = names.iter().filter_map(Token::name).map(|name| (name.to_owned(), first.line));
                self.global.extend(names);
            }
        }
    }

    /// `certain`: whether it runs exactly once in any case.
    fn bind(&mut self, tokens: &[Token], certain: bool) {
        let Some(line) = tokens.first().map(|token| token.line) else { return };
        if !opens_scope(tokens) {
            self.open_to_anything(tokens, line);
            let walrus = tokens.windows(2).filter(|pair| pair[1].is(":=")).filter_map(|pair| pair[0].name());
            walrus.for_each(|name| self.compute(name, line));
        }
        for part in split(tokens, ";") {
            let certain = certain && !opens_block(tokens);
            self.change(part, line);
            match assigned(part) {
                (value, sides) if certain && !sides.is_empty() && !opens_scope(part) => {
                    self.assign(value, &sides, line);
                }
                _ => bound(part).into_iter().for_each(|name| self.compute(name, line)),
            }
        }
    }

    fn compute(&mut self, name: &str, line: u32) {
        self.names.insert(name.to_owned(), Assigned::Computed { line });
    }

    fn assign(&mut self, value: &[Token], sides: &[&[Token]], line: u32) {
        // Each name gets a copy.
        let value = literal(value).filter(|_| sides.len() <= MOST_TARGETS);
        for side in sides {
            match (&targets(side)[..], side.len(), &value) {
                ([name], 1, Some(value)) => {
                    self.names.insert((*name).to_owned(), Assigned::Literal { value: value.clone(), line });
                }
                (names, _, Some(Literal::Sequence(values))) if unpacks(side, names.len(), values.len()) => {
                    let each = names.iter().zip(values);
                    let each = each.map(|(name, value)| ((*name).to_owned(), value.clone()));
                    self.names.extend(each.map(|(name, value)| (name, Assigned::Literal { value, line })));
                }
                (names, _, _) => names.iter().for_each(|name| self.compute(name, line)),
            }
        }
    }

    /// `name += …`, `name[0] = …`, `name.append(…)`, `del name`: the literal is no longer the value.
    fn change(&mut self, part: &[Token], line: u32) {
        match part {
            [first, rest @ ..] if first.name() == Some("del") => {
                rest.iter().filter_map(Token::name).for_each(|name| self.compute(name, line));
            }
            [first, next, ..] if next.is(".") || next.is("[") || is_augmented(next) => {
                if let Some(name) = first.name().filter(|name| self.names.contains_key(*name)) {
                    self.compute(name, line);
                }
            }
            _ => {}
        }
    }

    /// Star imports, and access through the module's dictionary.
    fn open_to_anything(&mut self, tokens: &[Token], line: u32) {
        const DYNAMIC: [&str; 6] = ["globals", "vars", "locals", "exec", "execfile", "setattr"];
        let is_call = |pair: &[Token]| pair[0].name().is_some_and(|name| DYNAMIC.contains(&name)) && pair[1].is("(");
        let is_star = |pair: &[Token]| pair[0].name() == Some("import") && pair[1].is("*");
        if tokens.windows(2).any(|pair| is_call(pair) || is_star(pair)) {
            self.open = Some(line);
            self.names.clear();
        }
    }
}

/// Whether this many plain names get this many values, one each.
fn unpacks(side: &[Token], names: usize, values: usize) -> bool {
    let is_starred = side.iter().any(|token| token.is("*"));
    let commas = side.iter().filter(|token| token.is(",")).count();
    !is_starred && names > 1 && names == values && names == split_count(commas, side)
}

/// The number of parts: one more than commas, unless a comma ends them.
fn split_count(commas: usize, side: &[Token]) -> usize {
    let ends_with_comma = side.iter().rev().find(|token| token.nesting() == 0).is_some_and(|token| token.is(","));
    if ends_with_comma { commas } else { commas + 1 }
}

fn is_augmented(token: &Token) -> bool {
    match token.kind {
        Kind::Operator(operator) => {
            operator.ends_with('=') && !["=", "==", "!=", "<=", ">=", ":="].contains(&operator)
        }
        _ => false,
    }
}

enum Place {
    /// At the top of the module.
    Module,
    /// In a branch or a loop.
    Block,
    /// In the body of a function or a class.
    Scope,
}

/// The blocks that a statement is in, by their indentation; whether each is a scope of its own.
#[derive(Default)]
struct Blocks(Vec<(usize, bool)>);

impl Blocks {
    fn enter(&mut self, statement: &Statement) -> Place {
        while self.0.last().is_some_and(|(indent, _)| *indent >= statement.indent) {
            self.0.pop();
        }
        let place = match &self.0[..] {
            [] => Place::Module,
            blocks if blocks.iter().any(|(_, is_scope)| *is_scope) => Place::Scope,
            _ => Place::Block,
        };
        let is_scope = opens_scope(&statement.tokens);
        if is_scope || opens_block(&statement.tokens) {
            self.0.push((statement.indent, is_scope));
        }
        place
    }
}

#[cfg(test)]
#[path = "assignments_tests.rs"]
mod tests;
