//! Turns settings and host facts into a plan: which server, how many workers, the exact argv and environment, and
//! why.
//!
//! Pure: nothing here reads a file, the clock or the environment.

mod activation;
mod app;
mod balance;
mod bind;
mod capabilities;
mod common;
mod descriptors;
mod environment;
mod findings;
mod flags;
mod gateway;
mod granian;
mod guard;
mod gunicorn;
mod host_limits;
mod launch;
mod modules;
pub(crate) mod pre_start;
mod request_limit;
mod request_timeout;
mod server;
mod server_args;
mod spin;
mod threads;
mod tls;
mod warm_up;
mod workers;

#[cfg(any(test, fuzzing))]
pub(crate) use gunicorn::fuzzing;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::guard::MaxRequests;
use crate::host::{Environment, Host, Instance, Version};
use crate::problem::Problem;
use crate::settings::checks::STOP_RESERVE;
use crate::settings::value::{Mode, Restart, Server};
use crate::settings::{Overridden, Resolution, Settings};
use crate::tls::Findings as TlsFindings;
pub use balance::Balance;
pub use bind::{Addresses, SocketOwner, addresses};
pub use capabilities::Capabilities;
use common::Common;
pub use descriptors::{Descriptor, Inherited};
use findings::Findings;
use gunicorn::Own;
pub use gunicorn::cmd_args::{Places, places};
use gunicorn::timeout::WorkerTimeout;
use launch::{Launch, Limits};
pub use modules::Module;
use pre_start::PreStart;
pub use request_limit::RequestLimit;
pub use spin::SpinLimit;
pub use tls::{Credentials, Files};
pub use workers::{Basis, Sizing};

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
    pub limit: Option<RequestLimit>,
    /// Where new clients go.
    pub balance: Balance,
    /// What happens to workers that use a processor although they have nothing to do, if anybody looks.
    pub spin: Option<SpinLimit>,
    /// How long a worker may be silent until it is logged where it is, because requests have a time limit.
    pub longest_pause: Option<Duration>,
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
    /// Whose these listening sockets are.
    pub socket_owner: SocketOwner,
    /// Whether it serves TLS there.
    pub tls: bool,
    /// Whether it only speaks HTTP/2 without TLS.
    pub h2c: bool,
    /// The certificate and key that it serves, if we provide them.
    pub credentials: Option<Credentials>,
    /// Files whose change calls for a reload.
    pub watched: Vec<PathBuf>,
    /// A number that changes with their contents.
    pub fingerprint: u64,
    /// Values in files that have no effect, because the environment or the command line takes precedence.
    pub overridden: Vec<Overridden>,
    /// Whether `LISTEN_PID` must be set to its pid.
    pub listen_pid: bool,
    /// What the server can do.
    pub capabilities: Capabilities,
    /// How many workers.
    pub workers: u32,
    /// What that number depends on.
    pub sizing: Sizing,
    /// Whether the launcher stays (supervise mode) or becomes the server (exec mode).
    pub mode: Mode,
    /// The commands that must succeed before the first generation starts.
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
    /// Whether each worker has a listening socket from us. Workers must then report when they are ready.
    #[must_use]
    pub fn lends_to_each_worker(&self) -> bool {
        self.inherits(&Inherited::WorkerListener)
    }

    /// Whether it is the scoreboard that tells when a generation is ready, and no request.
    #[must_use]
    pub fn tells_readiness(&self) -> bool {
        let lends = self.inherits(&Inherited::Listener) || self.lends_to_each_worker();
        lends && self.inherits(&Inherited::Scoreboard) && !self.is_probed()
    }

    /// Whether a generation is to have a socket of its own for probes.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.inherits(&Inherited::ProbeListener)
    }

    fn inherits(&self, what: &Inherited) -> bool {
        self.descriptors.iter().any(|descriptor| descriptor.what == *what)
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

/// How the server is supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When it is restarted.
    pub restart: Restart,
    /// The number of failures at which the launcher gives up, …
    pub restart_limit: u32,
    /// … if they occur within this time.
    pub restart_window: Duration,
    /// The delay before the second respawn in a row.
    pub backoff_initial: Duration,
    /// The longest delay.
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
    /// Whether a worker is replaced if too many of its requests have taken longer than they may, and do not end.
    pub limits_requests: bool,
    /// The path that shows whether the app works.
    pub health_path: String,
    /// The length of the accept queue.
    pub backlog: u32,
    /// Whether [`Plan::tls`] is a guess, because it is only known when the server's configuration file runs.
    pub tls_is_guessed: bool,
}

