//! Finds secrets in a text by the names before them.
//!
//! It understands `NAME=VALUE`, `NAME: VALUE` (JSON, YAML, headers), `--NAME VALUE`, values and whole assignments in
//! quotes, credentials in URLs, and private keys in PEM. If the end of a value is not certain, more is removed.

use std::fmt::Write;

use super::names::{is_secret, option};
use crate::settings::value::REDACTED;

/// The text without its secrets.
pub(super) fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = private_key(rest, &mut shown)
            .or_else(|| credentials(rest, &mut shown))
            .or_else(|| named(rest, &mut shown))
            .unwrap_or_else(|| {
                shown.push(first);
                first.len_utf8()
            });
        rest = &rest[taken..];
    }
    shown
}

/// A private key in PEM: everything between its first and its last line.
fn private_key(rest: &str, shown: &mut String) -> Option<usize> {
    const DASHES: &str = "-----";
    let label = rest.strip_prefix("-----BEGIN ")?.split_once(DASHES)?.0;
    if !label.ends_with("PRIVATE KEY") {
        return None;
    }
    let _ = write!(shown, "-----BEGIN {label}-----{REDACTED}");
    Some(rest.find("-----END ").unwrap_or(rest.len()))
}

/// What is between `://` and the host.
fn credentials(rest: &str, shown: &mut String) -> Option<usize> {
    const SEPARATOR: &str = "://";
    let after = rest.strip_prefix(SEPARATOR)?;
    if !shown.ends_with(|letter: char| letter.is_ascii_alphanumeric()) {
        return None;
    }
    let word = &after[..after.find([' ', '\t', '\n', '"', '\'', '<', '>', '`']).unwrap_or(after.len())];
    let authority = &word[..word.find(['/', '?', '#', ',']).unwrap_or(word.len())];
    let end = authority.rfind('@').or_else(|| {
        // A password may contain one of these characters, or have been cut off; a port has only digits.
        let host = authority.strip_prefix('[').and_then(|host| Some(host.split_once(']')?.1)).unwrap_or(authority);
        let (_, port) = host.split_once(':')?;
        let is_port = !port.is_empty() && port.chars().all(|digit| digit.is_ascii_digit());
        let end = word.rfind('@').or_else(|| (!port.is_empty()).then_some(word.len()));
        end.filter(|_| !is_port)
    })?;
    *shown += SEPARATOR;
    *shown += if &word[..end] == "git" { "git" } else { REDACTED };
    Some(SEPARATOR.len() + end)
}

/// A name, and the value after it if that is a secret.
fn named(rest: &str, shown: &mut String) -> Option<usize> {
    if shown.ends_with(is_part) {
        return None;
    }
    let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(length);
    if word.is_empty() {
        return None;
    }
    let opening = shown.chars().next_back().filter(|letter| is_quote(*letter));
    *shown += word;
    let Some((separator, value)) = value(word, after, opening) else { return Some(length) };
    *shown += separator;
    *shown += &hidden(value);
    Some(length + separator.len() + value.len())
}

const fn is_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

const fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\'')
}

/// What is between a name and its value, and the value. `opening` is the quote before the name.
fn value<'a>(word: &str, after: &'a str, opening: Option<char>) -> Option<(&'a str, &'a str)> {
    let name = word.trim_start_matches('-');
    if name.eq_ignore_ascii_case("bearer") && after.starts_with(' ') {
        let value = after.trim_start();
        let end = value.find([' ', '"', '\'', ',']).unwrap_or(value.len());
        let is_prose = ["token", "tokens", "auth", "authentication", "scheme", ""].contains(&&value[..end]);
        return (!is_prose).then(|| split(after, value, end));
    }
    if !is_secret(name) {
        return None;
    }
    let closed = ["\\\"", "\"", "'"].into_iter().find_map(|quote| after.strip_prefix(quote));
    let opening = opening.filter(|_| closed.is_none());
    let gap = closed.unwrap_or(after);
    let start = gap.trim_start_matches([' ', '\t']);
    let (value, end) = match start.chars().next()? {
        '=' if start.len() == gap.len() && closed.is_none() => {
            let value = &start[1..];
            (value, word_end(value, opening))
        }
        '=' => spaced(&start[1..], opening, word_end),
        ':' if !start.starts_with("://") => spaced(
            &start[1..],
            opening,
            match closed {
                None if is_header(name) => header_end,
                // Our own messages begin with the name of the setting that they are about.
                None if option(name).is_some() => return None,
                _ => json_end,
            },
        ),
        _ if is_flag(word) && start.len() < gap.len() && closed.is_none() && !start.starts_with("--") => {
            (start, word_end(start, opening))
        }
        _ => return None,
    };
    (end > 0 && !is_harmless(&value[..end])).then(|| split(after, value, end))
}

