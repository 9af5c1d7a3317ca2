//! The layers and their merging: default < file < environment files < environment < command line.
//!
//! A layer is a figment provider with a list of [`Given`] values for each option (an option can have several
//! variables). Figment appends the lists of the layers, so the last element of a list applies, those before it are
//! shadowed, and the tag of each element identifies its layer. Defaults are not a layer: they are in the table, and are
//! used for options that no layer sets.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value as Tree};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

use super::options::Opt;
use super::quote::{quote, shorten};
use super::setting::{Setting, Shadowed};
use super::value::{REDACTED, Value};
use crate::problem::Origin;
use crate::problem::Problem;

/// A value as its layer gives it, not parsed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    /// Its name in the layer: a variable, a flag with its dashes, or a key with its table.
    pub name: String,
    /// The text.
    pub text: String,
    /// Why the text cannot be used.
    pub fault: Option<String>,
    /// The file and line, if the layer consists of several files.
    pub place: Option<(PathBuf, usize)>,
}

impl Given {
    /// A text that can be parsed.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), fault: None, place: None }
    }

    /// A text from the operating system, which may not be UTF-8.
    pub fn os(name: impl Into<String>, text: &OsStr) -> Self {
        let fault = text.to_str().is_none().then(|| "it is not UTF-8".to_owned());
        Self { name: name.into(), text: text.to_string_lossy().into_owned(), fault, place: None }
    }
}

/// The settings from one source.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    metadata: Metadata,
    given: BTreeMap<&'static str, Vec<Given>>,
}

const FILE: &str = "file";
const ENV_FILE: &str = "env file";
const ENVIRONMENT: &str = "environment";
const COMMAND_LINE: &str = "command line";

impl Layer {
    /// An empty layer for the configuration file.
    pub fn file(path: &Path) -> Self {
        Self::named(Metadata::from(FILE, path))
    }

    /// An empty layer for environment files, in which each value has its own location.
    pub fn env_file() -> Self {
        Self::named(Metadata::named(ENV_FILE))
    }

    /// An empty layer for the environment.
    pub fn environment() -> Self {
        Self::named(Metadata::named(ENVIRONMENT))
    }

    /// An empty layer for the command line.
    pub fn command_line() -> Self {
        Self::named(Metadata::named(COMMAND_LINE))
    }

    const fn named(metadata: Metadata) -> Self {
        Self { metadata, given: BTreeMap::new() }
    }

    /// Adds a value, which takes precedence over those of the same option that were added before.
    pub fn add(&mut self, opt: &'static Opt, given: Given) {
        self.given.entry(opt.id).or_default().push(given);
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (id, given) in &self.given {
            dict.insert((*id).to_owned(), Tree::serialize(given)?);
        }
        Ok(Profile::Default.collect(dict))
    }
}

/// All layers merged, and the problems found while options were read from them.
#[derive(Debug, Default)]
pub(super) struct Layers {
    given: BTreeMap<String, Vec<(Origin, Given)>>,
    /// Values that apply and cannot be parsed.
    pub problems: Vec<Problem>,
    /// Shadowed values that cannot be parsed.
    pub warnings: Vec<String>,
}

impl Layers {
    /// Merges layers, lowest precedence first.
    pub fn merge(layers: impl IntoIterator<Item = Layer>) -> Self {
        let figment = layers.into_iter().fold(Figment::new(), Figment::admerge);
        // Providing the data never fails because it consists only of texts and names.
        let dict = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
        let given = dict.into_iter().map(|(id, list)| (id, origins(&figment, list))).collect();
        Self { given, ..Self::default() }
    }

    /// Reads an option from the layer with the highest precedence that has it. A value that cannot be parsed becomes
    /// a problem, and the setting keeps its default.
    ///
    /// # Panics
    /// If the default in the table cannot be parsed, which a test rules out.
    pub fn setting<T: Value>(&mut self, opt: &Opt) -> Setting<T> {
        let mut given = self.given.remove(opt.id).unwrap_or_default();
        let default = || T::parse(opt.default).expect("the default of an option is valid");
        let Some((origin, in_force)) = given.pop() else {
            return Setting { value: default(), origin: Origin::Default, shadowed: Vec::new() };
        };
        for (lower, shadowed) in given.iter().rev() {
            if let Err(message) = read::<T>(opt, shadowed) {
                self.warnings.push(format!("{message} (from {lower}); {origin} takes precedence over it"));
            }
        }
        let shadowed = given.into_iter().rev().map(|(origin, given)| {
            let text = if opt.secret { REDACTED.to_owned() } else { shorten(&given.text) };
            Shadowed { text, origin }
        });
        let shadowed = shadowed.collect();
        match read(opt, &in_force) {
            Ok(value) => Setting { value, origin, shadowed },
            Err(message) if opt.lenient => {
                self.warnings.push(format!("{message} (from {origin}); {} is used", opt.default));
                Setting { value: default(), origin: Origin::Default, shadowed }
            }
            Err(message) => {
                let allowed = format!("allowed: {}", (opt.expected)());
                self.problems.push(Problem::setting(message, &origin).hint(allowed));
                Setting { value: default(), origin: Origin::Default, shadowed }
            }
        }
    }
}

/// The message includes the value but not its origin, which the caller knows.
fn read<T: Value>(opt: &Opt, given: &Given) -> Result<T, String> {
    let wrong = match &given.fault {
        None => match T::parse(&given.text) {
            Ok(value) => return Ok(value),
            Err(wrong) => wrong,
        },
        Some(fault) => Some(fault.clone()),
    };
    let shown = if opt.secret { REDACTED.to_owned() } else { quote(&given.text) };
    let wrong = wrong.map_or_else(String::new, |wrong| format!(": {wrong}"));
    Err(format!("{} = {shown} is not valid{wrong}", opt.key))
}

/// The values given for one option, each with the layer from figment's tag.
fn origins(figment: &Figment, list: Tree) -> Vec<(Origin, Given)> {
    let elements = list.into_array().unwrap_or_default();
    let origin = |element: Tree| {
        let given: Given = element.deserialize().ok()?;
        let metadata = figment.get_metadata(element.tag())?;
        let name = given.name.clone();
        let origin = match metadata.name.as_ref() {
            FILE => Origin::File { path: metadata.source.as_ref()?.file_path()?.to_owned(), key: name },
            ENV_FILE => {
                let (path, line) = given.place.clone()?;
                Origin::EnvFile { path, line, name }
            }
            ENVIRONMENT => Origin::Env(name),
            _ => Origin::Flag(name),
        };
        Some((origin, given))
    };
    elements.into_iter().filter_map(origin).collect()
}
