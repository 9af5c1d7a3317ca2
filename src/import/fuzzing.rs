//! What is fuzzed here: other managers' files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::yaml::{self, Yaml};
use super::{import, toml};
use crate::settings::{FlagLayer, Origin, resolve};

/// Names by which a file is recognized.
const NAMES: [&str; 3] = ["app.conf", "Procfile", "docker-compose.yaml"];
const MADE: &str = "mcp-launch.toml";

/// A file of another manager. What is made of it is no larger than what it says, is read without a problem, and has
/// every value that was found.
pub(crate) fn managers_file(bytes: &[u8]) {
    for name in NAMES {
        let Ok(facts) = import(name, bytes, None) else { continue };
        let text = toml(name, &facts);
        // For each byte at most a line about it; YAML may repeat itself.
        let repeated = if bytes.windows(9).any(|part| part == b"services:") { 16 * yaml::MOST_TEXT } else { 0 };
        assert!(text.len() <= 4096 + 512 * bytes.len() + repeated, "{} bytes became {}", bytes.len(), text.len());
        let flags = FlagLayer { config: Some(MADE.into()), ..FlagLayer::default() };
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            if path == Path::new(MADE) { Ok(text.clone().into_bytes()) } else { Err(ErrorKind::NotFound.into()) }
        };
        let found = resolve(&flags, &BTreeMap::new(), &read);
        let other = |problem: &&crate::problem::Problem| !problem.message.starts_with("env file ");
        assert_eq!(found.problems.iter().find(other), None, "{text}");
        for taken in &facts.taken {
            let entries = found.settings.entries();
            let entry = entries.iter().find(|entry| entry.opt.id == taken.id).expect("an option of the table");
            assert!(matches!(entry.origin, Origin::File { .. }), "{}: {text}", taken.id);
            let wanted = (entry.opt.canonical)(&taken.value);
            assert!(entry.opt.secret || wanted.as_ref() == Ok(&entry.value), "{}: {wanted:?}", taken.id);
        }
    }
}

/// A YAML file. The tree is the same when it is written anew, and an alias does not make it huge.
pub(crate) fn yaml_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(tree) = yaml::read(text) else { return };
    assert!(length(&tree) <= yaml::MOST_TEXT, "{} bytes", length(&tree));
    let mut written = String::new();
    write(&tree, &mut written);
    // Only so much is read of what stands in brackets.
    if written.len() < 1 << 15 && length(&tree) > 0 {
        assert_eq!(yaml::read(&format!("tree: {written}")), Ok(Yaml::Map(vec![("tree".into(), tree)])), "{written}");
    }
}

fn length(tree: &Yaml) -> usize {
    match tree {
        Yaml::Scalar(text) => text.len(),
        Yaml::List(items) => items.iter().map(length).sum(),
        Yaml::Map(entries) => entries.iter().map(|(key, value)| key.len() + length(value)).sum(),
    }
}

/// In brackets, with every text in quotation marks.
fn write(tree: &Yaml, text: &mut String) {
    match tree {
        Yaml::Scalar(scalar) => quote(scalar, text),
        Yaml::List(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Yaml::Map(entries) => {
            text.push('{');
            for (key, value) in entries {
                quote(key, text);
                text.push(':');
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
    }
}

fn quote(scalar: &str, text: &mut String) {
    text.push('"');
    for letter in scalar.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter.is_control() || letter.is_whitespace() && letter != ' ' => {
                _ = write!(text, "\\U{:08x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text.push('"');
}
