//! Resolves every setting from its layers: default < file < environment files < environment < command line.
//!
//! [`options`] is the table that everything is generated from, [`value`] has the types and their syntax, `layers`
//! merges the settings of `file`, `env_file`, `environment` and [`flags`], [`setting`] is a value with its origin and
//! what it shadows, and [`checks`] finds conflicts between settings that are each valid.

pub(crate) mod checks;
mod env_file;
mod env_names;
mod environment;
mod file;
pub(crate) mod flags;
pub(crate) mod formula;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod layers;
mod opt;
pub mod options;
mod overridden;
pub(crate) mod quote;
pub(crate) mod setting;
pub(crate) mod suggest;
pub mod value;

pub use env_file::EnvFiles;
pub use file::ReadFile;
pub use flags::FlagLayer;
pub use options::{OPTIONS, Opt, Settings};
pub use overridden::{Overridden, changes};
pub use setting::{Setting, Shadowed};

pub use crate::problem::Origin;

use std::collections::BTreeSet;
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
    /// The environment that the program was started with, and what environment files add to it.
    pub env: Environment,
    /// What is from environment files.
    pub env_files: EnvFiles,
    /// Values in files that the environment or the command line takes precedence over.
    pub overridden: Vec<Overridden>,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// The arguments after `--` on the command line.
    pub server_args: Vec<OsString>,
    /// Addresses of `--bind` after the first one.
    pub further_binds: Vec<String>,
    /// Values that could not be parsed. The settings concerned have their defaults, so that `explain` and `check` can
    /// continue.
    pub problems: Vec<Problem>,
    /// Warnings, such as an unknown name that resembles a known one.
    pub warnings: Vec<String>,
    /// Variables that the servers read themselves (`GRANIAN_LOG_CONFIG`, `GUNICORN_CMD_ARGS`).
    pub native: Vec<NativeVariable>,
    /// Variables that must not reach the server.
    pub withheld: Vec<Withheld>,
    /// Variables with one of our prefixes, or of a server's, that nothing reads.
    pub unread: Vec<Unread>,
}

/// Resolves every option. `read` reads a file as [`std::fs::read`] does, relative to the current directory.
///
/// All problems are in [`Resolution::problems`]; the rest is usable regardless.
#[must_use]
pub fn resolve(flags: &FlagLayer, env: &Environment, read: ReadFile) -> Resolution {
    let file = file::load(flags, env, read);
    let (in_environment, on_command_line) = (environment::layer(env), flags.layer());
    let named = file.layer.iter().chain([&in_environment, &on_command_line]).cloned();
    let mut env_file = env_file::load(&Layers::merge(named).setting(env_file::option()), read);
    let merged = env_file.merge_into(env);
    let environment = environment::read(&merged, &env_file.files);
    let layers = file.layer.into_iter().chain([env_file.layer(), in_environment, on_command_line]);
    let mut layers = Layers::merge(layers);
    let settings = Settings::resolve(&mut layers);
    let overridden = overridden::find(&settings, env_file.shadowed(env));
    let mut problems = [file.problems, env_file.problems, environment.problems, layers.problems].concat();
    // A flag that both servers share is parsed twice but reported once.
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.to_string()));
    let mut warnings = [file.warnings, env_file.warnings, environment.warnings, layers.warnings].concat();
    checks::check(&settings, flags, &mut problems, &mut warnings);
    Resolution {
        overridden,
        settings,
        env: merged,
        env_files: env_file.files,
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

/// A variable that nothing reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its name.
    pub name: String,
    /// The warning about it, in [`Resolution::warnings`].
    pub warning: String,
}

impl Resolution {
    /// Where a variable of [`Self::env`] comes from.
    #[must_use]
    pub fn origin_of(&self, name: &str) -> Origin {
        self.env_files.origin_of(name)
    }

    /// The environment without what environment files add to it.
    #[must_use]
    pub fn own_env(&self) -> Environment {
        let is_own = |name: &OsString| name.to_str().is_none_or(|name| !self.env_files.origins.contains_key(name));
        self.env.iter().filter(|(name, _)| is_own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Removes the warnings about variables that something reads after all.
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
    /// The reason.
    pub why: &'static str,
}
