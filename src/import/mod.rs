//! `import`: another manager's configuration as `mcp-launch.toml`.
//!
//! Text → a [`Service`] (a command and the settings around it) → [`Facts`] (options of the table with values, and what
//! could not be carried over, with the reason) → the file. Everything here is plain data made from plain data.

mod command;
mod compose;
mod facts;
mod flags;
mod formats;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod manager;
mod render;
#[cfg(test)]
mod tests;
mod yaml;

pub use facts::{Facts, Left};
pub use render::toml;

use crate::problem::{Exit, Problem};
use crate::settings::quote::quote;

/// A configuration is no longer than this.
pub const LONGEST: usize = 1 << 20;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Supervisor,
    Systemd,
    Uwsgi,
    Compose,
    Procfile,
    Command,
}

/// A program that a manager starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// As the file names it; empty if a file has only one.
    pub name: String,
    /// What it starts; a uWSGI file has none.
    pub command: Option<String>,
    /// The other settings, in the order of the file.
    pub settings: Vec<(String, String)>,
}

/// Reads a configuration. `name` is the file's, by which a Procfile is known; `wanted` chooses one of several services.
///
/// # Errors
/// Text that is none of the known kinds, has nothing that starts a server, or has several and none was chosen.
pub fn import(name: &str, bytes: &[u8], wanted: Option<&str>) -> Result<Facts, Problem> {
    let (kind, text) = recognize(name, bytes)?;
    let text = text.replace("\r\n", "\n");
    let services = formats::services(kind, &text).map_err(|wrong| refused(name, &wrong))?;
    let service = choose(name, kind, services, wanted)?;
    let mut facts = Facts::default();
    manager::read(kind, &service, &mut facts);
    if let Some(command) = &service.command {
        command::read(command, &mut facts).map_err(|wrong| refused(name, &wrong))?;
    }
    facts.settle();
    Ok(facts)
}

fn refused(name: &str, wrong: &str) -> Problem {
    Problem::new(Exit::Settings, format!("{name} cannot be imported: {wrong}"))
}

fn recognize<'a>(name: &str, bytes: &'a [u8]) -> Result<(Kind, &'a str), Problem> {
    if bytes.len() > LONGEST {
        return Err(refused(name, &format!("it has more than {LONGEST} bytes, so it is no configuration")));
    }
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or_else(|| refused(name, "it is not text"))?;
    let kind = formats::kind(name, text).ok_or_else(|| {
        refused(name, "it is none of the kinds that are known").hint(
            "these are: a supervisord program section, a systemd unit, a uWSGI ini, a docker-compose file, a Procfile, \
             a command line of gunicorn, uvicorn or granian",
        )
    })?;
    Ok((kind, text))
}

/// The one that is wanted, or the only one that starts a server.
fn choose(name: &str, kind: Kind, services: Vec<Service>, wanted: Option<&str>) -> Result<Service, Problem> {
    let starts = |service: &Service| service.command.as_deref().is_none_or(command::starts_a_server);
    let names = |services: &[Service]| {
        services
            .iter()
            .map(|service| service.name.as_str())
            .filter(|name| !name.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(wanted) = wanted {
        let known = names(&services);
        let found = services.into_iter().find(|service| service.name == wanted);
        let problem =
            || refused(name, &format!("it has no service {}", quote(wanted))).hint(format!("it has: {known}"));
        return found.ok_or_else(problem);
    }
    let mut servers: Vec<Service> = services.into_iter().filter(starts).collect();
    match servers.len() {
        1 => Ok(servers.remove(0)),
        0 => Err(refused(name, &format!("{} starts gunicorn, uvicorn or granian", kind.nothing()))),
        _ => Err(refused(name, &format!("it has several services that start a server: {}", names(&servers)))
            .hint("name one: mcp-launch import FILE NAME")),
    }
}

impl Kind {
    /// "Nothing", of this kind, as the beginning of a sentence.
    const fn nothing(self) -> &'static str {
        match self {
            Self::Supervisor => "no [program:…] section of it",
            Self::Systemd => "no ExecStart= of it",
            Self::Uwsgi => "no [uwsgi] section of it",
            Self::Compose => "no command: of its services",
            Self::Procfile | Self::Command => "no command of it",
        }
    }
}
