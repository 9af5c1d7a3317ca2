//! The configuration file as a layer: which file, its syntax, and its keys.

use std::io;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Num, Value as Tree};

use super::env_names::CONFIG;
use super::environment::variable;
use super::flags::FlagLayer;
use super::layers::{Given, Layer};
use super::options::{OPTIONS, Opt, Section};
use super::suggest::{did_you_mean, nearest};
use crate::host::Environment;
use crate::problem::Origin;
use crate::problem::{Exit, Problem};

/// Where a file is looked for if none is named.
const PLACES: [&str; 2] = ["./mcp-launch.toml", "/etc/mcp-launch.toml"];

/// Reads a whole file.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// The result of the search for a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The file that was chosen, even if it cannot be used.
    pub path: Option<PathBuf>,
    pub layer: Option<Layer>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

/// Chooses the file and reads it.
pub(super) fn load(flags: &FlagLayer, env: &Environment, read: ReadFile) -> Found {
    let named = flags.config.as_ref().map(|path| (PathBuf::from(path), Origin::Flag("--config".into())));
    let named = named.or_else(|| variable(env, CONFIG).map(|path| (PathBuf::from(path), Origin::Env(CONFIG.into()))));
    if let Some((path, origin)) = named {
        let content = read(&path);
        return Found::new(path, content, Some(&origin));
    }
    for path in PLACES.map(PathBuf::from) {
        let content = read(&path);
        let absent =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if !content.as_ref().is_err_and(absent) {
            return Found::new(path, content, None);
        }
    }
    Found::default()
}

impl Found {
    fn new(path: PathBuf, content: io::Result<Vec<u8>>, named_by: Option<&Origin>) -> Self {
        let mut found = Self::default();
        match content.map_err(|error| format!("cannot be read: {}", reason(&error))).and_then(|bytes| parse(&bytes)) {
            Ok(dict) => found.take(&path, dict),
            Err(wrong) => {
                let problem = Problem::new(Exit::Settings, format!("configuration file {} {wrong}", path.display()));
                found.problems.push(named_by.into_iter().fold(problem, Problem::from));
            }
        }
        found.path = Some(path);
        found
    }

    /// Sorts the keys into a layer.
    fn take(&mut self, path: &Path, dict: Dict) {
        let mut layer = Layer::file(path);
        for (key, value) in dict {
            match (Section::ALL.into_iter().find(|section| section.table() == Some(&key)), value) {
                (None, value) => self.key(path, &mut layer, Section::Top, &key, value),
                (Some(section), Tree::Dict(_, table)) => {
                    for (key, value) in table {
                        self.key(path, &mut layer, section, &key, value);
                    }
                }
                (Some(_), _) => {
                    let origin = Origin::File { path: path.into(), key: key.clone() };
                    let problem = Problem::setting(format!("{key} is a table of settings, not a value"), &origin);
                    self.problems.push(problem.hint(format!("write [{key}] on a line of its own")));
                }
            }
        }
        self.layer = Some(layer);
    }

    fn key(&mut self, path: &Path, layer: &mut Layer, section: Section, key: &str, value: Tree) {
        if let Some(opt) = OPTIONS.iter().find(|opt| opt.section == section && opt.key == key) {
            layer.add(opt, given(opt, value));
        } else {
            let table = matches!(value, Tree::Dict(..));
            let (what, name) = (if table { "table" } else { "key" }, section.path(key));
            let meant = did_you_mean(meant(section, key, table).as_deref());
            self.warnings
                .push(format!("file {} {what} {name} is not known and has no effect{meant}", path.display()));
        }
    }
}

/// The operating system's message, without the error number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(text, _)| text.to_owned())
}

/// The error completes "configuration file X …", and says where.
fn parse(bytes: &[u8]) -> Result<Dict, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(bytes, error.valid_up_to());
        format!("line {line}, column {column} is not UTF-8")
    })?;
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        let place = error.span().map(|span| position(bytes, span.start));
        let place = place.map_or_else(String::new, |(line, column)| format!(" at line {line}, column {column}"));
        format!("is not valid TOML{place}: {message}")
    })
}

