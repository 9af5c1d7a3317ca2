//! The command line as a layer: split into flags, but with values that are not parsed yet.

use std::ffi::{OsStr, OsString};

use super::layers::{Given, Layer};
use super::options::Opt;

/// The settings on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagLayer {
    /// The configuration file (`--config`).
    pub config: Option<OsString>,
    /// Values of options; a later one takes precedence over an earlier one of the same option.
    pub values: Vec<FlagValue>,
    /// Addresses of `--bind` after the first one.
    pub further_binds: Vec<OsString>,
    /// The arguments after `--`, for the server.
    pub server_args: Vec<OsString>,
}

/// One value on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The option's [`Opt::id`].
    pub id: &'static str,
    /// The flag with its dashes, or `APP`.
    pub flag: String,
    /// As it was typed.
    pub value: OsString,
}

impl FlagLayer {
    /// Adds a value, which takes precedence over those of the same option that were added before.
    pub fn set(&mut self, id: &'static str, flag: &str, value: impl AsRef<OsStr>) {
        self.values.push(FlagValue { id, flag: flag.into(), value: value.as_ref().into() });
    }

    /// Whether a flag was given.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.values.iter().any(|value| value.flag == flag)
    }

    pub(super) fn layer(&self) -> Layer {
        let mut layer = Layer::command_line();
        for FlagValue { id, flag, value } in &self.values {
            if let Some(opt) = Opt::by_id(id) {
                layer.add(opt, Given::os(flag, value));
            }
        }
        layer
    }
}
