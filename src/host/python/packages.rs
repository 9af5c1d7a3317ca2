//! Which packages are installed, according to the names of their metadata directories.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::super::{Interpreter, Query, Version};

/// The packages that a plan may depend on, under their normalized names.
const PACKAGES: [&str; 12] = [
    "eventlet",
    "gevent",
    "granian",
    "gunicorn",
    "h2",
    "mcp-contextforge-gateway",
    "rloop",
    "setproctitle",
    "uvicorn",
    "uvicorn-worker",
    "uvloop",
    "watchfiles",
];

/// What the package directories contain.
#[derive(Debug, Default)]
pub(super) struct Packages {
    pub(super) versions: BTreeMap<String, Version>,
    /// Files whose lines extend the import path, as editable installs do.
    pub(super) path_files: Vec<PathBuf>,
}

/// Lists `PYTHONPATH` and the interpreter's directories. As with an import, the first directory that has a package
/// decides; within a directory the newest version counts because older metadata may be left over.
pub(super) fn packages(query: &Query, interpreter: Option<&Interpreter>, notes: &mut Vec<String>) -> Packages {
    let own = interpreter.map(|interpreter| interpreter.site_packages.clone()).unwrap_or_default();
    let is_site = |directory: &PathBuf| own.contains(directory);
    let mut found = Packages::default();
    for directory in query.python_path().into_iter().chain(own.iter().cloned()) {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                    notes.push(format!("cannot list {}: {error}; its packages are unknown", directory.display()));
                }
                continue;
            }
        };
        let mut here = BTreeMap::new();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some((package, version)) = package(name) {
                let newest = here.entry(package).or_insert(version);
                *newest = version.max(*newest);
            } else if name.strip_suffix(".pth").is_some() && is_site(&directory) {
                found.path_files.push(directory.join(name));
            }
        }
        for (package, version) in here {
            found.versions.entry(package.to_owned()).or_insert(version);
        }
    }
    found.path_files.sort();
    found
}

/// Reads `NAME-VERSION.dist-info`, `NAME-VERSION.egg-info` or `NAME-VERSION-py3.11.egg-info` of a package that
/// matters. Names are compared as PEP 503 normalizes them.
fn package(entry: &str) -> Option<(&'static str, Version)> {
    let stem = entry.strip_suffix(".dist-info").or_else(|| {
        let stem = entry.strip_suffix(".egg-info")?;
        Some(stem.rsplit_once("-py").map_or(stem, |(stem, _)| stem))
    })?;
    let (name, version) = stem.rsplit_once('-')?;
    let mut normalized = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '-' | '_' | '.' if normalized.ends_with('-') => {}
            '-' | '_' | '.' => normalized.push('-'),
            _ => normalized.push(letter.to_ascii_lowercase()),
        }
    }
    let known = PACKAGES.into_iter().find(|package| *package == normalized)?;
    Some((known, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_directories_are_recognised() {
        for (entry, expected) in [
            ("gunicorn-27.0.1.dist-info", Some(("gunicorn", Version(27, 0, 1)))),
            ("uvicorn_worker-0.4.0.dist-info", Some(("uvicorn-worker", Version(0, 4, 0)))),
            ("Uvicorn.Worker-0.4.0.dist-info", Some(("uvicorn-worker", Version(0, 4, 0)))),
            ("mcp_contextforge_gateway-1.0.7.post1.dist-info", Some(("mcp-contextforge-gateway", Version(1, 0, 7)))),
            ("gunicorn-20.1.0.egg-info", Some(("gunicorn", Version(20, 1, 0)))),
            ("uvicorn-0.17.6-py3.10.egg-info", Some(("uvicorn", Version(0, 17, 6)))),
            ("~unicorn-27.0.1.dist-info", None),
            ("gunicorn.egg-info", None),
            ("gunicorn-next.dist-info", None),
            ("gunicorn", None),
            ("gunicorn_extra-1.0.dist-info", None),
        ] {
            assert_eq!(package(entry), expected, "{entry}");
        }
    }
}