/// Line and column of a byte, counted from 1, the column in characters.
fn position(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset.min(bytes.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.split(|byte| *byte == b'\n').count();
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The text of a value, which is then parsed like any other text.
fn given(opt: &Opt, value: Tree) -> Given {
    let name = opt.path();
    let fault = |text: &str, fault: &str| Given { fault: Some(fault.into()), ..Given::text(name.clone(), text) };
    let Tree::Array(_, elements) = value else {
        return match text(&value) {
            Some(text) => Given::text(name, text),
            None => fault("{…}", "a table is not allowed here"),
        };
    };
    let Some(elements) = elements.iter().map(text).collect::<Option<Vec<_>>>() else {
        return fault("[…]", "its elements are not plain values");
    };
    let joined = opt.list.map(|join| join(&elements));
    match joined {
        Some(Some(text)) => Given::text(name, text),
        Some(None) => fault(&elements.join(", "), "its elements would be ambiguous when joined"),
        None => fault(&format!("[{}]", elements.join(", ")), "it takes one value, not a list"),
    }
}

/// A plain value as a user would type it.
fn text(value: &Tree) -> Option<String> {
    match value {
        Tree::String(_, text) => Some(text.clone()),
        Tree::Char(_, letter) => Some(letter.to_string()),
        Tree::Bool(_, yes) => Some(yes.to_string()),
        // With its decimal point: 1.0 is not the whole number 1, in any layer.
        Tree::Num(_, Num::F64(number)) => Some(format!("{number:?}")),
        Tree::Num(_, Num::F32(number)) => Some(format!("{number:?}")),
        Tree::Num(_, number) => number.to_i128().map(|number| number.to_string()),
        // The TOML reader represents dates as a table with this one key.
        Tree::Dict(_, dict) => dict.get("$__toml_private_datetime").and_then(text),
        Tree::Array(..) | Tree::Empty(..) => None,
    }
}

/// The known name that was probably meant: the key in the table where it belongs, or else one with a similar
/// spelling.
fn meant(section: Section, key: &str, table: bool) -> Option<String> {
    if table {
        return nearest(key, Section::ALL.into_iter().filter_map(Section::table)).map(|table| format!("[{table}]"));
    }
    let elsewhere: Vec<_> = OPTIONS.iter().filter(|opt| opt.key == key).map(Opt::path).collect();
    if !elsewhere.is_empty() {
        return Some(elsewhere.join(" or "));
    }
    let siblings = OPTIONS.iter().filter(|opt| opt.section == section).map(|opt| opt.key);
    if let Some(sibling) = nearest(key, siblings) {
        return Some(section.path(sibling));
    }
    let paths: Vec<_> = OPTIONS.iter().map(Opt::path).collect();
    nearest(key, paths.iter().map(String::as_str))
        .map(str::to_owned)
        .or_else(|| nearest(key, OPTIONS.iter().map(|opt| opt.key)).and_then(|key| meant(section, key, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Found {
        Found::new("x.toml".into(), Ok(text.into()), None)
    }

    #[test]
    fn a_misplaced_or_misspelled_key_is_a_warning_with_the_right_one() {
        for (text, warning) in [
            (
                "workers = 2",
                "key workers is not known and has no effect; did you mean gunicorn.workers or granian.workers?",
            ),
            ("[tls]\nport = 1", "key tls.port is not known and has no effect; did you mean port?"),
            (
                "[granian]\nwokers = 2",
                "key granian.wokers is not known and has no effect; did you mean granian.workers?",
            ),
            (
                "granian_workers = 2",
                "key granian_workers is not known and has no effect; did you mean granian.workers?",
            ),
            (
                "stop_timeuot = 2",
                "key stop_timeuot is not known and has no effect; did you mean launcher.stop_timeout?",
            ),
            ("[gunicron]\nworkers = 2", "table gunicron is not known and has no effect; did you mean [gunicorn]?"),
            ("flavour = 2", "key flavour is not known and has no effect"),
        ] {
            assert_eq!(load_text(text).warnings, [format!("file x.toml {warning}")], "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_a_problem_with_line_and_column() {
        let problem = &load_text("port = 1\nhost = = 2\n").problems[0];
        assert!(
            problem.message.starts_with("configuration file x.toml is not valid TOML at line 2, column 8: "),
            "{problem}"
        );
        let not_text = Found::new("x.toml".into(), Ok(b"port = 1\n# \xff".to_vec()), None);
        assert_eq!(not_text.problems[0].message, "configuration file x.toml line 2, column 3 is not UTF-8");
    }

    #[test]
    fn a_table_that_is_written_as_a_value_is_a_problem() {
        let problems = load_text("granian = 4").problems;
        assert_eq!(
            problems[0].to_string(),
            "granian is a table of settings, not a value (from file x.toml key granian); write [granian] on a line of its own"
        );
    }

    #[test]
    fn the_named_file_comes_before_the_usual_places() {
        let read = |path: &Path| match path.to_str() {
            Some("./mcp-launch.toml") => Err(io::ErrorKind::NotFound.into()),
            Some("/etc/mcp-launch.toml" | "mine.toml") => Ok(Vec::new()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        };
        let mut flags = FlagLayer::default();
        let mut env = Environment::new();
        assert_eq!(load(&flags, &env, &read).path, Some("/etc/mcp-launch.toml".into()));
        env.insert(CONFIG.into(), "mine.toml".into());
        assert_eq!(load(&flags, &env, &read).path, Some("mine.toml".into()));
        flags.config = Some("theirs.toml".into());
        let problems = load(&flags, &env, &read).problems;
        assert_eq!(
            problems[0].to_string(),
            "configuration file theirs.toml cannot be read: permission denied (from command line --config)"
        );
    }
}
