//! The user's settings for Gunicorn itself: in `GUNICORN_CMD_ARGS`, or else in a configuration file.
//!
//! The plan only knows the literal values in the file. Computed ones take effect as well, because the file runs; where
//! the plan would need such a value, there is a warning.

use std::ffi::OsString;
use std::fmt;

use super::super::Findings;
use super::super::workers::Told;
use super::cmd_args::CmdArgs;
use crate::host::{Assigned, Assignments, Host, Literal};
use crate::problem::{Exit, Problem};
use crate::settings::value::{App, Server, Value};
use crate::settings::{Origin, Resolution, Setting, Settings};

/// Both of them.
#[derive(Debug, Default)]
pub(in super::super) struct Own<'a> {
    pub cmd_args: CmdArgs,
    /// The configuration file.
    pub file: Option<UserFile>,
    text: Option<&'a Assignments>,
}

/// The location of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct UserFile {
    /// As Gunicorn takes it: a path, `file:PATH` or `python:MODULE`.
    pub location: OsString,
    /// Where that came from.
    pub origin: String,
}

/// A setting of Gunicorn's as the user gives it.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Given {
    name: String,
    /// None if it is computed.
    value: Option<Literal>,
    pub origin: Origin,
}

impl<'a> Own<'a> {
    /// Reads the settings for this server.
    pub fn read(resolution: &Resolution, host: &'a Host, server: Server, findings: &mut Findings) -> Self {
        if server == Server::Granian {
            return Self::default();
        }
        let cmd_args = CmdArgs::read(resolution, findings);
        let file = user_file(&resolution.settings, &cmd_args, host);
        let text = host.gunicorn_settings.as_ref().filter(|_| file.is_some());
        Self { cmd_args, file, text }
    }

    /// The one of the two that applies.
    pub fn get(&self, name: &str) -> Option<Given> {
        self.argument(name).or_else(|| self.in_file(name))
    }

    fn argument(&self, name: &str) -> Option<Given> {
        let values = self.cmd_args.values(name)?;
        let mut texts: Vec<Literal> =
            values.into_iter().flatten().map(|text| Literal::Text(text.to_owned())).collect();
        let value = match texts.len() {
            0 => Literal::Bool(true),
            _ if name == "bind" => Literal::Sequence(texts),
            _ => texts.pop().unwrap_or(Literal::None),
        };
        Some(Given { name: name.to_owned(), value: Some(value), origin: self.cmd_args.origin.clone() })
    }

    /// What the file says, regardless of the arguments.
    pub fn in_file(&self, name: &str) -> Option<Given> {
        let (file, assigned) = (self.file.as_ref()?, self.text?.get(name)?);
        let (value, line) = match assigned {
            Assigned::Literal { value, line } => (Some(value), line),
            Assigned::Computed { line } => (None, line),
        };
        let origin = Origin::File { path: file.location.clone().into(), key: format!("{name}, line {line}") };
        Some(Given { name: name.to_owned(), value, origin })
    }

    /// The app: the one that is set, else the one in the file.
    pub fn app(&self, settings: &Settings, findings: &mut Findings) -> Setting<App> {
        let setting = &settings.app_module;
        let Some(native) = self.in_file("wsgi_app").filter(|_| !setting.is_explicit()) else {
            return setting.clone();
        };
        match native.text().map(App::parse) {
            Some(Ok(value)) => return Setting { value, origin: native.origin, shadowed: Vec::new() },
            None if native.is_computed() => findings.problem(
                Problem::setting("wsgi_app is computed, so it is not known before the server runs", &native.origin)
                    .hint("name the APP as an argument, or in APP_MODULE"),
            ),
            None => {}
            Some(Err(_)) => findings
                .problem(Problem::new(Exit::Settings, native.to_string()).hint(format!("use {}", App::expected()))),
        }
        setting.clone()
    }

    /// The worker count. The gateway's own file has one that was not chosen for this machine: for the gateway it does
    /// not count.
    pub fn workers(&self, is_gateway: bool, settings: &Settings, findings: &mut Findings) -> Told {
        let native = self.argument("workers").or_else(|| self.in_file("workers"))?;
        let by_argument = self.cmd_args.sets("workers");
        let explicit = settings.gunicorn_workers.is_explicit();
        if !by_argument && is_gateway && !native.is_none() && !explicit {
            findings.warn(format!("{native} is not used for the gateway: set GUNICORN_WORKERS"));
            return None;
        }
        match native.number().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if number > 0 => return Some((number, native.origin)),
            _ if explicit || by_argument => {}
            _ if native.is_computed() => findings.warn(format!(
                "{native} is computed, so it is not known before the server runs, and is not used: set GUNICORN_WORKERS, \
                 which may be a formula such as 2n+1"
            )),
            _ if native.is_none() => {}
            _ => findings.problem(
                Problem::new(Exit::Settings, format!("{native} is not a worker count")).hint("use a whole number of at least 1"),
            ),
        }
        None
    }

    /// The length of the accept queue, if our own setting is not set.
    pub fn backlog(&self, settings: &Settings) -> Option<u64> {
        let native = self.get("backlog").filter(|_| !settings.gunicorn_backlog.is_explicit());
        native.and_then(|native| native.number()).filter(|number| *number > 0)
    }

    /// Whether it is only known when the file runs if TLS is spoken.
    pub fn computes_tls(&self, settings: &Settings) -> bool {
        let native = |name| self.get(name).is_some_and(|native| native.is_computed());
        !settings.ssl.value && (native("certfile") || native("keyfile"))
    }

    /// Whether it is known which settings the file has: there is none, or its text can be read.
    pub const fn is_readable(&self) -> bool {
        self.file.is_none() || self.text.is_some()
    }

    /// Whether this is switched on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|given| given.is_on())
    }
}

