//! What is fuzzed here: files that a user writes, and the values in them.

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::options::OPTIONS;
use super::options::Section;
use super::{FlagLayer, Origin, Resolution, resolve};
use crate::host::Environment;

const CONFIG: &str = "mcp-launch.toml";
const ENV_FILE: &str = "app.env";

/// With this text as the file of this name; there is no other file.
fn resolve_with(flags: &FlagLayer, name: &str, text: &[u8]) -> Resolution {
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        if path == Path::new(name) { Ok(text.to_vec()) } else { Err(ErrorKind::NotFound.into()) }
    };
    resolve(flags, &Environment::new(), &read)
}

fn with_configuration(text: &[u8]) -> Resolution {
    resolve_with(&FlagLayer { config: Some(CONFIG.into()), ..FlagLayer::default() }, CONFIG, text)
}

/// What was read from a file, as the canonical text of each option. Those that are secret are not shown.
fn from_file(found: &Resolution) -> Vec<(&'static str, String)> {
    let entries = found.settings.entries();
    let own = entries.into_iter().filter(|entry| matches!(entry.origin, Origin::File { .. }) && !entry.opt.secret);
    own.map(|entry| (entry.opt.id, entry.value)).collect()
}

/// The configuration file. What it says is the same when it is written anew.
pub(crate) fn configuration_file(text: &[u8]) {
    let found = with_configuration(text);
    assert_eq!(found.file.as_deref(), Some(Path::new(CONFIG)));
    let lines = text.split(|byte| *byte == b'\n').count();
    // Those about conflicts between settings are not about a line.
    assert!(found.problems.len() + found.warnings.len() <= text.len().max(lines) + OPTIONS.len());
    let values = from_file(&found);
    let again = with_configuration(written(&values).as_bytes());
    assert_eq!(from_file(&again), values);
}

fn written(values: &[(&str, String)]) -> String {
    let mut text = String::new();
    for section in Section::ALL {
        if let Some(table) = section.table() {
            let _ = writeln!(text, "[{table}]");
        }
        for opt in OPTIONS.iter().filter(|opt| opt.section == section) {
            if let Some((_, value)) = values.iter().find(|(id, _)| *id == opt.id) {
                let quoted = serde_json::to_string(value).unwrap_or_default().replace('\u{7f}', "\\u007f");
                let _ = writeln!(text, "{} = {quoted}", opt.key);
            }
        }
    }
    text
}

/// An environment file. The variables are the same when it is written anew, and no value of a line that cannot be read
/// is shown.
pub(crate) fn env_file(text: &[u8]) {
    let mut flags = FlagLayer::default();
    flags.set("env_file", "--env-file", ENV_FILE);
    let found = resolve_with(&flags, ENV_FILE, text);
    assert!(found.env.len() <= text.split(|byte| *byte == b'\n').count());
    // A mark at the beginning belongs to the file and not to its first name.
    let mut again = b"# written anew\r\n".to_vec();
    for (name, value) in &found.env {
        again.extend([name.as_encoded_bytes(), b"=", value.as_encoded_bytes(), b"\r\n"].concat());
    }
    assert_eq!(resolve_with(&flags, ENV_FILE, &again).env, found.env);
}

/// One value of one option; the first byte chooses it. Its canonical form means the same.
pub(crate) fn option_value(input: &[u8]) {
    let Some((first, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let opt = &OPTIONS[usize::from(*first) % OPTIONS.len()];
    assert!(!(opt.expected)().is_empty());
    if let Ok(canonical) = (opt.canonical)(text) {
        assert_eq!((opt.canonical)(&canonical), Ok(canonical), "{} = {text:?}", opt.id);
    }
}
