//! Resolves every setting from its layers: default < file < environment < command line.
//!
//! [`options`] is the table that everything is generated from, [`value`] has the types and their syntax, `layers`
//! merges what `file`, `environment` and [`flags`] give, [`setting`] is a value with its origin and what it shadows,
//! and [`checks`] finds what is wrong between settings that are each valid.

pub(crate) mod checks;
mod env_names;
mod environment;
mod file;
pub(crate) mod flags;
pub(crate) mod formula;
mod layers;
mod opt;
pub mod options;
pub(crate) mod quote;
pub(crate) mod setting;
pub(crate) mod suggest;
pub mod value;

pub use file::ReadFile;
pub use flags::FlagLayer;
pub use options::{OPTIONS, Opt, Settings};
pub use setting::{Setting, Shadowed};

pub use crate::problem::Origin;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::host::Environment;
use crate::problem::Problem;
use layers::Layers;

/// The result of merging the layers.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// Every option with its origin.
    pub settings: Settings,
    /// The environment that the program was started with.
    pub env: Environment,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// The arguments after `--` on the command line.
    pub server_args: Vec<OsString>,
    /// Addresses of `--bind` after the first one.
    pub further_binds: Vec<String>,
    /// Values that could not be parsed. The settings concerned have their defaults, so that `explain` and `check` can
    /// go on.
    pub problems: Vec<Problem>,
    /// Warnings, such as an unknown name that resembles a known one.
    pub warnings: Vec<String>,
    /// Variables that the servers read themselves (`GRANIAN_LOG_CONFIG`, `GUNICORN_CMD_ARGS`).
    pub native: Vec<NativeVariable>,
    /// Variables that must not reach the server.
    pub withheld: Vec<Withheld>,
    /// Variables with one of our prefixes, or of a server's, that neither reads.
    pub unread: Vec<Unread>,
}

/// Resolves every option. `read` reads a file as [`std::fs::read`] does, relative to the current directory.
///
/// All problems are in [`Resolution::problems`]; the rest is usable regardless.
#[must_use]
pub fn resolve(flags: &FlagLayer, env: &Environment, read: ReadFile) -> Resolution {
    let file = file::load(flags, env, read);
    let environment = environment::read(env);
    let mut layers = Layers::merge(file.layer.into_iter().chain([environment.layer, flags.layer()]));
    let settings = Settings::resolve(&mut layers);
    let mut problems = [file.problems, environment.problems, layers.problems].concat();
    // A flag that both servers share is parsed twice but reported once.
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(problem);
        seen.push(problem.clone());
        new
    });
    let mut warnings = [file.warnings, environment.warnings, layers.warnings].concat();
    checks::check(&settings, flags, &mut problems, &mut warnings);
    Resolution {
        settings,
        env: env.clone(),
        file: file.path,
        server_args: flags.server_args.clone(),
        further_binds: flags.further_binds.iter().map(|text| text.to_string_lossy().into_owned()).collect(),
        problems,
        warnings,
        native: environment.native,
        withheld: environment.withheld,
        unread: environment.unread,
    }
}

/// A variable that neither we nor a server read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its name.
    pub name: String,
    /// What was said of it, in [`Resolution::warnings`].
    pub warning: String,
}

impl Resolution {
    /// Takes back the warnings about variables that something reads after all.
    pub fn forgive_unread(&mut self, is_read: impl Fn(&str) -> bool) {
        for unread in self.unread.iter().filter(|unread| is_read(&unread.name)) {
            self.warnings.retain(|warning| *warning != unread.warning);
        }
    }
}

/// A variable that a server reads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeVariable {
    /// Its name.
    pub name: String,
    /// Its value; redacted if it is a password.
    pub value: String,
    /// The server that reads it.
    pub server: value::Server,
}

/// A variable that is not passed on because the server would misinterpret it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Its name.
    pub name: String,
    /// What it is.
    pub why: &'static str,
}