/// The configuration file: the setting, else the argument, else the one that was found.
fn user_file(settings: &Settings, cmd_args: &CmdArgs, host: &Host) -> Option<UserFile> {
    let setting = &settings.gunicorn_config;
    if setting.is_explicit() {
        let location = setting.value.as_ref()?.into();
        return Some(UserFile { location, origin: setting.origin.to_string() });
    }
    if let Some(path) = cmd_args.value("config") {
        let origin = cmd_args.origin.to_string();
        return Some(UserFile { location: path.into(), origin });
    }
    let location = host.gunicorn_config.as_ref()?.into();
    Some(UserFile { location, origin: "found".to_owned() })
}

impl Given {
    /// Whether its value is only known when the file runs.
    pub const fn is_computed(&self) -> bool {
        self.value.is_none()
    }

    /// Whether it is `None`.
    pub const fn is_none(&self) -> bool {
        matches!(self.value, Some(Literal::None))
    }

    /// As a whole number that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self.value.as_ref()? {
            Literal::Int(number) => u64::try_from(*number).ok(),
            Literal::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// As a text that is not empty.
    pub fn text(&self) -> Option<&str> {
        match self.value.as_ref()? {
            Literal::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// As texts: a single one is a list of one.
    pub fn texts(&self) -> Vec<&str> {
        match &self.value {
            Some(Literal::Sequence(values)) => values
                .iter()
                .filter_map(|value| if let Literal::Text(text) = value { Some(text.as_str()) } else { None })
                .collect(),
            // Gunicorn splits a text at commas.
            Some(Literal::Text(text)) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it is nothing but texts, or empty.
    pub fn is_texts(&self) -> bool {
        match &self.value {
            Some(Literal::Sequence(values)) => values.iter().all(|value| matches!(value, Literal::Text(_))),
            Some(Literal::Text(_) | Literal::None) => true,
            _ => false,
        }
    }

    /// Whether it is certainly something other than off, none or nothing.
    pub fn is_on(&self) -> bool {
        match &self.value {
            Some(Literal::Bool(value)) => *value,
            Some(Literal::Text(text)) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
            Some(Literal::Int(number)) => *number != 0,
            Some(Literal::Float(_) | Literal::Sequence(_)) => true,
            Some(Literal::None) | None => false,
        }
    }
}

/// `timeout = 30 (from …)`, for messages.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value} (from {})", self.name, self.origin),
            None => write!(f, "{} (from {})", self.name, self.origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{installed_host, resolution};

    fn given(source: &str, args: &str, name: &str) -> Option<Given> {
        let mut host = installed_host();
        host.gunicorn_config = Some("/srv/gunicorn.conf.py".into());
        host.gunicorn_settings = Some(Assignments::read(source));
        let resolution = resolution(&[("GUNICORN_CMD_ARGS", args)]);
        Own::read(&resolution, &host, Server::Gunicorn, &mut Findings::default()).get(name)
    }

    #[test]
    fn arguments_come_before_the_file() {
        let timeout = given("timeout = 5", "-t 9", "timeout").unwrap();
        assert_eq!((timeout.number(), timeout.origin), (Some(9), Origin::Env("GUNICORN_CMD_ARGS".into())));
        let timeout = given("\ntimeout = 5", "--reload", "timeout").unwrap();
        assert_eq!(timeout.to_string(), "timeout = 5 (from file /srv/gunicorn.conf.py key timeout, line 2)");
        assert!(given("", "--reload", "reload").unwrap().is_on());
        assert_eq!(given("bind = 'a'", "-b b --bind c", "bind").unwrap().texts(), ["b", "c"]);
        assert_eq!(given("bind = ['a', 'b']", "", "bind").unwrap().texts(), ["a", "b"]);
        assert_eq!(given("bind = 'a, b'", "", "bind").unwrap().texts(), ["a", "b"]);
    }

    #[test]
    fn what_is_computed_is_neither_on_nor_a_value() {
        let computed = given("timeout = f()", "", "timeout").unwrap();
        assert!(computed.is_computed() && !computed.is_on() && computed.number().is_none());
        assert_eq!(given("", "", "timeout"), None);
    }
}
