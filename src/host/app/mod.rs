//! The application's module: its file, and the names that it defines. Nothing is imported.

mod module_text;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub(super) use module_text::interfaces;

use super::python_source;
use super::search::SearchPath;
use super::{AppFacts, Program, Python, Query};

/// The names that are looked for where an APP is without `:attribute`.
const ATTRIBUTES: [&str; 2] = ["app", "application"];

/// Looks for APP on the import path, as far as that is known: the working directory, `PYTHONPATH`, the interpreter's
/// directories and the directories that `.pth` files add. Import hooks, which some editable installs use, are not
/// followed: a file that is not found may still be a module.
pub(super) fn app(app: &str, import: &ImportPath, path: &SearchPath) -> AppFacts {
    let (module, named) = app.split_once(':').map_or((app, false), |(module, _)| (module, true));
    let parts: Vec<_> = module.split('.').collect();
    let is_module = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
    let file = match module {
        // Granian takes files, too.
        path if path.contains('/') || parts.last() == Some(&"py") => import.find_file(path),
        _ if is_module => import.find(&parts),
        _ => None,
    };
    if named {
        return AppFacts { file, ..AppFacts::default() };
    }
    let program = match (&file, path.find(app)) {
        (None, Program::Found(program)) => Some(program),
        _ => None,
    };
    let defined = file
        .as_deref()
        .filter(|file| file.extension().is_some_and(|extension| extension == "py"))
        .map(module_text::names);
    let attributes = defined.map(|names| {
        let defined = |attribute: &&str| names.iter().any(|name| name == attribute);
        ATTRIBUTES.into_iter().filter(defined).map(str::to_owned).collect()
    });
    AppFacts { file, attributes: attributes.unwrap_or_default(), program }
}

/// Where Python looks for modules, as far as that is known.
#[derive(Debug)]
pub(super) struct ImportPath {
    entries: Vec<PathBuf>,
    version: Option<(u32, u32)>,
}

impl ImportPath {
    /// `first` comes before everything else.
    pub fn new(first: Vec<PathBuf>, query: &Query, python: &Python, path_files: &[PathBuf]) -> Self {
        let interpreter = python.interpreter.as_ref();
        let sites = interpreter.map(|interpreter| interpreter.site_packages.clone()).unwrap_or_default();
        let known = first.into_iter().chain([query.working_directory()]).chain(query.python_path()).chain(sites);
        let added = path_files.iter().flat_map(|file| path_lines(file));
        let version = interpreter.and_then(|interpreter| interpreter.version);
        Self { entries: known.chain(added).collect(), version }
    }

    /// The file of a module that is given as a path.
    fn find_file(&self, path: &str) -> Option<PathBuf> {
        self.entries.iter().find_map(|entry| as_file(&entry.join(path)))
    }

    /// The module's file in the first entry that has the module, or the package that should.
    pub fn find(&self, parts: &[&str]) -> Option<PathBuf> {
        match self.entries.iter().try_for_each(|entry| module_in(entry, parts, self.version)) {
            ControlFlow::Break(file) => file,
            ControlFlow::Continue(()) => None,
        }
    }
}

/// Looks for the module below an entry of the import path. The search also ends, without a result, at an entry that
/// has the regular package but not the module, because Python does not look further either.
fn module_in(entry: &Path, parts: &[&str], version: Option<(u32, u32)>) -> ControlFlow<Option<PathBuf>> {
    let Some((name, packages)) = parts.split_last() else { return ControlFlow::Continue(()) };
    let directory = packages.iter().fold(entry.to_owned(), |path, package| path.join(package));
    let native = |abi: &str| directory.join(format!("{name}.{abi}so"));
    let tagged = version.map(|(major, minor)| {
        let arch = std::env::consts::ARCH;
        ["gnu", "musl"].map(|libc| native(&format!("cpython-{major}{minor}-{arch}-linux-{libc}.")))
    });
    let file = [directory.join(name).join("__init__.py"), directory.join(format!("{name}.py"))]
        .into_iter()
        .chain(tagged.into_iter().flatten())
        .chain(["abi3.", ""].map(native))
        .find(|file| file.is_file());
    let is_owner = || packages.first().is_some_and(|first| entry.join(first).join("__init__.py").is_file());
    if file.is_some() || is_owner() { ControlFlow::Break(file) } else { ControlFlow::Continue(()) }
}

/// The file of a module that is given as a path, with or without its ending, or as a package's directory.
fn as_file(path: &Path) -> Option<PathBuf> {
    let mut with_ending = path.as_os_str().to_owned();
    with_ending.push(".py");
    let is_source = path.extension().is_some_and(|extension| extension == "py");
    let places = [is_source.then(|| path.to_owned()), Some(with_ending.into()), Some(path.join("__init__.py"))];
    places.into_iter().flatten().find(|file| file.is_file())
}

/// The directories that a `.pth` file adds; its other lines are comments and code.
fn path_lines(file: &Path) -> Vec<PathBuf> {
    let Some(site) = file.parent() else { return Vec::new() };
    let is_directory = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.starts_with("import");
    python_source::read(file).lines().map(str::trim_end).filter(is_directory).map(|line| site.join(line)).collect()
}
