//! `import`: another manager's configuration as `mcp-launch.toml`.

use std::io::Read;
use std::path::Path;

use crate::host::Environment;
use crate::import::{self, Facts};
use crate::problem::{Exit, Problem};
use crate::report::redact;
use crate::settings::{self, FlagLayer};

/// What the file is called that is made.
const FILE: &str = "mcp-launch.toml";

pub(super) fn import(file: &Path, wanted: Option<&str>) -> Result<u8, Vec<Problem>> {
    let name = file.display().to_string();
    let bytes =
        read(file).map_err(|error| vec![Problem::new(Exit::Settings, format!("{name} cannot be read: {error}"))])?;
    let facts = import::import(&name, &bytes, wanted).map_err(|problem| vec![problem])?;
    let text = import::toml(&name, &facts);
    check(&text)?;
    crate::log::say(&warnings(&facts));
    Ok(super::print(text))
}

/// No more than it takes to see that the file is too long.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(import::LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is printed must be read without a problem.
fn check(text: &str) -> Result<(), Vec<Problem>> {
    let flags = FlagLayer { config: Some(FILE.into()), ..FlagLayer::default() };
    // Files that it names may be on another machine.
    let read = |path: &Path| Ok(if path == Path::new(FILE) { text.as_bytes().to_vec() } else { Vec::new() });
    let problems = settings::resolve(&flags, &Environment::new(), &read).problems;
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn warnings(facts: &Facts) -> String {
    let each = |left: &import::Left| format!("mcp-launch: not carried over: {}: {}\n", left.what, left.why);
    redact::message(&facts.left.iter().map(each).collect::<String>())
}
