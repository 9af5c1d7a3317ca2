//! Turns settings and host facts into a plan: which server, how many workers, the exact argv and environment, and
//! why.
//!
//! Pure: nothing here reads a file, the clock or the environment.

mod app;
mod balance;
mod bind;
mod capabilities;
mod common;
mod environment;
mod findings;
mod flags;
mod gateway;
mod granian;
mod guard;
mod gunicorn;
mod launch;
mod modules;
pub(crate) mod pre_start;
mod server;
mod server_args;
mod surroundings;
mod tls;
mod workers;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::guard::MaxRequests;
use crate::host::{Environment, Host, Instance, Version};
use crate::problem::Problem;
use crate::settings::checks::STOP_RESERVE;
use crate::settings::value::{Mode, Restart, Server};
use crate::settings::{Resolution, Settings};
use crate::tls::Findings as TlsFindings;
pub use bind::{Addresses, addresses};
pub use capabilities::Capabilities;
use common::Common;
use findings::Findings;
use gunicorn::Own;
pub use gunicorn::cmd_args::{Places, places};
use gunicorn::timeout::WorkerTimeout;
use launch::{Launch, Limits};
pub use modules::Module;
use pre_start::PreStart;
pub use tls::{Credentials, Files};

/// What will be run, and how it will be supervised.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub server: Server,
    /// Its version, if known.
    pub version: Option<Version>,
    /// The application, attribute included.
    pub app: String,
    /// What the server imports: the application, or the guard around it.
    pub target: String,
    /// How many requests in flight the guard allows per worker.
    pub limit: Option<u64>,
    /// The file to execute.
    pub program: PathBuf,
    /// Its arguments, the program's name first.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Environment,
    /// Its working directory, if it differs from ours.
    pub cwd: Option<PathBuf>,
    /// Descriptors that it inherits, at the numbers that `argv` and `env` name.
    pub descriptors: Vec<Descriptor>,
    /// Where it listens: what is probed and named.
    pub bind: Bind,
    /// Where it listens as well.
    pub further_binds: Vec<Bind>,
    /// Whether it serves TLS there.
    pub tls: bool,
    /// Whether it only speaks HTTP/2 without TLS.
    pub h2c: bool,
    /// The certificate and key that it serves, if we provide them.
    pub credentials: Option<Credentials>,
    /// Files whose change calls for a reload.
    pub watched: Vec<PathBuf>,
    /// Whether `LISTEN_PID` must be set to its pid.
    pub listen_pid: bool,
    /// What the server can do.
    pub capabilities: Capabilities,
    /// How many workers.
    pub workers: u32,
    /// Whether we stay.
    pub mode: Mode,
    /// What must succeed before the first generation.
    pub pre_start: Vec<PreStart>,
    /// How it is supervised.
    pub policy: Policy,
    /// Why the plan is what it is, for `explain` and the start log.
    pub reasons: Vec<Reason>,
    /// Warnings: what is odd but does not prevent the start.
    pub warnings: Vec<String>,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// An address; port 0 is replaced when the port is taken.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Plan {
    /// Whether each worker has a listening socket from us. Workers must tell when they are ready then.
    #[must_use]
    pub fn lends_to_each_worker(&self) -> bool {
        self.descriptors.iter().any(|descriptor| descriptor.what == Inherited::WorkerListener)
    }
}

