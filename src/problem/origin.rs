//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// The place a value was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Origin {
    /// Built in.
    #[default]
    Default,
    /// A key of the configuration file, for example `gunicorn.workers`.
    File {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
    },
    /// A line of an environment file.
    #[serde(rename = "env-file")]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The variable.
        name: String,
    },
    /// An environment variable, by name.
    #[serde(untagged)]
    Env(#[serde(serialize_with = "as_environment")] String),
    /// A command line flag with its dashes, or `APP`.
    #[serde(untagged)]
    Flag(#[serde(serialize_with = "as_flag")] String),
}

fn as_environment<S: serde::Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map([("source", "environment"), ("name", name)])
}

fn as_flag<S: serde::Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map([("source", "flag"), ("name", name)])
}

impl Origin {
    /// Whether the value was set explicitly.
    #[must_use]
    pub const fn is_explicit(&self) -> bool {
        !matches!(self, Self::Default)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, key } => write!(f, "file {} key {key}", path.display()),
            Self::EnvFile { path, line, name } => write!(f, "env file {} line {line}, {name}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "command line {flag}"),
        }
    }
}
