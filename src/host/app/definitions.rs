//! The names that the text of a Python module defines at module level, told from its statements alone.
//!
//! Branches of `if`, `try` and `with` count, the bodies of functions and classes do not.

/// Lists the names, each as often as it is bound. Star imports and other dynamic ways are not seen.
pub(super) fn definitions(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    // The indentation of the function or class that we are in.
    let mut body: Option<usize> = None;
    for statement in Statements::new(source) {
        if body.is_some_and(|indent| statement.indent > indent) {
            continue;
        }
        let opens = ["def ", "async def ", "class "].iter().any(|word| statement.text.starts_with(word));
        body = opens.then_some(statement.indent);
        for part in statement.text.split(';') {
            bound_by(part.trim(), &mut names);
        }
    }
    names
}

/// The names that one statement binds.
fn bound_by(statement: &str, names: &mut Vec<String>) {
    let mut words = statement.splitn(2, ' ');
    let (first, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    match first {
        "async" => bound_by(rest, names),
        "def" | "class" => names.extend(identifier(rest)),
        "import" => names.extend(rest.split(',').filter_map(imported)),
        "from" => {
            let Some((_, list)) = rest.split_once(" import ").or_else(|| rest.split_once(" import(")) else { return };
            names.extend(list.trim_matches(['(', ')', ' ']).split(',').filter_map(imported));
        }
        _ => {
            // `a = b = value`: all but the last are targets. In `a: T = value` the annotation is no target, and
            // neither is what stands in brackets.
            let flat = outside_brackets(statement);
            let sides = assigned(&flat);
            let targets =
                sides.iter().flat_map(|side| side.split_once(':').map_or(*side, |(name, _)| name).split(','));
            names
                .extend(targets.filter_map(|target| identifier(target.trim()).filter(|name| *name == target.trim())));
        }
    }
}

/// What stands before each `=` that is no part of another operator.
fn assigned(flat: &str) -> Vec<&str> {
    let bytes = flat.as_bytes();
    let mut sides = Vec::new();
    let mut start = 0;
    for (at, _) in flat.match_indices('=') {
        let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| b"=<>!:+-*/%&|^@".contains(byte));
        if !is_part(at.checked_sub(1).and_then(|before| bytes.get(before))) && bytes.get(at + 1) != Some(&b'=') {
            sides.push(&flat[start..at]);
            start = at + 1;
        }
    }
    sides
}

/// `b` for `a as b`, the first part of `a.b` otherwise.
fn imported(item: &str) -> Option<String> {
    let item = item.trim();
    identifier(item.split_once(" as ").map_or(item, |(_, name)| name.trim()))
}

/// The identifier that the text begins with.
fn identifier(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The text with calls, subscripts and displays cut out.
fn outside_brackets(text: &str) -> String {
    let mut depth = 0_u32;
    let mut flat = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' => {
                depth += 1;
                flat.push('?');
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => flat.push(letter),
            _ => {}
        }
    }
    flat
}

/// A logical line without comments and with empty strings.
struct Statement {
    indent: usize,
    text: String,
}

/// Puts physical lines together to logical ones, as Python's tokenizer does.
struct Statements<'a> {
    rest: &'a str,
}

impl<'a> Statements<'a> {
    fn new(source: &'a str) -> Self {
        Self { rest: source.trim_start_matches('\u{feff}') }
    }

    /// Skips a string whose opening quote comes next.
    fn skip_string(&mut self) {
        let quote = if self.rest.starts_with(r#"""""#) || self.rest.starts_with("'''") { 3 } else { 1 };
        let (mark, mut rest) = self.rest.split_at(quote);
        while let Some(at) = rest.find(['\\', '\n', '"', '\'']) {
            let found = &rest[at..];
            if found.starts_with(mark) {
                self.rest = &found[quote..];
                return;
            }
            if found.starts_with('\n') && quote == 1 {
                // Not closed: an error in Python, the end of the line here.
                self.rest = found;
                return;
            }
            let escaped = if found.starts_with('\\') { found.chars().nth(1).map_or(0, char::len_utf8) } else { 0 };
            rest = &found[1 + escaped..];
        }
        self.rest = "";
    }
}

impl Iterator for Statements<'_> {
    type Item = Statement;

    fn next(&mut self) -> Option<Statement> {
        let mut text = String::new();
        let mut depth = 0_u32;
        while let Some(letter) = self.rest.chars().next() {
            if matches!(letter, '"' | '\'') {
                self.skip_string();
                text.push_str("\"\"");
                continue;
            }
            if letter == '#' {
                self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
                continue;
            }
            self.rest = &self.rest[letter.len_utf8()..];
            match letter {
                '\n' if depth > 0 => text.push(' '),
                '\n' if text.trim().is_empty() => text.clear(),
                '\n' => break,
                '\\' if self.rest.trim_start_matches('\r').starts_with('\n') => {
                    self.rest = self.rest.trim_start_matches('\r').strip_prefix('\n').unwrap_or_default();
                    text.push(' ');
                }
                '\t' => text.push_str("        "),
                '\r' => {}
                _ => {
                    match letter {
                        '(' | '[' | '{' => depth += 1,
                        ')' | ']' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    text.push(letter);
                }
            }
        }
        let trimmed = text.trim_start();
        let indent = text.len() - trimmed.len();
        (!trimmed.is_empty()).then(|| Statement { indent, text: trimmed.trim_end().to_owned() })
    }
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
            "x = 1\r\napp = 2\r\n",
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

    proptest! {
        #[test]
        fn no_text_is_too_odd(source in "(?s).{0,80}", python in "[app=:()'\"\\\\ \n#;,]{0,60}") {
            let _ = (definitions(&source), definitions(&python));
        }
    }
}