/// One decision: what was decided, and the reasons.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// What was decided, in one word: `workers`, `server`, `runtime-mode`.
    pub topic: &'static str,
    /// The decision.
    pub decision: String,
    /// Every input, and the one that was decisive.
    pub because: String,
}

/// The files to watch, if any are to be watched.
fn watched(settings: &Settings) -> Vec<PathBuf> {
    if !settings.watch_certs.value || settings.mode.value == Mode::Exec {
        return Vec::new();
    }
    let certificates = if settings.ssl.value { crate::tls::paths(settings) } else { Vec::new() };
    let env_files = settings.env_file.value.0.iter().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
    certificates.into_iter().chain(env_files).collect()
}

fn fingerprint(credentials: Option<&Credentials>, env_files: u64) -> u64 {
    credentials.map_or(env_files, |credentials| credentials.pair.fingerprint.rotate_left(1) ^ env_files)
}

/// Makes the plan. `tls` is what is known about certificates and keys.
///
/// # Errors
/// All problems that prevent it from being carried out. Settings that could not be resolved are not repeated here: they
/// are in [`Resolution::problems`], and have their defaults.
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
    let addresses = bind::bind(resolution, host, server, &own, &mut findings);
    let native = own.workers(app.is_gateway, settings, &mut findings);
    let counts = Server::ALL.map(|server| workers::count(server, settings, host, native.clone()));
    let count = &counts[server as usize];
    let (workers, sizing) = (count.number, count.sizing.clone());
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
    let native_policy = NativePolicy {
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
    host_limits::check(server, settings, host, workers, &mut findings);
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
        balance: launch.balance,
        spin: spin::limit(settings),
        longest_pause: request_timeout::longest_pause(settings),
        program: chosen.program,
        argv: chosen.argv.into_iter().chain(launch.args).collect(),
        env,
        cwd: settings.app_root.value.clone(),
        descriptors: launch.descriptors,
        bind: addresses.first,
        further_binds: addresses.further,
        socket_owner: addresses.owner,
        tls: launch.tls,
        h2c: launch.h2c && !launch.tls,
        fingerprint: fingerprint(launch.credentials.as_ref(), resolution.env_files.fingerprint),
        credentials: launch.credentials,
        watched: watched(settings),
        overridden: resolution.overridden.clone(),
        listen_pid: launch.listen_pid,
        capabilities: launch.capabilities,
        workers,
        sizing,
        mode: settings.mode.value,
        pre_start,
        policy: policy(settings, server, &native_policy, &launch.limits),
        reasons,
        warnings,
    })
}

fn policy(settings: &Settings, server: Server, native: &NativePolicy, limits: &Limits) -> Policy {
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
        worker_timeout: native.worker_timeout,
        workers_max_rss: limits.max_rss,
        workers_lifetime: limits.lifetime,
        max_requests: limits.requests,
        limits_requests: settings.guard.value && !settings.request_timeout.value.is_off(),
        health_path: settings.health_path.value.0.clone(),
        backlog: count(native.backlog.unwrap_or(Common::of(server, settings).backlog.0)),
        tls_is_guessed: native.computes_tls,
    }
}

/// The part of the stop budget that is left for the server, in whole seconds, at least one.
fn grace(settings: &Settings) -> u64 {
    let left = settings.stop_timeout.0.saturating_sub(settings.stop_delay.0).saturating_sub(STOP_RESERVE);
    left.as_secs().max(1)
}

/// What the policy takes from the server's own settings.
#[derive(Debug)]
struct NativePolicy {
    worker_timeout: Option<Duration>,
    backlog: Option<u64>,
    computes_tls: bool,
}

#[cfg(test)]
mod tests;
