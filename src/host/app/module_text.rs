//! The names in a module's text, including those that it imports from modules of the same tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::host::python_source::{self, Borrowed, Interface};

/// How many imports are followed in a row.
const DEPTH: u32 = 5;

/// The names that a module defines at its top level, including those of `from x import *` if the other module is in the
/// same tree.
pub(super) fn names(file: &Path) -> Vec<String> {
    names_to(file, DEPTH)
}

fn names_to(file: &Path, depth: u32) -> Vec<String> {
    let source = python_source::read(file);
    let mut names = python_source::definitions(&source);
    if depth > 0 {
        let borrowed = python_source::interfaces(&source).borrowed;
        let stars = borrowed.iter().filter(|borrowed| borrowed.name.is_none());
        for other in stars.filter_map(|star| beside(file, &star.module)) {
            names.extend(names_to(&other, depth - 1).into_iter().filter(|name| !name.starts_with('_')));
        }
    }
    names
}

/// The interface of the object with this name in a module, if the text shows it.
fn interface(file: &Path, name: &str) -> Option<Interface> {
    interface_to(file, name, DEPTH)
}

fn interface_to(file: &Path, name: &str, depth: u32) -> Option<Interface> {
    let found = python_source::interfaces(&python_source::read(file));
    if let Some(interface) = found.interfaces.get(name) {
        return Some(*interface);
    }
    let depth = depth.checked_sub(1)?;
    let brings = |borrowed: &&Borrowed| borrowed.name.is_none() || borrowed.here == name;
    let mut sources = found.borrowed.iter().rev().filter(brings);
    sources.find_map(|borrowed| {
        let there = borrowed.name.as_deref().unwrap_or(name);
        interface_to(&beside(file, &borrowed.module)?, there, depth)
    })
}

/// The file of a module that is imported from this one: a relative one, or one in the same tree.
fn beside(file: &Path, module: &str) -> Option<PathBuf> {
    let package = file.parent()?;
    let name = module.trim_start_matches('.');
    let dots = module.len() - name.len();
    let base = match dots {
        0 => package.ancestors().find(|directory| !directory.join("__init__.py").is_file())?,
        dots => package.ancestors().nth(dots - 1)?,
    };
    let path = name.split('.').filter(|part| !part.is_empty()).fold(base.to_owned(), |path, part| path.join(part));
    [path.with_extension("py"), path.join("__init__.py")].into_iter().find(|other| other != file && other.is_file())
}

/// The interfaces of a module's objects, as far as its text shows them, including those that an APP may mean.
pub(in super::super) fn interfaces(file: Option<&Path>, app: Option<&str>) -> BTreeMap<String, Interface> {
    let Some(file) = file.filter(|file| file.extension().is_some_and(|extension| extension == "py")) else {
        return BTreeMap::new();
    };
    let named = app.and_then(|app| app.split_once(':')).map(|(_, name)| name);
    let mut found = python_source::interfaces(&python_source::read(file)).interfaces;
    for name in ["app", "application"].into_iter().chain(named) {
        if let Some(interface) = interface(file, name) {
            found.insert(name.to_owned(), interface);
        }
    }
    found
}
