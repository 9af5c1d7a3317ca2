//! The names that the text of a Python module defines at module level, found from its statements alone.
//!
//! Branches of `if`, `try` and `with` count, the bodies of functions and classes do not.

use super::statements::{Statement, split, statements};
use super::tokens::Token;

/// Lists the names, each as often as it is bound. Star imports and other dynamic ways are not seen.
pub(in super::super) fn definitions(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for_each_at_module_level(source, |statement| {
        for part in split(&statement.tokens, ";") {
            names.extend(bound(part).into_iter().map(str::to_owned));
        }
    });
    names
}

/// Visits the statements that are not in the body of a function or a class.
fn for_each_at_module_level(source: &str, mut visit: impl FnMut(&Statement)) {
    // The indentation of the function or class that we are in.
    let mut body: Option<usize> = None;
    for statement in statements(source) {
        if body.is_some_and(|indent| statement.indent > indent) {
            continue;
        }
        body = opens_scope(&statement.tokens).then_some(statement.indent);
        visit(&statement);
    }
}

/// Whether a function or a class begins here.
pub(super) fn opens_scope(tokens: &[Token]) -> bool {
    let mut words = tokens.iter().map(Token::name);
    match words.next().flatten() {
        Some("def" | "class") => true,
        Some("async") => words.next().flatten() == Some("def"),
        _ => false,
    }
}

/// Whether what follows in the statement, or is indented below it, runs conditionally or repeatedly.
pub(super) fn opens_block(tokens: &[Token]) -> bool {
    const WORDS: [&str; 12] =
        ["if", "elif", "else", "for", "while", "try", "except", "finally", "with", "async", "match", "case"];
    let is_assignment = tokens.get(1).is_some_and(|next| next.is("=") || next.is(".") || next.is(","));
    tokens.first().and_then(Token::name).is_some_and(|word| WORDS.contains(&word)) && !is_assignment
}

/// The names that one statement binds.
pub(super) fn bound(statement: &[Token]) -> Vec<&str> {
    let asyncs = statement.iter().take_while(|token| token.name() == Some("async")).count();
    let statement = &statement[asyncs..];
    let Some((first, rest)) = statement.split_first() else { return Vec::new() };
    match first.name() {
        Some("def" | "class") => rest.first().and_then(Token::name).into_iter().collect(),
        Some("import") => split(rest, ",").into_iter().filter_map(imported).collect(),
        Some("from") => from_import(rest),
        // A name in a pattern is bound, unless it names a class or a value.
        Some("case") if opens_block(statement) => rest.iter().filter_map(Token::name).chain(in_block(rest)).collect(),
        _ if opens_block(statement) => in_block(rest),
        _ => assigned(statement).1.into_iter().flat_map(targets).collect(),
    }
}

/// The names after `import`, with or without brackets.
fn from_import(rest: &[Token]) -> Vec<&str> {
    let Some(at) = rest.iter().position(|token| token.name() == Some("import")) else { return Vec::new() };
    let names = rest[at + 1..].split(|token| token.is(",") || token.is("(") || token.is(")"));
    names.filter_map(imported).collect()
}

/// `b` for `a as b`, the first part of `a.b` otherwise.
fn imported(item: &[Token]) -> Option<&str> {
    let behind_as = item.iter().position(|token| token.name() == Some("as")).map(|at| at + 1);
    item.get(behind_as.unwrap_or(0))?.name()
}

/// What the first line of a block binds: the targets of `for` and `as`, and what follows its colon.
fn in_block(rest: &[Token]) -> Vec<&str> {
    let mut parts = split(rest, ":").into_iter();
    let head = parts.next().unwrap_or_default();
    let behind_as = head.windows(2).filter(|pair| pair[0].name() == Some("as")).filter_map(|pair| pair[1].name());
    let looped = head.iter().position(|token| token.name() == Some("in")).map_or(&[][..], |at| &head[..at]);
    let body = parts.flat_map(bound);
    behind_as.chain(targets(looped)).chain(body).collect()
}

/// `a = b = value`: the value, and what is assigned to. An annotation without a value assigns nothing.
pub(super) fn assigned(statement: &[Token]) -> (&[Token], Vec<&[Token]>) {
    let mut sides = split(statement, "=");
    let value = sides.pop().unwrap_or_default();
    let without_annotation = |side| split(side, ":").into_iter().next().unwrap_or_default();
    (value, sides.into_iter().map(without_annotation).collect())
}

/// The names in a target: one, or several separated by commas. Attributes and items do not count.
pub(super) fn targets<'a>(target: &'a [Token]) -> Vec<&'a str> {
    let is_bracketed = target.first().is_some_and(|token| token.is("(") || token.is("["));
    let inside = match target {
        [_, inside @ .., last] if is_bracketed && last.nesting() < 0 => inside,
        _ => target,
    };
    let parts = split(inside, ",").into_iter();
    let name = |part: &'a [Token]| match part {
        [only] => only.name(),
        [star, rest] if star.is("*") => rest.name(),
        _ => None,
    };
    parts.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn defines(source: &str) -> bool {
        definitions(source).iter().any(|name| name == "app")
    }

    #[test]
    fn every_way_to_define_a_name_is_seen() {
        for source in [
            "app = FastAPI()",
            "app: FastAPI = FastAPI(title=\"x\")",
            "application = app = make()",
            "app, other = make()",
            "def app(scope): ...",
            "async def app(scope, receive, send):\n    pass",
            "class app:\n    pass",
            "import app",
            "import my.site as app",
            "from .main import app",
            "from main import create, api as app",
            "from main import (\n    other,\n    app,  # ours\n)",
            "import os; app = 1",
            "if DEBUG:\n    app = one()\nelse:\n    app = two()",
            "try:\n\tfrom a import app\nexcept ImportError:\n\tapp = None",
            "\"\"\"Text.\n\"\"\"\napp = make(\n    a=1,\n)\n",
            "def f():\n    x = 1\n\napp = f()",
            "x = \\\n    1\napp = 2",
            "app = x if a == b else y",
            "app = [n for n in r if n >= 1]",
            "s = 'it''s'\napp = 1",
            "\u{feff}app = 1",
            "if DEBUG: app = one()",
            "with made() as app:\n    pass",
            "(app, other) = make()",
        ] {
            assert!(defines(source), "{source}");
        }
    }

    #[test]
    fn what_only_looks_like_a_definition_is_not_one() {
        for source in [
            "",
            "\"\"\"\napp = FastAPI()\n\"\"\"",
            "# app = 1",
            "def f():\n    app = 1",
            "class A:\n    def f(self):\n        pass\n    app = 1",
            "make(app=1)",
            "x = make(\n    app = 1\n)",
            "app == 1",
            "app: FastAPI",
            "app.state = 1",
            "app[0] = 1",
            "from app import main",
            "import apps",
            "import app.main as main",
            "from main import app as main",
            "my_app = 1",
            "if x:\n    def f():\n        app = 1\n    y = 2",
            "x = '''\napp = 1'''",
            "x = \"\\\"\napp\"",
        ] {
            assert!(!defines(source), "{source}: {:?}", definitions(source));
        }
    }

    #[test]
    fn a_word_that_is_repeated_without_end_is_survived() {
        assert!(defines(&format!("{} def app(): pass", "async ".repeat(100_000))));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(source in "(?s).{0,80}", python in "[app=:()'\"\\\\ \n#;,]{0,60}") {
            let _ = (definitions(&source), definitions(&python));
        }
    }
}
