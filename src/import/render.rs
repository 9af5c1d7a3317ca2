//! The file.

use std::fmt::Write;

use super::facts::{Facts, option};
use crate::settings::options::Section;

/// The text of `mcp-launch.toml`: the settings, and as comments what could not be carried over.
#[must_use]
pub fn toml(source: &str, facts: &Facts) -> String {
    let mut text = format!("# From {}, by mcp-launch import.\n", one_line(source));
    if !facts.server_args.is_empty() {
        let words = shlex::try_join(facts.server_args.iter().map(String::as_str)).unwrap_or_default();
        let _ = writeln!(text, "#\n# Not an option here; start it with: mcp-launch -- {}", one_line(&words));
    }
    if !facts.left.is_empty() {
        text.push_str("#\n# Not carried over:\n");
    }
    for left in &facts.left {
        let _ = writeln!(text, "# - {}: {}", one_line(&left.what), one_line(&left.why));
    }
    for section in Section::ALL {
        let mut own = facts.taken.iter().filter(|taken| option(taken.id).section == section).peekable();
        if own.peek().is_none() {
            continue;
        }
        text.push('\n');
        if let Some(table) = section.table() {
            let _ = writeln!(text, "[{table}]");
        }
        for taken in own {
            let _ = writeln!(text, "{} = {}", option(taken.id).key, literal(taken.id, &taken.value));
        }
    }
    text
}

/// As a number or a boolean where it is one, else as a string. JSON's strings are strings of TOML, too.
fn literal(id: &str, value: &str) -> String {
    let canonical = (option(id).canonical)(value).unwrap_or_default();
    match value.parse::<u32>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ if option(id).is_switch() && ["true", "false"].contains(&canonical.as_str()) => canonical,
        _ => serde_json::to_string(value).unwrap_or_default().replace('\u{7f}', "\\u007f"),
    }
}

/// A comment ends with its line.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
