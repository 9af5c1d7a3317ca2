//! Environment files: `KEY=VALUE` lines, which count like environment variables, with lower precedence.
//!
//! Their syntax is that of `docker run --env-file`: everything after `=` is the value, including quotes and spaces at
//! the end. Empty lines and those that begin with `#` are skipped. A name alone means the variable of our own
//! environment, which is passed on anyway.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::Setting;
use super::env_names::CONFIG;
use super::environment::variable;
use super::file::{ReadFile, reason};
use super::layers::{Given, Layer};
use super::options::{OPTIONS, Opt};
use super::value::PathList;
use crate::host::Environment;
use crate::problem::{Exit, Origin, Problem};

/// How many lines of a file are reported. One with more of them is something else.
const MOST_PROBLEMS: usize = 10;

/// What environment files add to the environment.
#[derive(Debug, Clone, Default)]
pub struct EnvFiles {
    /// The files, lowest precedence first.
    pub paths: Vec<PathBuf>,
    /// A number that changes with their contents.
    pub fingerprint: u64,
    /// The variables that come from them, and from where. It does not contain those that the environment has.
    pub origins: BTreeMap<String, Origin>,
}

impl EnvFiles {
    /// The location of a variable.
    #[must_use]
    pub fn origin_of(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or_else(|| Origin::Env(name.to_owned()))
    }
}

/// The contents of the files.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: EnvFiles,
    /// All their variables, including those that are shadowed.
    variables: BTreeMap<String, Variable>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
struct Variable {
    value: String,
    path: PathBuf,
    line: usize,
}

/// The option that names the files.
pub(super) fn option() -> &'static Opt {
    Opt::by_id("env_file").expect("the table has it")
}

/// Reads the files that a setting names. All problems are found, not only the first.
pub(super) fn load(setting: &Setting<PathList>, read: ReadFile) -> Found {
    let mut found = Found::default();
    let mut hasher = DefaultHasher::new();
    for path in &setting.value.0 {
        match read(path) {
            Ok(bytes) => {
                bytes.hash(&mut hasher);
                found.take(path, &bytes);
            }
            Err(error) => {
                let message = format!("env file {} cannot be read: {}", path.display(), reason(&error));
                found.problems.push(Problem::setting(message, &setting.origin));
            }
        }
    }
    for name in [CONFIG].iter().chain(option().env) {
        if let Some(Variable { path, line, .. }) = found.variables.remove(*name) {
            let warning = "has no effect in an env file; set it in the environment";
            found.warnings.push(format!("env file {} line {line}: {name} {warning}", path.display()));
        }
    }
    found.files.paths.clone_from(&setting.value.0);
    found.files.fingerprint = hasher.finish();
    found
}

impl Found {
    fn take(&mut self, path: &Path, bytes: &[u8]) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut wrong_lines = 0_usize;
        for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            match parse(bytes) {
                Ok(None) => {}
                Ok(Some((name, value))) => {
                    if is_quoted(value) {
                        self.warnings.push(format!(
                            "env file {} line {line}: the quotes are part of the value of {name}, as with docker \
                             --env-file",
                            path.display()
                        ));
                    }
                    let variable = Variable { value: value.to_owned(), path: path.to_owned(), line };
                    self.variables.insert(name.to_owned(), variable);
                }
                Err(Wrong { what, instead }) => {
                    wrong_lines += 1;
                    if wrong_lines <= MOST_PROBLEMS {
                        let message = format!("env file {} line {line} {what}", path.display());
                        self.problems.push(Problem::new(Exit::Settings, message).hint(instead));
                    }
                }
            }
        }
        if let Some(more @ 1..) = wrong_lines.checked_sub(MOST_PROBLEMS) {
            let message = format!("env file {} has {more} more lines that cannot be read", path.display());
            self.problems.push(Problem::new(Exit::Settings, message).hint("is it an environment file?"));
        }
    }

    /// The settings among the variables.
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::env_file();
        for opt in OPTIONS {
            for name in opt.env.iter().rev() {
                if let Some(Variable { value, path, line }) = self.variables.get(*name)
                    && !value.is_empty()
                {
                    let place = Some((path.clone(), *line));
                    layer.add(opt, Given { place, ..Given::text(*name, value) });
                }
            }
        }
        layer
    }

    /// The environment with these variables. Existing variables stay, unless they are empty settings.
    pub fn merge_into(&mut self, env: &Environment) -> Environment {
        let is_setting = |name: &str| OPTIONS.iter().any(|opt| opt.env.contains(&name));
        let mut merged = env.clone();
        for (name, variable) in &self.variables {
            let given = env.get(OsString::from(name).as_os_str());
            if given.is_none_or(|given| given.is_empty() && is_setting(name)) {
                merged.insert(name.into(), variable.value.clone().into());
                self.files.origins.insert(name.clone(), variable.origin(name));
            }
        }
        merged
    }

    /// The variables that the environment shadows, each with its location, the one that shadows it, and a number that
    /// changes with its value.
    pub fn shadowed<'a>(&'a self, env: &'a Environment) -> impl Iterator<Item = (Origin, Origin, u64)> + 'a {
        self.variables.iter().filter(|(name, _)| variable_is_given(env, name)).map(|(name, variable)| {
            let mut hasher = DefaultHasher::new();
            variable.value.hash(&mut hasher);
            (variable.origin(name), Origin::Env(name.clone()), hasher.finish())
        })
    }
}

