//! The installed Python, determined without starting it: which interpreter, packages and programs.
//!
//! First the environment is chosen, then the servers' programs. A program found on `PATH` names its interpreter in
//! its first line, and that interpreter will run instead of the chosen one, so in that case the program decides.

mod environment;
mod packages;
mod pyenv;
mod script;
mod version_of;

use std::path::{Path, PathBuf};

pub use version_of::{DEADLINE, version_of};

use super::search::{SearchPath, program_at};
use super::{Interpreter, Program, Python, Query};
use packages::Packages;
use script::Script;

/// How an interpreter was chosen, which decides what may replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// By the setting `python`: nothing may replace it.
    Explicit,
    /// A virtual environment: another interpreter may replace it if only that one has the server.
    Environment,
    /// The first on `PATH`: the interpreter of the server on `PATH` replaces it.
    Path,
}

/// An interpreter and what is installed for it.
struct Installation {
    interpreter: Option<Interpreter>,
    packages: Packages,
    choice: Choice,
}

/// A server's program, and its interpreter if that differs from the chosen one.
struct ServerProgram {
    program: Program,
    owner: Option<Interpreter>,
}

impl ServerProgram {
    const MISSING: Self = Self { program: Program::Missing, owner: None };
}

/// Finds Python, and the `.pth` files that extend its import path.
pub(super) fn python(query: &Query, path: &SearchPath, notes: &mut Vec<String>) -> (Python, Vec<PathBuf>) {
    let mut searched = Vec::new();
    let (interpreter, choice) = choose(query, path, &mut searched, notes);
    if interpreter.is_none() && choice == Choice::Explicit {
        return (Python { searched, ..Python::default() }, Vec::new());
    }
    let mut installation =
        Installation { packages: packages::packages(query, interpreter.as_ref(), notes), interpreter, choice };

    let names = if query.prefer_granian { ["granian", "gunicorn"] } else { ["gunicorn", "granian"] };
    let mut servers = names.map(|name| installation.server(name, query, path));
    if let Some(first) = servers.iter_mut().find(|server| matches!(server.program, Program::Found(_)))
        && let Some(owner) = first.owner.take()
    {
        if let (Choice::Environment, Some(chosen)) = (choice, &installation.interpreter) {
            notes.push(format!("{} has no server; {}", chosen.found_by, owner.found_by));
        }
        installation = Installation {
            packages: packages::packages(query, Some(&owner), notes),
            interpreter: Some(owner),
            choice: Choice::Environment,
        };
        servers = names.map(|name| installation.server(name, query, path));
    }
    for (name, server) in names.iter().zip(&servers) {
        if let Some(owner) = &server.owner {
            notes.push(owner.found_by.clone());
            let theirs = packages::packages(query, Some(owner), notes);
            let version = theirs.versions.get(*name).map(|&version| ((*name).to_owned(), version));
            installation.packages.versions.extend(version);
        }
    }
    let [first, second] = servers.map(|server| server.program);
    let (granian, gunicorn) = if query.prefer_granian { (first, second) } else { (second, first) };
    let Packages { versions, path_files } = installation.packages;
    (Python { interpreter: installation.interpreter, searched, packages: versions, gunicorn, granian }, path_files)
}