impl Bind {
    /// The launcher that serves there.
    #[must_use]
    pub fn instance(&self) -> Instance {
        match self {
            Self::Tcp(address) => Instance::tcp(*address),
            Self::Unix(path) => Instance::unix(path),
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A descriptor that the server inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in the server.
    pub number: i32,
    /// What it is.
    pub what: Inherited,
}

/// What can be inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inherited {
    /// The listening socket for [`Plan::bind`], which all workers share.
    Listener,
    /// A listening socket for [`Plan::bind`] that one worker has for itself: the first of these is the first worker's.
    WorkerListener,
    /// A listening socket for the one of [`Plan::further_binds`] with this index.
    FurtherListener(usize),
    /// A private listening socket of this generation: a response there comes from this generation.
    ProbeListener,
    /// A memory file with the chain and the key of [`Plan::credentials`].
    Pair,
    /// A memory file with the CA certificates for verifying clients.
    Authority,
    /// A memory file with Python modules, importable through a path entry (a zip archive).
    Modules(Vec<Module>),
    /// The [scoreboard](crate::guard::scoreboard) of the generation.
    Scoreboard,
    /// The end of a pipe through which a worker wakes the launcher, which then looks at the scoreboard.
    Wakeup,
    /// The workers' end of the channel through which we borrow copies of their listening sockets.
    BorrowedSockets,
}

impl Inherited {
    /// Whether it is a socket at which clients of [`Plan::bind`] arrive.
    #[must_use]
    pub const fn is_public_listener(&self) -> bool {
        matches!(self, Self::Listener | Self::WorkerListener)
    }
}

/// How the server is supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When it is restarted.
    pub restart: Restart,
    /// Failures that are one too many …
    pub restart_limit: u32,
    /// … in this time.
    pub restart_window: Duration,
    /// The delay before the second respawn in a row.
    pub backoff_initial: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Keep serving for this long after a stop signal.
    pub stop_delay: Duration,
    /// From the stop signal until everything has ended.
    pub stop_timeout: Duration,
    /// From start to ready.
    pub startup_timeout: Duration,
    /// How long the event loop of a worker may be silent, if that is monitored.
    pub worker_timeout: Option<Duration>,
    /// Resident memory in bytes above which we replace a worker.
    pub workers_max_rss: Option<u64>,
    /// Age above which we replace a worker.
    pub workers_lifetime: Option<Duration>,
    /// Requests after which we replace a worker.
    pub max_requests: Option<MaxRequests>,
    /// The path that shows whether the app works.
    pub health_path: String,
    /// The length of the accept queue.
    pub backlog: u32,
    /// Whether [`Plan::tls`] is a guess, because only running the server's configuration file tells.
    pub tls_is_guessed: bool,
}

/// One decision: what was decided and what it follows from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// What was decided, in one word: `workers`, `server`, `runtime-mode`.
    pub topic: &'static str,
    /// The decision.
    pub decision: String,
    /// Every input, and the one that was decisive.
    pub because: String,
}

