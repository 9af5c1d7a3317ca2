//! Redacts secrets because explanations end up in logs, tickets and chats.

mod names;
mod scan;
#[cfg(test)]
mod tests;

use crate::settings::value::REDACTED;
use names::is_secret;
use scan::{is_harmless, without_secrets};

/// The value of a variable as it may be shown.
pub(crate) fn variable(name: &str, value: &str) -> String {
    if is_secret(name) && !is_harmless(value) && !is_open_location(value) { REDACTED.to_owned() } else { text(value) }
}

/// A URL without any secret.
fn is_open_location(value: &str) -> bool {
    let url = value
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '+'));
    // The path of a webhook is its secret.
    url && !value.starts_with("http") && without_secrets(value) == value
}

/// Any text as it may be shown: on one line and without its secrets.
pub(crate) fn text(value: &str) -> String {
    let text = without_secrets(value);
    if text.contains(char::is_control) { format!("{text:?}") } else { text }
}

/// A message as it may be shown, which may have several lines. What it quotes from a file must not control the terminal.
pub(crate) fn message(text: &str) -> String {
    let mut shown = String::new();
    for letter in without_secrets(text).chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() => shown.extend(letter.escape_debug()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Arguments as they may be shown: as with [`text`], and without the argument after a flag that takes a secret.
pub(crate) fn arguments(argv: &[String]) -> Vec<String> {
    let mut follows = false;
    let shown = argv.iter().map(|argument| {
        let is_value = std::mem::replace(&mut follows, takes_secret(argument)) && !argument.starts_with("--");
        if is_value && !is_harmless(argument) { REDACTED.to_owned() } else { argument_text(argument) }
    });
    shown.collect()
}

/// `--NAME=VALUE` and `NAME=VALUE` are one argument, including blanks in the value.
fn argument_text(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, value)) if is_name(name) && is_secret(name.trim_start_matches('-')) && !is_harmless(value) => {
            format!("{name}={REDACTED}")
        }
        _ => text(argument),
    }
}

/// Whether the argument after this one is a secret.
fn takes_secret(argument: &str) -> bool {
    let name = argument.trim_start_matches('-');
    name.len() > 1 && name.len() < argument.len() && is_name(name) && !name.starts_with("no-") && is_secret(name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
}
