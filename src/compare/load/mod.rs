//! The load generator: one found on `PATH`, how it is invoked, and how its output is read.

mod oha;
mod wrk;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::options::LoadRequest;
use crate::host::{Environment, Program, find_program};

/// The supported load generators, the better one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// oha reports each response and each failure by kind.
    Oha,
    /// wrk needs less CPU itself, but distinguishes responses only through a script.
    Wrk,
}

/// A load generator that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    /// Which.
    pub kind: Kind,
    /// Its file.
    pub program: PathBuf,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load<'a> {
    /// The address.
    pub address: SocketAddr,
    /// The request.
    pub request: &'a LoadRequest,
    /// This many connections at a time, each of which waits for its response before the next request.
    pub connections: u32,
    /// How long.
    pub duration: Duration,
    /// A client gives up after waiting this long.
    pub patience: Duration,
    /// Whether 503 responses must be distinguished from other failures.
    pub tell_rejected: bool,
}

/// The result of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// How long it lasted.
    pub seconds: f64,
    /// Responses with a status below 400.
    pub answered: u64,
    /// 503 responses; none if they were not distinguished from other failures.
    pub rejected: Option<u64>,
    /// Clients that gave up, or whose response came too late.
    pub timed_out: u64,
    /// All other failures: further statuses of 400 and above, refused or broken connections.
    pub failed: u64,
    /// The median latency in milliseconds; none without responses.
    pub p50_ms: Option<f64>,
    /// The latency that 99 of 100 responses did not exceed.
    pub p99_ms: Option<f64>,
}

/// The command for a load, and its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The program's name first.
    pub argv: Vec<OsString>,
    /// The text of [`SCRIPT`].
    pub script: Option<String>,
}

/// Where the load generator finds its script: a descriptor that it inherits.
pub const SCRIPT: &str = "/proc/self/fd/3";

/// What to do if there is none.
pub const HOW_TO_GET_ONE: &str = "install oha (cargo install oha; brew install oha; \
     https://github.com/hatoo/oha/releases) or wrk (apt-get install wrk; apk add wrk; brew install wrk)";

impl Generator {
    /// Looks for one.
    #[must_use]
    pub fn find(env: &Environment) -> Option<Self> {
        [Kind::Oha, Kind::Wrk].into_iter().find_map(|kind| match find_program(kind.name().as_ref(), env) {
            Program::Found(program) => Some(Self { kind, program }),
            _ => None,
        })
    }

    /// The command for a load.
    #[must_use]
    pub fn command(&self, load: &Load<'_>) -> Command {
        match self.kind {
            Kind::Oha => oha::command(load),
            Kind::Wrk => wrk::command(load),
        }
    }

    /// How long a load of that length takes in total.
    #[must_use]
    pub fn duration(&self, wanted: Duration) -> Duration {
        match self.kind {
            Kind::Oha => wanted,
            Kind::Wrk => wrk::whole_seconds(wanted),
        }
    }

    /// Reads its output.
    ///
    /// # Errors
    /// If the output is not understood.
    pub fn read(&self, output: &str) -> Result<Outcome, String> {
        let read = match self.kind {
            Kind::Oha => oha::read(output),
            Kind::Wrk => wrk::read(output),
        };
        read.ok_or_else(|| {
            let first = output.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            format!("unexpected output from {}: {first}", self.kind.name())
        })
    }

    /// The argument that makes it print its version.
    #[must_use]
    pub const fn version_flag(&self) -> &'static str {
        match self.kind {
            Kind::Oha => "--version",
            Kind::Wrk => "-v",
        }
    }

    /// Name and version, from its own output: `oha 1.16.0`, `wrk debian/4.1.0-3+b2 [epoll] Copyright …`.
    #[must_use]
    pub fn name_with_version(&self, said: &str) -> String {
        let mut words = said.split_ascii_whitespace();
        let name = self.kind.name();
        match (words.next(), words.next()) {
            (Some(first), Some(version)) if first == name => format!("{name} {version}"),
            _ => name.to_owned(),
        }
    }
}

impl Kind {
    /// The name of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oha => "oha",
            Self::Wrk => "wrk",
        }
    }
}

/// `http://ADDRESS/PATH`.
fn url(load: &Load<'_>) -> OsString {
    format!("http://{}{}", load.address, load.request.path).into()
}

/// The program's own name, as the first argument.
fn name(kind: Kind) -> OsString {
    Path::new(kind.name()).into()
}