fn variable_is_given(env: &Environment, name: &str) -> bool {
    variable(env, name).is_some()
}

impl Variable {
    fn origin(&self, name: &str) -> Origin {
        Origin::EnvFile { path: self.path.clone(), line: self.line, name: name.to_owned() }
    }
}

/// Why a line cannot be read, and what would be right. The line itself is not shown, because it may contain a secret.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    what: &'static str,
    instead: &'static str,
}

/// The name and value of a line, if it has both.
fn parse(line: &[u8]) -> Result<Option<(&str, &str)>, Wrong> {
    const SYNTAX: &str = "write NAME=VALUE";
    let wrong = |what| Err(Wrong { what, instead: SYNTAX });
    let Ok(line) = std::str::from_utf8(line) else {
        return Err(Wrong { what: "is not UTF-8", instead: "save the file as UTF-8" });
    };
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
    if name.is_empty() {
        return wrong("has no name before the =");
    }
    if name.starts_with("export ") {
        return Err(Wrong { what: "begins with export", instead: "leave it out: this is not a shell script" });
    }
    if name.contains(char::is_whitespace) {
        return wrong("has a space in the name or before the =");
    }
    if line.contains('\0') {
        return wrong("has a NUL character");
    }
    Ok(value.map(|value| (name, value)))
}