/// A value that may be separated by blanks from what precedes it.
fn spaced(text: &str, opening: Option<char>, end: fn(&str, Option<char>) -> usize) -> (&str, usize) {
    let value = text.trim_start_matches([' ', '\t']);
    (value, end(value, opening))
}

/// What precedes a value, and the value: the first `end` bytes of the rest of the text.
fn split<'a>(after: &'a str, value: &'a str, end: usize) -> (&'a str, &'a str) {
    let before = after.len() - value.len();
    (&after[..before], &value[..end])
}

/// A flag in one of the usual forms. `--no-password` takes no value.
fn is_flag(word: &str) -> bool {
    let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-').filter(|name| name.len() > 1));
    flag.is_some_and(|name| !name.starts_with("no-"))
}

/// The value of a header is the rest of the line.
fn is_header(name: &str) -> bool {
    name.contains('-') || ["authorization", "cookie"].iter().any(|header| name.eq_ignore_ascii_case(header))
}

/// The length of a word as a shell reads it; of everything up to the quote, if one was opened before the name.
fn word_end(text: &str, opening: Option<char>) -> usize {
    if let Some(quote) = opening {
        return quoted_end(text, quote);
    }
    if let Some(end) = escaped_quotes(text) {
        return end;
    }
    let (mut within, mut escaped) = (None, false);
    for (at, letter) in text.char_indices() {
        match within {
            _ if escaped => escaped = false,
            Some('\'') if letter == '\\' => {}
            _ if letter == '\\' => escaped = true,
            Some(quote) if letter == quote => within = None,
            None if is_quote(letter) => within = Some(letter),
            None if letter.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// The length of a value in JSON, YAML or the like.
fn json_end(text: &str, opening: Option<char>) -> usize {
    match text.chars().next() {
        _ if opening.is_some() => header_end(text, opening),
        Some(quote) if is_quote(quote) => {
            let end = quoted_end(&text[1..], quote) + 1;
            text.len().min(end + 1)
        }
        _ => escaped_quotes(text).unwrap_or_else(|| text.find(char::is_whitespace).unwrap_or(text.len())),
    }
}

/// The length of the rest of a line, or of everything up to the quote that was opened before the name.
fn header_end(text: &str, opening: Option<char>) -> usize {
    match opening {
        Some(quote) => quoted_end(text, quote),
        None => text.find('\n').unwrap_or(text.len()),
    }
}

/// The length of a value between `\"` and `\"`, including these.
fn escaped_quotes(text: &str) -> Option<usize> {
    const QUOTE: &str = "\\\"";
    let inner = text.strip_prefix(QUOTE)?;
    Some(inner.find(QUOTE).map_or(text.len(), |end| end + 2 * QUOTE.len()))
}

/// Where a quote is closed.
fn quoted_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if letter == quote && !escaped {
            return at;
        }
        escaped = letter == '\\' && !escaped;
    }
    text.len()
}

/// Values that are never secret.
pub(super) fn is_harmless(value: &str) -> bool {
    const WORDS: &[&str] = &["", "true", "false", "yes", "no", "on", "off", "none", "null", "0", "1", REDACTED];
    let value = value.trim_matches(['"', '\'', '\\', ',', ';', '}', ']', ')']);
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The placeholder, in the quotes of the value.
fn hidden(value: &str) -> String {
    let quote = ["\\\"", "\"", "'"]
        .into_iter()
        .find(|quote| value.len() >= 2 * quote.len() && value.starts_with(quote) && value.ends_with(quote));
    let quote = quote.unwrap_or_default();
    format!("{quote}{REDACTED}{quote}")
}
