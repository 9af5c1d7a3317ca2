//! The types of settings. Each has one text syntax for all layers, so the same value means the same whether it comes
//! from the file, the environment or a flag.

mod address;
mod app;
mod choice;
mod file_mode;
mod quantity;
mod request_timeout;

use std::fmt;
use std::path::PathBuf;

pub use address::{BindHost, ListenAddress, PathPrefixes, UrlPath, UrlPaths};
pub use app::App;
pub use choice::{
    ClientVerify, GranianLogLevel, GunicornLogLevel, Http, LogFormat, LogLevel, Loop, Mode, Restart, RuntimeMode,
    Server, ServerChoice, Spin, TaskImpl, TlsVersion,
};
pub use file_mode::FileMode;
pub use quantity::{
    Backpressure, Cpus, Int, Lifetime, MOST_WORKERS, MebiSize, Seconds, Size, Span, Workers, show_size, show_span,
};
pub use request_timeout::RequestTimeout;

/// A type that a setting can have.
pub trait Value: Sized + Clone + fmt::Debug + PartialEq {
    /// The placeholder in `--help`.
    const METAVAR: &'static str;

    /// What is allowed, to complete "… is not VALUE; use".
    fn expected() -> String;

    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with the text, if it is more specific than "not [`Self::expected`]".
    fn parse(text: &str) -> Result<Self, Option<String>>;

    /// Writes the value so that [`Self::parse`] reads the same value again.
    fn show(&self) -> String;

    /// Whether the value means "none".
    fn is_none(&self) -> bool {
        false
    }

    /// All words that the value can be, if only words are allowed; used for shell completions.
    #[must_use]
    fn choices() -> &'static [&'static str] {
        &[]
    }
}

/// `none` and an empty text both mean no value.
impl<T: Value> Value for Option<T> {
    const METAVAR: &'static str = T::METAVAR;

    fn expected() -> String {
        format!("{}, or none", T::expected())
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() || text.eq_ignore_ascii_case("none") { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }

    fn is_none(&self) -> bool {
        self.is_none()
    }

    fn choices() -> &'static [&'static str] {
        T::choices()
    }
}

impl Value for bool {
    const METAVAR: &'static str = "BOOL";

    fn expected() -> String {
        "true or false (also 1/0, yes/no, on/off)".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(None),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn choices() -> &'static [&'static str] {
        &["true", "false"]
    }
}

/// A switch, or `auto`, for which the launcher decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoBool(pub Option<bool>);

impl Value for AutoBool {
    const METAVAR: &'static str = bool::METAVAR;

    fn expected() -> String {
        format!("auto, {}", bool::expected())
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.eq_ignore_ascii_case("auto") { Ok(Self(None)) } else { bool::parse(text).map(|on| Self(Some(on))) }
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "auto".to_owned(), |on| on.to_string())
    }

    fn choices() -> &'static [&'static str] {
        &["auto", "true", "false"]
    }
}

/// Any text that is not empty.
impl Value for String {
    const METAVAR: &'static str = "TEXT";

    fn expected() -> String {
        "text without a NUL or a line break".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.contains(['\0', '\n', '\r']) || text.is_empty() { Err(None) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// A path, used as given; relative ones are resolved against the working directory.
impl Value for PathBuf {
    const METAVAR: &'static str = "PATH";

    fn expected() -> String {
        "a path".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        String::parse(text).map(Self::from)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Several values in the syntax of a list: separated by commas, or `none`.
fn show_list<T: Value>(values: &[T]) -> String {
    if values.is_empty() {
        return "none".into();
    }
    values.iter().map(T::show).collect::<Vec<_>>().join(",")
}

/// The items of a list, without the space around them; none if the list is the word `none`.
fn items(text: &str) -> Option<Vec<&str>> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let is_none = items.len() == 1 && says_none(items[0]);
    (!is_none).then_some(items)
}

/// Whether a text is the word `none`.
fn says_none(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("none")
}

/// Several paths, separated by commas; none is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathList(pub Vec<PathBuf>);

impl Value for PathList {
    const METAVAR: &'static str = "PATHS";

    fn expected() -> String {
        "paths, separated by commas, or none".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        match items(text) {
            None => Ok(Self::default()),
            Some(paths) if paths.is_empty() => Err(None),
            Some(paths) => paths.into_iter().map(PathBuf::parse).collect::<Result<_, _>>().map(Self),
        }
    }

    fn show(&self) -> String {
        show_list(&self.0)
    }

    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// A path that the launcher chooses unless the user sets it or switches the feature off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AutoPath {
    /// Chosen by the launcher.
    Auto,
    /// Switched off.
    Off,
    /// This path.
    At(PathBuf),
}

impl Value for AutoPath {
    const METAVAR: &'static str = "PATH";

    fn expected() -> String {
        "a path, auto or none".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::Off),
            _ => PathBuf::parse(text).map(Self::At),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Off => "none".into(),
            Self::At(path) => path.show(),
        }
    }
}

/// A secret: it is shown as stars wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Shown instead of a secret.
pub const REDACTED: &str = "********";

impl Value for Secret {
    const METAVAR: &'static str = "SECRET";

    fn expected() -> String {
        "text".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        Ok(Self(text.into()))
    }

    fn show(&self) -> String {
        REDACTED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_paths_is_none_however_that_is_written() {
        for text in ["none", "None\u{c}", " none ", "none,"] {
            assert_eq!(PathList::parse(text), Ok(PathList::default()), "{text:?}");
        }
        let paths = PathList(vec!["none".into(), "a b".into()]);
        assert_eq!(PathList::parse("none, a b ,"), Ok(paths));
        assert!(["", " ", ","].iter().all(|text| PathList::parse(text).is_err()));
    }
}