/// Whether the value was probably written for a shell.
fn is_quoted(value: &str) -> bool {
    let value = value.trim_end();
    value.len() >= 2 && ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FlagLayer, Resolution, resolve};
    use std::ffi::OsStr;
    use std::io;

    /// The settings with these variables and files.
    fn resolved(env: &[(&str, &str)], files: &[(&str, &str)]) -> Resolution {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        resolve(&FlagLayer::default(), &env, &read)
    }

    fn get<'a>(resolution: &'a Resolution, name: &str) -> Option<&'a str> {
        resolution.env.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    #[test]
    fn lines_are_read_as_docker_reads_them() {
        let text = "\u{feff}A=1\r\n  # a comment\n\n\tB= two words \nC=a=b\nD=\nHOME\nNOT_THERE\nE=\"quoted\"\n";
        let resolution = resolved(&[("MCP_LAUNCH_ENV_FILE", "x.env"), ("HOME", "/root")], &[("x.env", text)]);
        let read = ["A", "B", "C", "D", "E", "HOME", "NOT_THERE"].map(|name| get(&resolution, name));
        let wanted = [Some("1"), Some(" two words "), Some("a=b"), Some(""), Some("\"quoted\""), Some("/root"), None];
        assert_eq!(read, wanted);
        assert_eq!(resolution.problems, []);
        assert_eq!(
            resolution.warnings,
            ["env file x.env line 9: the quotes are part of the value of E, as with docker --env-file"]
        );
    }

    #[test]
    fn files_are_below_the_environment_above_the_configuration_and_later_ones_win() {
        let files = [
            ("./mcp-launch.toml", "port = 1\nhost = \"127.0.0.1\"\nhttp_server = \"granian\""),
            ("a.env", "PORT=2\nHOST=127.0.0.2\nONE=a\nTWO=a\nTHREE=a\nMAX_WORKERS=3"),
            ("b.env", "HOST=127.0.0.3\nTWO=b"),
        ];
        let env = [("MCP_LAUNCH_ENV_FILE", "a.env, b.env"), ("PORT", "3"), ("THREE", ""), ("MAX_WORKERS", "")];
        let resolution = resolved(&env, &files);
        assert_eq!(resolution.problems, []);
        let settings = &resolution.settings;
        assert_eq!(settings.port.value.0, 3);
        let shadowed: Vec<_> = settings.port.shadowed.iter().map(|lost| lost.origin.to_string()).collect();
        assert_eq!(shadowed, ["env file a.env line 1, PORT", "file ./mcp-launch.toml key port"]);
        assert_eq!(settings.host.origin.to_string(), "env file b.env line 1, HOST");
        assert_eq!(settings.max_workers.value.0, 3, "an empty setting is not set");
        assert_eq!(["ONE", "TWO", "THREE"].map(|name| get(&resolution, name)), [Some("a"), Some("b"), Some("")]);
    }

    #[test]
    fn the_configuration_file_may_name_env_files_but_an_env_file_may_not() {
        let files = [
            ("./mcp-launch.toml", "[launcher]\nenv_file = [\"a.env\"]"),
            ("a.env", "PORT=2\nMCP_LAUNCH_ENV_FILE=b.env\nMCP_LAUNCH_CONFIG=c.toml"),
        ];
        let resolution = resolved(&[], &files);
        assert_eq!(resolution.settings.port.value.0, 2);
        assert_eq!(
            resolution.warnings,
            [
                "env file a.env line 3: MCP_LAUNCH_CONFIG has no effect in an env file; set it in the environment",
                "env file a.env line 2: MCP_LAUNCH_ENV_FILE has no effect in an env file; set it in the environment"
            ]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_reported_with_file_and_line_and_without_the_value() {
        let text = "export SECRET=hunter2\n=hunter2\nMY SECRET=hunter2\nSECRET =hunter2\nA=\0hunter2\nPORT=http";
        let resolution = resolved(&[("MCP_LAUNCH_ENV_FILE", "x.env,y.env")], &[("x.env", text)]);
        let problems: Vec<_> = resolution.problems.iter().map(ToString::to_string).collect();
        let wanted = [
            "env file x.env line 1 begins with export; leave it out: this is not a shell script",
            "env file x.env line 2 has no name before the =; write NAME=VALUE",
            "env file x.env line 3 has a space in the name or before the =; write NAME=VALUE",
            "env file x.env line 4 has a space in the name or before the =; write NAME=VALUE",
            "env file x.env line 5 has a NUL character; write NAME=VALUE",
            "env file y.env cannot be read: entity not found (from environment MCP_LAUNCH_ENV_FILE)",
            "port = \"http\" is not valid (from env file x.env line 6, PORT); allowed: a whole number from 0 to 65535",
        ];
        assert_eq!(problems, wanted);
    }

    #[test]
    fn of_a_file_that_is_something_else_only_the_first_lines_are_reported() {
        let text = "a line of a log\n".repeat(60_000);
        let resolution = resolved(&[("MCP_LAUNCH_ENV_FILE", "x.env")], &[("x.env", &text)]);
        assert_eq!(resolution.problems.len(), 11);
        let last = resolution.problems[10].to_string();
        assert_eq!(last, "env file x.env has 59990 more lines that cannot be read; is it an environment file?");
    }

    #[test]
    fn what_nothing_reads_and_what_a_server_reads_is_told_with_its_place() {
        let text = "GRANIAN_WOKERS=2\nGUNICORN_CMD_ARGS=--workers x";
        let resolution = resolved(&[("MCP_LAUNCH_ENV_FILE", "x.env")], &[("x.env", text)]);
        assert_eq!(
            resolution.warnings,
            ["env file x.env line 1, GRANIAN_WOKERS is set, but nothing reads it; did you mean GRANIAN_WORKERS?"]
        );
        assert_eq!(resolution.origin_of("GUNICORN_CMD_ARGS").to_string(), "env file x.env line 2, GUNICORN_CMD_ARGS");
    }
}