/// Makes the plan. `tls` is what was found out about certificates and keys.
///
/// # Errors
/// Everything that prevents it from being carried out, together. Settings that could not be resolved are not repeated
/// here: they are in [`Resolution::problems`], and have their defaults.
pub fn plan(resolution: &Resolution, host: &Host, tls: &TlsFindings) -> Result<Plan, Vec<Problem>> {
    let settings = &resolution.settings;
    let mut findings = Findings::default();
    if let Some(root) = &host.left_app_root {
        let because =
            format!("the app is here and not in app_root = {} (from {})", root.display(), settings.app_root.origin);
        findings.decide("working-directory", "the current directory", because);
    }
    let chosen = server::choose(settings, host, &mut findings);
    let (server, version) = (chosen.server, chosen.version);
    let own = Own::read(resolution, host, server, &mut findings);
    let app = app::target(&own.app(settings, &mut findings), &host.app, server, &mut findings);
    let addresses = bind::bind(resolution, server, &own, &mut findings);
    let told = own.workers(app.is_gateway, settings, &mut findings);
    let counts = Server::ALL.map(|server| workers::count(server, settings, host, told.clone()));
    let count = &counts[server as usize];
    let workers = count.number;
    count.report(&mut findings);
    let worker_timeout = match server {
        Server::Gunicorn => gunicorn::timeout::worker_timeout(settings, &own, &mut findings),
        Server::Granian => WorkerTimeout::ours(settings, settings.granian_dev_mode.value),
    };
    server_args::check(server, &resolution.server_args, &mut findings);
    tls::judge(settings, tls, &mut findings);

    let inputs = environment::Inputs {
        resolution,
        host,
        server,
        app: &app,
        bind: &addresses.first,
        counts: counts.map(|count| count.number),
    };
    let told_policy = ToldPolicy {
        worker_timeout: worker_timeout.limit,
        backlog: own.backlog(settings),
        computes_tls: own.computes_tls(settings),
    };
    let mut env = environment::environment(&inputs, &mut findings);
    let pre_start = pre_start::steps(settings, host, &env, &mut findings);
    let (app, pair) = (&app, tls.pair.as_ref());
    let launch = match server {
        Server::Gunicorn => {
            let (addresses, worker_timeout) = (&addresses, &worker_timeout);
            let inputs =
                gunicorn::Inputs { resolution, host, version, app, addresses, workers, own, worker_timeout, pair };
            gunicorn::launch(inputs, &mut findings)
        }
        Server::Granian => {
            let (bind, worker_timeout) = (&addresses.first, &worker_timeout);
            let inputs = granian::Inputs { resolution, host, version, app, bind, workers, worker_timeout, pair };
            granian::launch(&inputs, &mut findings)
        }
    };
    for (name, value) in launch.env {
        match value {
            Some(value) => env.insert(name, value),
            None => env.remove(&name),
        };
    }
    if app.is_gateway {
        gateway::warn(settings, &env, workers, &mut findings);
    }
    surroundings::check(server, settings, host, workers, &mut findings);
    worker_timeout.report(launch.target != app.text, &mut findings);

    let Findings { problems, warnings, reasons } = findings;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Plan {
        server,
        version,
        app: app.text.clone(),
        target: launch.target,
        limit: launch.limit,
        program: chosen.program,
        argv: chosen.argv.into_iter().chain(launch.args).collect(),
        env,
        cwd: settings.app_root.value.clone(),
        descriptors: launch.descriptors,
        bind: addresses.first,
        further_binds: addresses.further,
        tls: launch.tls,
        h2c: launch.h2c && !launch.tls,
        credentials: launch.credentials,
        watched: tls::watched(settings),
        listen_pid: launch.listen_pid,
        capabilities: launch.capabilities,
        workers,
        mode: settings.mode.value,
        pre_start,
        policy: policy(settings, server, &told_policy, &launch.limits),
        reasons,
        warnings,
    })
}

fn policy(settings: &Settings, server: Server, told: &ToldPolicy, limits: &Limits) -> Policy {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Policy {
        restart: settings.restart.value,
        restart_limit: count(settings.restart_limit.0),
        restart_window: settings.restart_window.0,
        backoff_initial: settings.backoff_initial.0,
        backoff_max: settings.backoff_max.0,
        stop_delay: settings.stop_delay.0,
        stop_timeout: settings.stop_timeout.0,
        startup_timeout: settings.startup_timeout.0,
        worker_timeout: told.worker_timeout,
        workers_max_rss: limits.max_rss,
        workers_lifetime: limits.lifetime,
        max_requests: limits.requests,
        health_path: settings.health_path.value.0.clone(),
        backlog: count(told.backlog.unwrap_or(Common::of(server, settings).backlog.0)),
        tls_is_guessed: told.computes_tls,
    }
}

/// The part of the stop budget that is left to the server, in whole seconds, at least one.
fn grace(settings: &Settings) -> u64 {
    let left = settings.stop_timeout.0.saturating_sub(settings.stop_delay.0).saturating_sub(STOP_RESERVE);
    left.as_secs().max(1)
}

/// What the policy takes from what the user tells the server itself.
#[derive(Debug)]
struct ToldPolicy {
    worker_timeout: Option<Duration>,
    backlog: Option<u64>,
    computes_tls: bool,
}

#[cfg(test)]
mod tests;
