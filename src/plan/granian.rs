//! How Granian is started.
//!
//! Explicit settings are passed as flags. So are our defaults, unless one of Granian's own variables or a server
//! argument sets the same: Granian reads the variable, and the last flag counts.

mod tls;
mod without_effect;

use std::ffi::OsString;
use std::sync::Arc;

use super::app::AppTarget;
use super::flags::{GRANIAN_OWN_SOCKETS, GRANIAN_RLOOP, granian_has, granian_since};
use super::guard::{Around, WorkerSockets};
use super::gunicorn::timeout::WorkerTimeout;
use super::server::install;
use super::{Bind, Findings, Launch, Limits, Module, grace};
use super::{capabilities, gateway};
use crate::host::{Host, Interface, Version};
use crate::problem::Problem;
use crate::settings::value::{Http, Loop, Mode, RuntimeMode, Server, TaskImpl};
use crate::settings::{Resolution, Settings};
use crate::tls::Pair;

/// What Granian's start depends on.
pub(super) struct Inputs<'a> {
    pub resolution: &'a Resolution,
    pub host: &'a Host,
    pub version: Option<Version>,
    pub app: &'a AppTarget,
    pub bind: &'a Bind,
    pub workers: u32,
    pub worker_timeout: &'a WorkerTimeout,
    pub pair: Option<&'a Arc<Pair>>,
}

/// With more workers than this, they share their work better between threads than they do alone.
const MOST_SINGLE_THREADED: u32 = 8;
/// Granian's limits for `--workers-kill-timeout`, in seconds.
const KILL_TIMEOUT: std::ops::RangeInclusive<u64> = 1..=1800;
/// Granian's minimum for `--workers-lifetime`, in seconds.
const SHORTEST_LIFETIME: u64 = 60;

const RESPAWN: &str = "--respawn-failed-workers";
const NO_RESPAWN: &str = "--no-respawn-failed-workers";

/// Computes the arguments and the changes to the environment.
pub(super) fn launch(inputs: &Inputs, findings: &mut Findings) -> Launch {
    let settings = &inputs.resolution.settings;
    let mut launch = Launch::new(capabilities::granian());
    let mut args = Args { inputs, words: Vec::new(), findings };
    let interface = args.interface();
    args.default_pair("--interface", interface, "GRANIAN_INTERFACE", &[]);
    args.bind();
    args.pair("--workers", inputs.workers);
    let runtime_mode = args.runtime();
    args.blocking_threads();
    let event_loop = args.event_loop();
    args.pair("--loop", event_loop);
    let task_impl = args.task_impl();
    args.pair("--http", settings.granian_http.word());
    args.pair("--http1-buffer-size", settings.granian_http1_buffer_size.0);
    args.pair("--backlog", settings.granian_backlog.0);
    let guard = args.guard(&mut launch);
    args.pair("--backpressure", native_backpressure(settings, guard.is_some()));
    args.pair("--log-level", settings.granian_log_level.word());
    if settings.granian_http1_pipeline_flush.value {
        args.flag("--http1-pipeline-flush");
    }
    args.process_name(guard.is_some());
    args.default_flag("--ws", "GRANIAN_WEBSOCKETS", &["--no-ws"]);
    let respawns = args.respawning();
    let limits = args.limits(respawns);
    args.access_log();
    let withheld = args.without_effect();
    launch.env.extend(withheld.into_iter().map(|name| (name.into(), None)));
    if settings.granian_dev_mode.value {
        args.reload();
    }
    launch.tls = args.tls(&mut launch);
    args.http_2_in_clear(launch.tls);
    launch.target = match &guard {
        // Granian calls what it imports if it is told that it is a factory.
        Some(module) => format!("/{}:{}", module.name, if args.is_told_factory() { "make_app" } else { "app" }),
        None => inputs.app.text.clone(),
    };
    if inputs.app.factory && guard.is_none() {
        args.flag("--factory");
    }
    launch.carry(guard.into_iter().collect(), inputs.resolution);
    args.words.push(launch.target.clone().into());
    args.words.extend(inputs.resolution.server_args.iter().cloned());
    launch.args = args.words;
    launch.h2c = settings.granian_http.value == Http::V2;
    if let Some(limits) = limits {
        launch.limits = limits;
        for name in ["GRANIAN_WORKERS_LIFETIME", "GRANIAN_WORKERS_MAX_RSS"] {
            launch.env.push((name.into(), None));
        }
    }
    // Values that we resolved, in canonical form: Granian reads these too.
    launch.env.push(("GRANIAN_RUNTIME_MODE".into(), Some(runtime_mode.word().into())));
    launch.env.push(("GRANIAN_LOOP".into(), Some(event_loop.word().into())));
    if settings.granian_task_impl.is_explicit() {
        launch.env.push(("GRANIAN_TASK_IMPL".into(), Some(task_impl.word().into())));
    }
    launch
}

