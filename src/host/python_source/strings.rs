//! String literals: their extent and their value.

/// The value of a string literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// A known text.
    Plain(String),
    /// Bytes, or a text that is only known when it runs; with its known beginning.
    Begins(String),
}

/// How deeply nested placeholders of formatted strings are followed. Deeper ones count as text.
const DEEPEST: u32 = 16;

/// Whether these letters before a quote belong to the literal.
pub(super) fn is_prefix(letters: &str) -> bool {
    const PREFIXES: [&str; 11] = ["", "r", "u", "b", "br", "rb", "f", "fr", "rf", "t", "rt"];
    let letters = letters.to_ascii_lowercase();
    PREFIXES.contains(&letters.as_str()) || letters == "tr"
}

/// Reads a literal whose opening quote `rest` begins with; `prefix` is what precedes it. Also returns how many bytes it
/// takes, including the quotes. One that is not closed ends with its line, or with the text.
pub(super) fn string(prefix: &str, rest: &str) -> (Text, usize) {
    let prefix = prefix.to_ascii_lowercase();
    let formatted = prefix.contains(['f', 't']);
    let quote = &rest[..if rest.starts_with(r#"""""#) || rest.starts_with("'''") { 3 } else { 1 }];
    let inside = extent(&rest[quote.len()..], quote, formatted, 0);
    let body = &rest[quote.len()..quote.len() + inside];
    let closed = rest[quote.len() + inside..].starts_with(quote);
    let length = quote.len() + inside + if closed { quote.len() } else { 0 };
    let raw = prefix.contains('r');
    let placeholder = if formatted { body.find(['{', '}']) } else { None };
    let text = match placeholder {
        Some(at) => Text::Begins(plain(&body[..at], raw).unwrap_or_default()),
        None if prefix.contains('b') || !closed => Text::Begins(String::new()),
        None => plain(body, raw).map_or_else(|| Text::Begins(String::new()), Text::Plain),
    };
    (text, length)
}

/// How many bytes come before the closing quote, or before what ends the literal without one.
fn extent(body: &str, quote: &str, formatted: bool, depth: u32) -> usize {
    let mut at = 0;
    while let Some(found) = body[at..].find(['\\', '\n', '"', '\'', '{']) {
        at += found;
        let here = &body[at..];
        if here.starts_with(quote) || here.starts_with('\n') && quote.len() == 1 {
            return at;
        }
        at += match here.as_bytes()[0] {
            b'\\' => 1 + here[1..].chars().next().map_or(0, char::len_utf8),
            b'{' if formatted && here.starts_with("{{") => 2,
            b'{' if formatted && depth < DEEPEST => 1 + placeholder(&here[1..], quote, depth),
            _ => 1,
        };
    }
    body.len()
}

/// How many bytes a placeholder takes after its brace, including strings in it: since Python 3.12 those may use the
/// quotes of the string around them.
fn placeholder(body: &str, outer: &str, depth: u32) -> usize {
    let mut at = 0;
    let mut braces = 0_u32;
    while let Some(found) = body[at..].find(['{', '}', '"', '\'', '\n']) {
        at += found;
        let here = &body[at..];
        match here.as_bytes()[0] {
            b'}' if braces == 0 => return at + 1,
            b'}' => braces -= 1,
            b'{' => braces += 1,
            b'\n' if outer.len() == 1 => return at,
            // Before 3.12, the outer quote ends the literal whatever is open.
            b'"' | b'\'' => {
                let quote = &here[..if here.starts_with(r#"""""#) || here.starts_with("'''") { 3 } else { 1 }];
                let formatted = body[..at].ends_with(['f', 'F']);
                let inside = extent(&here[quote.len()..], quote, formatted, depth + 1);
                let closed = here[quote.len() + inside..].starts_with(quote);
                at += quote.len() + inside + if closed { quote.len() } else { 0 };
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    body.len()
}

/// The text inside a literal; none if it uses a kind of escape that is not supported here, or an unknown encoding.
fn plain(body: &str, raw: bool) -> Option<String> {
    let known = !body.contains('\u{fffd}');
    if raw || !body.contains('\\') {
        return known.then(|| body.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = escape(&rest[at + 1..], &mut text)?;
    }
    text.push_str(rest);
    known.then_some(text)
}

/// Adds the character of an escape, and returns the rest after it.
fn escape<'a>(rest: &'a str, text: &mut String) -> Option<&'a str> {
    let letter = rest.chars().next()?;
    let behind = &rest[letter.len_utf8()..];
    let simple = match letter {
        '\n' => return Some(behind),
        '\\' | '\'' | '"' => letter,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0'..='7' => {
            let digits = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            return numbered(rest, digits, 8, text);
        }
        'x' => return numbered(behind, 2, 16, text),
        'u' => return numbered(behind, 4, 16, text),
        'U' => return numbered(behind, 8, 16, text),
        'N' => return None,
        _ => {
            text.push('\\');
            letter
        }
    };
    text.push(simple);
    Some(behind)
}

fn numbered<'a>(rest: &'a str, digits: usize, radix: u32, text: &mut String) -> Option<&'a str> {
    let number = rest.get(..digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    text.push(char::from_u32(u32::from_str_radix(number, radix).ok()?)?);
    Some(&rest[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(prefix: &str, literal: &str) -> Option<String> {
        match string(prefix, literal) {
            (Text::Plain(text), length) if length == literal.len() => Some(text),
            _ => None,
        }
    }

    #[test]
    fn escapes_are_pythons() {
        for (prefix, literal, wanted) in [
            ("", r"'a\n\t\\\'\x41\101\u00e9\U0001f600'", "a\n\t\\'AA\u{e9}\u{1f600}"),
            ("", r#""\d\/""#, r"\d\/"),
            ("", "'a\\\nb'", "ab"),
            ("", r"'\0'", "\0"),
            ("", r"'\1234'", "S4"),
            ("r", r"'\n\''", r"\n\'"),
            ("R", r#"'"'"#, "\""),
            ("u", "'x'", "x"),
            ("f", "'no placeholder'", "no placeholder"),
            ("", "''", ""),
            ("", "\"\"\"a\n'b' \"c\"\n\"\"\"", "a\n'b' \"c\"\n"),
            ("", "'''it\\'''s'''", "it'''s"),
        ] {
            assert_eq!(plainly(prefix, literal).as_deref(), Some(wanted), "{prefix}{literal}");
        }
    }

    #[test]
    fn what_only_running_it_would_tell_is_not_known() {
        for (prefix, literal, begins) in [
            ("f", "'GUNICORN_{name}'", "GUNICORN_"),
            ("F", "'{{}}'", ""),
            ("b", "'x'", ""),
            ("", r"'\N{DASH}'", ""),
            ("", r"'\xzz'", ""),
            ("", r"'\ud800'", ""),
            ("", "'\u{fffd}'", ""),
        ] {
            assert_eq!(string(prefix, literal), (Text::Begins(begins.into()), literal.len()), "{prefix}{literal}");
        }
    }

    #[test]
    fn a_literal_ends_where_python_ends_it() {
        for (prefix, source, taken) in [
            ("", "'a' 'b'", "'a'"),
            ("", "'a\nb'", "'a"),
            ("", "'''a\nb", "'''a\nb"),
            ("f", "\"{d[\"#\"]}\" # x", "\"{d[\"#\"]}\""),
            ("f", "'{x!r:>{width}}' y", "'{x!r:>{width}}'"),
            ("f", "'{{' y", "'{{'"),
            ("f", "'''{\nx\n}''' y", "'''{\nx\n}'''"),
            ("", "'{' y", "'{'"),
        ] {
            assert_eq!(&source[..string(prefix, source).1], taken, "{prefix}{source}");
        }
    }
}