/// Chooses the interpreter: the setting, the active virtual environment, one in a usual place, the first on `PATH`.
fn choose(
    query: &Query,
    path: &SearchPath,
    searched: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> (Option<Interpreter>, Choice) {
    if let Some(python) = &query.python {
        let (found, why) = match find(python, query, path) {
            Program::Found(program) => {
                (Some(environment::interpreter(program, "PYTHON".into(), query)), "found".into())
            }
            Program::NotExecutable { path, why } => (None, format!("{} {why}", path.display())),
            Program::Missing => (None, "not found".into()),
        };
        searched.push(format!("PYTHON={} ({why})", python.display()));
        return (found, Choice::Explicit);
    }
    let places = [
        ("VIRTUAL_ENV", query.virtual_env.as_ref().map(|venv| query.cwd.join(venv))),
        ("./.venv", Some(query.cwd.join(".venv"))),
        ("$APP_ROOT/.venv", query.app_root().map(|root| root.join(".venv"))),
        ("~/.venv/mcpgateway", query.in_home(".venv/mcpgateway")),
    ];
    for (name, place) in places {
        let Some(venv) = place else { continue };
        let found_by = if name == "VIRTUAL_ENV" { format!("{name}={}", venv.display()) } else { name.to_owned() };
        match python_of(&venv) {
            Ok(Some(program)) => {
                return (Some(environment::interpreter(program, found_by, query)), Choice::Environment);
            }
            Ok(None) if name == "VIRTUAL_ENV" => {
                notes.push(format!("{found_by} has no bin/python; looking elsewhere"));
            }
            Ok(None) => {}
            Err(why) => notes.push(format!("{found_by} cannot be used: {why}; looking elsewhere")),
        }
        searched.push(found_by);
    }
    searched.push(format!("PATH={}", path.display()));
    let found = ["python3", "python"].into_iter().find_map(|name| match find(Path::new(name), query, path) {
        Program::Found(program) => Some(environment::interpreter(program, "PATH".into(), query)),
        _ => None,
    });
    (found, Choice::Path)
}

/// A program by path, or by name on `PATH`; pyenv's shims are resolved.
fn find(name: &Path, query: &Query, path: &SearchPath) -> Program {
    match path.find(name) {
        Program::Found(program) => Program::Found(pyenv::behind_shim(&program, query).unwrap_or(program)),
        other => other,
    }
}

/// The interpreter of a virtual environment; none if it is not a virtual environment.
///
/// # Errors
/// What is wrong with one that exists: for example, copied into an image without its base interpreter.
fn python_of(venv: &Path) -> Result<Option<PathBuf>, String> {
    let mut wrong = None;
    for name in ["python", "python3"] {
        let path = venv.join("bin").join(name);
        match program_at(path.clone()) {
            Program::Found(program) => return Ok(Some(program)),
            Program::NotExecutable { path, why } => {
                wrong.get_or_insert(format!("{} {why}", path.display()));
            }
            Program::Missing => {
                if let Ok(target) = std::fs::read_link(&path) {
                    let (path, target) = (path.display(), target.display());
                    wrong.get_or_insert(format!("{path} points to {target}, which does not exist"));
                }
            }
        }
    }
    wrong.map_or(Ok(None), Err)
}

impl Installation {
    /// Finds a server's program: in the environment, or on `PATH` if the environment has no such package. If the
    /// interpreter is just the first on `PATH`, the program on `PATH` takes precedence, as in a shell.
    fn server(&self, name: &str, query: &Query, path: &SearchPath) -> ServerProgram {
        let own = || {
            let bin = self.interpreter.as_ref().and_then(|interpreter| interpreter.path.parent());
            bin.map_or(ServerProgram::MISSING, |bin| self.checked(program_at(bin.join(name)), query, path))
        };
        let is_missing = |server: &ServerProgram| server.program == Program::Missing;
        let on_path = || self.checked(find(Path::new(name), query, path), query, path);
        if self.choice == Choice::Path {
            return Some(on_path()).filter(|server| !is_missing(server)).unwrap_or_else(own);
        }
        let own = own();
        if !is_missing(&own) {
            // Whatever its first line says, it belongs to this environment.
            return ServerProgram { owner: None, ..own };
        }
        let found = on_path();
        let is_foreign = found.owner.is_some();
        if is_foreign && (self.choice == Choice::Explicit || self.packages.versions.contains_key(name)) {
            return ServerProgram::MISSING;
        }
        found
    }

    /// Follows the first line of a program to its interpreter.
    fn checked(&self, program: Program, query: &Query, search: &SearchPath) -> ServerProgram {
        let Program::Found(path) = program else { return ServerProgram { program, owner: None } };
        match script::script(&path, search) {
            Script::Broken(why) => ServerProgram { program: Program::NotExecutable { path, why }, owner: None },
            Script::Other => ServerProgram { program: Program::Found(path), owner: None },
            Script::Python(python) => {
                let python = pyenv::behind_shim(&python, query).unwrap_or(python);
                let found_by = format!("{} on PATH runs in {}", path.display(), python.display());
                let owner = Some(&python)
                    .filter(|&python| self.interpreter.as_ref().is_none_or(|chosen| chosen.path != *python))
                    .map(|python| environment::interpreter(python.clone(), found_by, query))
                    .filter(|owner| self.interpreter.as_ref().is_none_or(|chosen| !environment::same(chosen, owner)));
                ServerProgram { program: Program::Found(path), owner }
            }
        }
    }
}
