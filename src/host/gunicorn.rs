//! Gunicorn's configuration file: what its text says, and the app that it names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::app::{self, ImportPath};
use super::python_source::{self, Assigned, Assignments, Literal};
use super::search::SearchPath;
use super::{AppFacts, GunicornFile, Python, Query};

/// Reads the file that Gunicorn will be given.
pub(super) fn settings(query: &Query, python: &Python, path_files: &[PathBuf]) -> Option<Assignments> {
    let location = match &query.gunicorn_file {
        GunicornFile::Found => query.gunicorn_config()?.into_os_string(),
        GunicornFile::Named(location) => location.clone(),
        GunicornFile::None => return None,
    };
    let bytes = location.as_bytes();
    let file = if let Some(module) = bytes.strip_prefix(b"python:") {
        let parts: Vec<&str> = std::str::from_utf8(module).ok()?.split('.').collect();
        ImportPath::new(Vec::new(), query, python, path_files).find(&parts)?
    } else {
        let path = bytes.strip_prefix(b"file:").unwrap_or(bytes);
        query.working_directory().join(OsStr::from_bytes(path))
    };
    let is_text = file.is_file() && file.extension().is_none_or(|extension| extension != "pyc" && extension != "so");
    is_text.then(|| Assignments::read(&python_source::read(&file)))
}

/// Looks for the app where Gunicorn would with this configuration.
pub(super) fn app(
    query: &Query,
    said: Option<&Assignments>,
    python: &Python,
    path_files: &[PathBuf],
    path: &SearchPath,
) -> AppFacts {
    let from_file = said.filter(|_| !query.app_is_named).and_then(|said| text(said, "wsgi_app"));
    let Some(name) = from_file.or_else(|| query.app.clone()) else { return AppFacts::default() };
    app::app(&name, &ImportPath::new(directories(query, said), query, python, path_files), path)
}

/// The directories that Gunicorn puts first on the import path: `pythonpath`, the last one first, then `chdir`.
fn directories(query: &Query, said: Option<&Assignments>) -> Vec<PathBuf> {
    let set = |set: Option<String>, name| set.or_else(|| said.and_then(|said| text(said, name)));
    let start = query.working_directory();
    let chdir = query.gunicorn_directory.as_ref().map(|path| path.to_string_lossy().into_owned());
    let chdir = set(chdir, "chdir").map(|path| start.join(path));
    let base = chdir.clone().unwrap_or(start);
    let added = set(query.gunicorn_python_path.clone(), "pythonpath").unwrap_or_default();
    let added = added.split(',').filter(|path| !path.is_empty()).rev().map(|path| base.join(path));
    added.chain(chdir).collect()
}

fn text(said: &Assignments, name: &str) -> Option<String> {
    match said.get(name) {
        Some(Assigned::Literal { value: Literal::Text(text), .. }) if !text.is_empty() => Some(text),
        _ => None,
    }
}
