//! A row of the option table, [`Opt`], with its place in the file and in `--help`.

use super::options::OPTIONS;
use super::setting::Shadowed;
use super::value::{Server, Value};
use crate::problem::Origin;

/// Where an option is in the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Outside any table.
    Top,
    /// `[launcher]`
    Launcher,
    /// `[gunicorn]`
    Gunicorn,
    /// `[granian]`
    Granian,
    /// `[tls]`
    Tls,
}

impl Section {
    /// In the order in which they appear in a file.
    pub const ALL: [Self; 5] = [Self::Top, Self::Launcher, Self::Gunicorn, Self::Granian, Self::Tls];

    /// The name of the table, if there is one.
    #[must_use]
    pub const fn table(self) -> Option<&'static str> {
        match self {
            Self::Top => None,
            Self::Launcher => Some("launcher"),
            Self::Gunicorn => Some("gunicorn"),
            Self::Granian => Some("granian"),
            Self::Tls => Some("tls"),
        }
    }

    /// A key with its table, as errors name it.
    #[must_use]
    pub fn path(self, key: &str) -> String {
        self.table().map_or_else(|| key.to_owned(), |table| format!("{table}.{key}"))
    }

    /// The server that the section belongs to, if any.
    #[must_use]
    pub const fn server(self) -> Option<Server> {
        match self {
            Self::Gunicorn => Some(Server::Gunicorn),
            Self::Granian => Some(Server::Granian),
            _ => None,
        }
    }
}

/// The heading of an option in `--help`, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Heading {
    Launcher,
    Bind,
    Tls,
    Gunicorn,
    Granian,
    Supervision,
    Logging,
}

impl Heading {
    /// In the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Launcher, Self::Bind, Self::Tls, Self::Gunicorn, Self::Granian, Self::Supervision, Self::Logging];

    /// As it is printed.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Launcher => "Launcher",
            Self::Bind => "Bind",
            Self::Tls => "TLS",
            Self::Gunicorn => "Gunicorn",
            Self::Granian => "Granian",
            Self::Supervision => "Supervision",
            Self::Logging => "Logging",
        }
    }
}

/// Joins the elements of a list, unless the result would be ambiguous.
pub type JoinList = fn(&[String]) -> Option<String>;

/// One row of the table.
#[derive(Debug)]
pub struct Opt {
    /// The field in [`Settings`].
    pub id: &'static str,
    /// The help text, one or two sentences.
    pub help: &'static str,
    /// The table in the file.
    pub section: Section,
    /// The key in it.
    pub key: &'static str,
    /// Environment names, highest precedence first.
    pub env: &'static [&'static str],
    /// The flag without its dashes. If options of both servers share a flag, it sets both, and only the one of the
    /// selected server is used.
    pub flag: Option<&'static str>,
    /// The one-letter flag.
    pub short: Option<char>,
    /// Where `--help` lists it.
    pub heading: Heading,
    /// The default, in the syntax of the setting.
    pub default: &'static str,
    /// What the documentation shows in place of a default that is computed.
    pub default_note: &'static str,
    /// The first server version that has it, if relevant.
    pub since: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// Whether a value that cannot be read is only a warning, and the default is used.
    pub lenient: bool,
    /// The placeholder for the value.
    pub metavar: &'static str,
    /// What is allowed.
    pub expected: fn() -> String,
    /// The allowed words, if only words are allowed.
    pub choices: fn() -> &'static [&'static str],
    /// Parses a text and writes the value in its canonical form.
    pub canonical: fn(&str) -> Result<String, Option<String>>,
    /// Joins a list from the file into one text, if the option accepts lists.
    pub list: Option<JoinList>,
}

impl Opt {
    /// The key with its table, as errors name it.
    #[must_use]
    pub fn path(&self) -> String {
        self.section.path(self.key)
    }

    /// The flag that sets only this option, if its main flag is shared with the other server.
    #[must_use]
    pub fn specific_flag(&self) -> Option<String> {
        let server = self.section.server()?;
        Some(format!("{server}-{}", self.key.replace('_', "-")))
    }

    /// Whether it is a boolean, so that its flag needs no value.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.metavar == <bool as Value>::METAVAR
    }

    /// Whether options of both servers have the same flag.
    #[must_use]
    pub fn shares_flag(&self) -> bool {
        self.flag.is_some() && OPTIONS.iter().filter(|other| other.flag == self.flag).count() > 1
    }

    /// The row with this identifier.
    #[must_use]
    pub fn by_id(id: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|opt| opt.id == id)
    }

    /// The default as documentation shows it.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        match (self.default_note, self.default) {
            ("", "") => "none",
            ("", default) => default,
            (note, _) => note,
        }
    }
}

/// One resolved option, as `explain` shows it.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its row.
    pub opt: &'static Opt,
    /// Its value in canonical form; redacted for a secret.
    pub value: String,
    /// Where the value came from.
    pub origin: &'a Origin,
    /// Other values that were given, highest precedence first.
    pub shadowed: &'a [Shadowed],
}
