//! Resolves the shims of pyenv. A shim is a shell script that asks pyenv at each start, which takes longer than all of
//! our own work.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Query, Version};

/// The program behind a shim, by pyenv's rules: `PYENV_VERSION`, a `.python-version` here or above, the global one.
pub(super) fn behind_shim(program: &Path, query: &Query) -> Option<PathBuf> {
    let shims = program.parent().filter(|directory| directory.ends_with("shims"))?;
    let versions = shims.parent()?.join("versions");
    let selected = query
        .pyenv_version
        .as_ref()
        .map(|names| names.to_string_lossy().replace(':', "\n"))
        .or_else(|| {
            query.cwd.ancestors().find_map(|directory| fs::read_to_string(directory.join(".python-version")).ok())
        })
        .or_else(|| fs::read_to_string(shims.parent()?.join("version")).ok())?;
    selected.split_whitespace().find_map(|name| {
        let path = installation(&versions, name)?.join("bin").join(program.file_name()?);
        path.exists().then_some(path)
    })
}

/// The directory of a version; `3.11` is the latest 3.11 that is installed.
fn installation(versions: &Path, name: &str) -> Option<PathBuf> {
    let exact = versions.join(name);
    if exact.is_dir() {
        return Some(exact);
    }
    let prefix = format!("{name}.");
    let names = fs::read_dir(versions).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let latest = names.filter(|name| name.starts_with(&prefix)).max_by_key(|name| name.parse::<Version>().ok())?;
    Some(versions.join(latest))
}