/// Granian's own backpressure limits the open connections of a worker. If the guard counts requests, this only
/// protects a worker from being flooded, and idle connections must not keep others out.
fn native_backpressure(settings: &Settings, guarded: bool) -> u64 {
    const LEAST: u64 = 1024;
    let limit = settings.granian_backpressure.value.0;
    if guarded { (4 * limit).max(LEAST) } else { limit }
}

/// The arguments under construction.
struct Args<'a> {
    inputs: &'a Inputs<'a>,
    words: Vec<OsString>,
    findings: &'a mut Findings,
}

impl Args<'_> {
    fn settings(&self) -> &Settings {
        &self.inputs.resolution.settings
    }

    fn has(&self, flag: &str) -> bool {
        granian_has(flag, self.inputs.version)
    }

    fn flag(&mut self, flag: &str) {
        self.words.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl std::fmt::Display) {
        self.words.extend([flag.into(), value.to_string().into()]);
    }

    /// Whether one of Granian's own variables or a server argument sets this.
    fn is_told(&self, flag: &str, variable: &str, others: &[&str]) -> bool {
        let Resolution { native, server_args, .. } = self.inputs.resolution;
        let argument = |word: &OsString| {
            let word = word.to_string_lossy();
            let name = word.split('=').next().unwrap_or_default();
            name == flag || others.contains(&name)
        };
        native.iter().any(|native| native.name == variable) || server_args.iter().any(argument)
    }

    fn default_flag(&mut self, flag: &str, variable: &str, others: &[&str]) {
        if !self.is_told(flag, variable, others) {
            self.flag(flag);
        }
    }

    fn default_pair(&mut self, flag: &str, value: impl std::fmt::Display, variable: &str, others: &[&str]) {
        if !self.is_told(flag, variable, others) {
            self.pair(flag, value);
        }
    }

    /// The last value for this from Granian's own variable or a server argument.
    fn told(&self, flag: &str, variable: &str) -> Option<String> {
        let Resolution { native, server_args, .. } = self.inputs.resolution;
        let words: Vec<_> = server_args.iter().map(|word| word.to_string_lossy()).collect();
        let argument = words.iter().enumerate().rev().find_map(|(at, word)| match word.split_once('=') {
            Some((name, value)) if name == flag => Some(value.to_owned()),
            _ if word == flag => words.get(at + 1).map(|value| value.clone().into_owned()),
            _ => None,
        });
        argument.or_else(|| native.iter().find(|native| native.name == variable).map(|native| native.value.clone()))
    }

    /// Whether Granian is told that what it imports is a factory.
    fn is_told_factory(&self) -> bool {
        let Resolution { native, server_args, .. } = self.inputs.resolution;
        let argument = server_args.iter().rev().find_map(|word| match word.to_str() {
            Some("--factory") => Some(true),
            Some("--no-factory") => Some(false),
            _ => None,
        });
        argument.unwrap_or_else(|| {
            let variable = native.iter().find(|native| native.name == "GRANIAN_FACTORY");
            let yes = |value: &str| ["1", "true", "t", "yes", "y", "on"].contains(&value);
            variable.is_some_and(|variable| yes(&variable.value.trim().to_ascii_lowercase()))
        })
    }

    /// The guard's module, if it can be used.
    fn guard(&mut self, launch: &mut Launch) -> Option<Module> {
        let inputs = self.inputs;
        let interface = self.interface();
        let has_lifespan = interface != "asginl";
        let obstacle = (interface != "asgi" && has_lifespan).then(|| format!("the interface is {interface}"));
        let obstacle = obstacle.or_else(|| Around::obstacle(inputs.host));
        let app = AppTarget { factory: inputs.app.factory || self.is_told_factory(), ..inputs.app.clone() };
        let around = Around {
            server: Server::Granian,
            app: &app,
            calls_factories: false,
            worker_class: None,
            has_lifespan,
            doubt: None,
            worker_timeout: inputs.worker_timeout.limit,
            sockets: self.worker_sockets(),
            obstacle,
        };
        launch.guard(around, inputs.resolution, self.findings)
    }

    /// How the workers come to their listening sockets. Spawned ones inherit nothing, neither a socket nor the channel
    /// through which we would ask them for theirs.
    fn worker_sockets(&self) -> WorkerSockets {
        let inputs = self.inputs;
        let fits = inputs.version.is_some_and(|version| version >= GRANIAN_OWN_SOCKETS);
        match inputs.bind {
            Bind::Tcp(_) if self.spawns() => WorkerSockets::Shared,
            Bind::Tcp(_) if fits && self.settings().balance.value => {
                let backlog = u32::try_from(self.settings().granian_backlog.value.0).unwrap_or(u32::MAX);
                WorkerSockets::Lent { workers: inputs.workers, backlog }
            }
            Bind::Tcp(_) => WorkerSockets::Own,
            Bind::Unix(_) => WorkerSockets::Shared,
        }
    }

    /// Whether workers are spawned instead of forked: Granian uses Python's default, which is to spawn from 3.14 on.
    fn spawns(&self) -> bool {
        let interpreter = self.inputs.host.python.interpreter.as_ref();
        interpreter.and_then(|interpreter| interpreter.version).is_none_or(|version| version >= (3, 14))
    }

    /// The name in process lists. Granian's default is the name of what it imports, which would be the guard.
    fn process_name(&mut self, guarded: bool) {
        let inputs = self.inputs;
        if !inputs.host.python.packages.contains_key("setproctitle") {
            return;
        }
        let own = || {
            let interface = self.interface();
            let address = match inputs.bind {
                Bind::Tcp(address) => address.to_string(),
                Bind::Unix(path) => format!("unix:{}", path.display()),
            };
            format!("granian {interface} {address} {}", inputs.app.text)
        };
        let name = match (inputs.app.is_gateway, guarded) {
            (true, _) => gateway::PROCESS_NAME.to_owned(),
            (false, true) => own(),
            (false, false) => return,
        };
        self.default_pair("--process-name", name, "GRANIAN_PROCESS_NAME", &[]);
    }

    /// The version, and when the flag was added, for messages.
    fn lacks(&self, flag: &str) -> String {
        let version = self.inputs.version.map_or_else(String::new, |version| format!(" {version}"));
        let since = granian_since(flag).map_or_else(String::new, |since| format!(", which came with {since}"));
        format!("granian{version} has no {flag}{since}")
    }

    fn bind(&mut self) {
        match self.inputs.bind {
            Bind::Tcp(address) => {
                self.pair("--host", address.ip());
                self.pair("--port", address.port());
            }
            Bind::Unix(path) => {
                if !self.has("--uds") {
                    let message = format!("a Unix socket needs a newer Granian: {}", self.lacks("--uds"));
                    let hint = install(&self.inputs.host.python, "-U granian");
                    self.findings.problem(Problem::setting(message, &self.settings().uds.origin).hint(hint));
                }
                self.words.extend(["--uds".into(), path.into()]);
            }
        }
    }

    fn runtime(&mut self) -> RuntimeMode {
        let (setting, threads) = (&self.settings().granian_runtime_mode, &self.settings().granian_runtime_threads);
        let (threads_given, threads, workers) = (threads.is_explicit(), threads.value.0, self.inputs.workers);
        let (mode_given, value, origin) = (setting.is_explicit(), setting.value, setting.origin.to_string());
        let (mode, because) = match value {
            RuntimeMode::Auto if workers > MOST_SINGLE_THREADED => {
                (RuntimeMode::Mt, format!("auto: {workers} workers are more than {MOST_SINGLE_THREADED}"))
            }
            RuntimeMode::Auto => {
                (RuntimeMode::St, format!("auto: {workers} workers are not more than {MOST_SINGLE_THREADED}"))
            }
            mode => (mode, origin),
        };
        self.findings.decide("runtime-mode", mode.word(), because);
        if self.has("--runtime-mode") {
            self.pair("--runtime-mode", mode.word());
            self.pair("--runtime-threads", threads);
        } else {
            // The same under its older name.
            let old = if mode == RuntimeMode::Mt { "runtime" } else { "workers" };
            let told_mode = !mode_given && self.is_told("--threading-mode", "GRANIAN_THREADING_MODE", &[]);
            let told_threads = !threads_given && self.is_told("--threads", "GRANIAN_THREADS", &[]);
            if !told_mode {
                self.pair("--threading-mode", old);
            }
            if !told_threads {
                self.pair("--threads", threads);
            }
        }
        mode
    }

    /// The protocol between Granian and the app: the one that is asked for, else the app's own if its text tells.
    fn interface(&self) -> String {
        let is_wsgi = super::app::interface(self.inputs.app, self.inputs.host) == Some(Interface::Wsgi);
        let own = if is_wsgi { "wsgi" } else { "asgi" };
        self.told("--interface", "GRANIAN_INTERFACE").unwrap_or_else(|| own.to_owned())
    }

    /// An ASGI app is called in the event loop, and Granian ends with an error if it is given more threads than that.
    fn blocking_threads(&mut self) {
        let threads = self.settings().granian_blocking_threads.clone();
        let is_wsgi = self.interface().eq_ignore_ascii_case("wsgi");
        if is_wsgi && !threads.is_explicit() {
            return;
        }
        if threads.value.0 != 1 && !is_wsgi {
            let message = format!("blocking_threads = {} does not work with an ASGI app", threads.value.0);
            self.findings.problem(Problem::setting(message, &threads.origin).hint("use 1, or remove it"));
        }
        self.pair("--blocking-threads", threads.value.0);
    }

    fn event_loop(&mut self) -> Loop {
        let python = &self.inputs.host.python;
        let setting = self.settings().granian_loop.clone();
        let wanted = setting.value;
        let package = match wanted {
            Loop::Uvloop => "uvloop",
            Loop::Rloop => "rloop",
            Loop::Asyncio | Loop::Auto => return wanted,
        };
        if wanted == Loop::Rloop && self.inputs.version.is_some_and(|version| version < GRANIAN_RLOOP) {
            let message = format!("rloop needs granian {GRANIAN_RLOOP} or newer");
            let problem = Problem::setting(message, &setting.origin).hint(install(python, "-U 'granian[rloop]'"));
            self.findings.problem(problem);
        }
        // Without an interpreter we cannot know what is installed.
        if python.interpreter.is_none() || python.packages.contains_key(package) {
            return wanted;
        }
        let command = install(python, &format!("'granian[{package}]'"));
        if setting.is_explicit() {
            let message = format!("loop = {wanted} needs {package}, which is not installed");
            self.findings.problem(Problem::setting(message, &setting.origin).hint(command));
            return wanted;
        }
        self.findings
            .warn(format!("{package} is not installed, so the event loop is asyncio, which is slower; {command}"));
        self.findings.decide("loop", Loop::Asyncio.word(), format!("{package} is not installed"));
        Loop::Asyncio
    }

    fn task_impl(&mut self) -> TaskImpl {
        let setting = self.settings().granian_task_impl.clone();
        let python = self.inputs.host.python.interpreter.as_ref().and_then(|interpreter| interpreter.version);
        let mut task_impl = setting.value;
        if task_impl == TaskImpl::Auto {
            self.findings.warn(format!(
                "task_impl = auto (from {}) is not an option of this Granian; using asyncio",
                setting.origin
            ));
            task_impl = TaskImpl::Asyncio;
        }
        if task_impl == TaskImpl::Rust && python.is_some_and(|version| version >= (3, 12)) {
            self.findings.warn(format!(
                "task_impl = rust (from {}) does not work on Python 3.12 and later; using asyncio",
                setting.origin
            ));
            task_impl = TaskImpl::Asyncio;
        } else if task_impl == TaskImpl::Rust {
            self.findings.warn(format!(
                "task_impl = rust (from {}) breaks FastAPI apps: their plain def endpoints return 500",
                setting.origin
            ));
        }
        if self.has("--task-impl") {
            self.pair("--task-impl", task_impl.word());
        } else if self.has("--opt") {
            self.flag(if task_impl == TaskImpl::Rust { "--opt" } else { "--no-opt" });
        }
        task_impl
    }

    /// What happens when workers end: whether Granian starts others.
    fn respawning(&mut self) -> bool {
        let settings = self.settings();
        let respawn = settings.granian_respawn_failed.clone();
        let kill_timeout = grace(settings).clamp(*KILL_TIMEOUT.start(), *KILL_TIMEOUT.end());
        let told = self.is_told(RESPAWN, "GRANIAN_RESPAWN_FAILED_WORKERS", &[NO_RESPAWN]);
        match (respawn.value, respawn.is_explicit()) {
            (true, true) => self.flag(RESPAWN),
            (true, false) if !told => self.flag(RESPAWN),
            // Without a flag it is off.
            (false, true) if told => self.flag(NO_RESPAWN),
            _ => {}
        }
        if self.has("--workers-kill-timeout") {
            self.default_pair("--workers-kill-timeout", kill_timeout, "GRANIAN_WORKERS_KILL_TIMEOUT", &[]);
        }
        respawn.value && (respawn.is_explicit() || !told) && !self.reloads()
    }

    /// What happens to workers that have become too large or too old. We enforce the limits ourselves, unless Granian
    /// ends as soon as one worker does.
    fn limits(&mut self, respawns: bool) -> Option<Limits> {
        let settings = self.settings();
        if self.reloads() {
            let limits = [
                settings.granian_workers_max_rss.value.is_some().then_some("workers_max_rss"),
                settings.granian_workers_lifetime.value.is_some().then_some("workers_lifetime"),
            ];
            for name in limits.into_iter().flatten() {
                self.findings.warn(format!("{name} has no effect while Granian reloads when the code changes"));
            }
            return None;
        }
        if respawns && settings.mode.value == Mode::Supervise {
            let (max_rss, lifetime) = (&settings.granian_workers_max_rss, &settings.granian_workers_lifetime);
            return Some(Limits::new(max_rss.value, lifetime.value));
        }
        self.own_limits();
        None
    }

    /// Whether Granian reloads when the code changes; it then ends as soon as a worker does.
    fn reloads(&self) -> bool {
        self.settings().granian_dev_mode.value || self.is_told("--reload", "GRANIAN_RELOAD", &[])
    }

    /// Granian enforces the limits itself.
    fn own_limits(&mut self) {
        let settings = self.settings();
        let (max_rss, lifetime) =
            (settings.granian_workers_max_rss.clone(), settings.granian_workers_lifetime.clone());
        if let Some(wanted) = lifetime.value {
            let seconds = wanted.0.max(SHORTEST_LIFETIME);
            if seconds > wanted.0 {
                self.findings.warn(format!(
                    "workers_lifetime = {} (from {}) is raised to at least {seconds} s where Granian enforces it itself",
                    wanted.0, lifetime.origin
                ));
            }
            self.pair("--workers-lifetime", seconds);
        }
        if let Some(limit) = max_rss.value {
            if self.has("--workers-max-rss") {
                self.pair("--workers-max-rss", limit.mebibytes());
            } else {
                let lacks = self.lacks("--workers-max-rss");
                self.findings.warn(format!("workers_max_rss (from {}) has no effect: {lacks}", max_rss.origin));
            }
        }
    }

    fn http_2_in_clear(&mut self, tls: bool) {
        let http = &self.settings().granian_http;
        if http.value == Http::V2 && !tls {
            let warning = format!(
                "http = 2 (from {}) without TLS: browsers and probes use HTTP/1 without TLS; use auto, or set SSL=true",
                http.origin
            );
            self.findings.warn(warning);
        }
    }

    fn access_log(&mut self) {
        let disabled = &self.settings().disable_access_log;
        let (flag, other) =
            if disabled.value { ("--no-access-log", "--access-log") } else { ("--access-log", "--no-access-log") };
        if disabled.is_explicit() || !self.is_told(flag, "GRANIAN_LOG_ACCESS_ENABLED", &[other]) {
            self.flag(flag);
        }
    }

    fn reload(&mut self) {
        let python = &self.inputs.host.python;
        if python.interpreter.is_some() && !python.packages.contains_key("watchfiles") {
            let message = "dev mode needs watchfiles, which is not installed";
            let hint = install(python, "'granian[reload]'");
            let problem = Problem::setting(message, &self.settings().granian_dev_mode.origin).hint(hint);
            self.findings.problem(problem);
        }
        self.flag("--reload");
    }
}

#[cfg(test)]
#[path = "granian_tests.rs"]
mod tests;
