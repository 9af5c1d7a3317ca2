//! How Granian is started.
//!
//! Explicit settings are passed as flags. So are our defaults, unless one of Granian's own variables or a server
//! argument sets the same: Granian reads the variable, and the last flag counts.

mod limits;
mod runtime;
mod tls;
mod without_effect;

use std::ffi::OsString;
use std::sync::Arc;

use super::app::AppTarget;
use super::balance::Dealing;
use super::flags::{GRANIAN_OWN_SOCKETS, granian_has, granian_since};
use super::guard::{Around, WorkerSockets};
use super::gunicorn::timeout::WorkerTimeout;
use super::server::install;
use super::threads::Handlers;
use super::{Bind, Findings, Launch, Module};
use super::{capabilities, gateway, request_limit};
use crate::host::{Host, Version};
use crate::problem::{Origin, Problem};
use crate::settings::value::{Http, Server};
use crate::settings::{Resolution, Settings};
use crate::tls::Pair;

/// What the start of Granian depends on.
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

/// Computes the arguments and the changes to the environment.
pub(super) fn launch(inputs: &Inputs, findings: &mut Findings) -> Launch {
    let settings = &inputs.resolution.settings;
    let mut launch = Launch::new(capabilities::granian());
    let mut args = Args { inputs, words: Vec::new(), findings };
    let interface = args.interface();
    args.check_interface();
    args.default_pair("--interface", interface, "GRANIAN_INTERFACE", &[]);
    args.bind();
    args.pair("--workers", inputs.workers);
    let runtime_mode = args.runtime();
    let handlers = args.handlers();
    let event_loop = args.event_loop();
    args.pair("--loop", event_loop);
    let task_impl = args.task_impl();
    args.pair("--http", settings.granian_http.word());
    args.pair("--http1-buffer-size", settings.granian_http1_buffer_size.0);
    args.pair("--backlog", settings.granian_backlog.0);
    let guard = args.guard(handlers, &mut launch);
    args.pair("--backpressure", native_backpressure(settings, guard.is_some()));
    args.pair("--log-level", settings.granian_log_level.word());
    if settings.granian_http1_pipeline_flush.value {
        args.flag("--http1-pipeline-flush");
    }
    args.process_name(guard.is_some());
    if args.interface() != "wsgi" {
        args.default_flag("--ws", "GRANIAN_WEBSOCKETS", &["--no-ws"]);
    }
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
        // Granian calls what it imports if the factory flag is set.
        Some(module) => format!("/{}:{}", module.name, if args.is_native_factory() { "make_app" } else { "app" }),
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
    // Values that we resolved, in canonical form, because Granian reads these too.
    launch.env.push(("GRANIAN_RUNTIME_MODE".into(), Some(runtime_mode.word().into())));
    launch.env.push(("GRANIAN_LOOP".into(), Some(event_loop.word().into())));
    if settings.granian_task_impl.is_explicit() {
        launch.env.push(("GRANIAN_TASK_IMPL".into(), Some(task_impl.word().into())));
    }
    launch
}

/// Granian's own backpressure limits the open connections of a worker. If the guard counts requests, this only protects
/// a worker from being flooded, and must not keep others out because of idle connections.
fn native_backpressure(settings: &Settings, guarded: bool) -> u64 {
    const LEAST: u64 = 1024;
    let backpressure = settings.granian_backpressure.value;
    if guarded {
        (4 * request_limit::most(backpressure)).max(LEAST)
    } else {
        request_limit::without_guard(backpressure)
    }
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
    fn is_set_natively(&self, flag: &str, variable: &str, others: &[&str]) -> bool {
        let Resolution { native, server_args, .. } = self.inputs.resolution;
        let argument = |word: &OsString| {
            let word = word.to_string_lossy();
            let name = word.split('=').next().unwrap_or_default();
            name == flag || others.contains(&name)
        };
        native.iter().any(|native| native.name == variable) || server_args.iter().any(argument)
    }

    fn default_flag(&mut self, flag: &str, variable: &str, others: &[&str]) {
        if !self.is_set_natively(flag, variable, others) {
            self.flag(flag);
        }
    }

    fn default_pair(&mut self, flag: &str, value: impl std::fmt::Display, variable: &str, others: &[&str]) {
        if !self.is_set_natively(flag, variable, others) {
            self.pair(flag, value);
        }
    }

    /// The last value for this from Granian's own variable or a server argument, and which of them it is.
    fn native_value(&self, flag: &str, variable: &str) -> Option<(String, Origin)> {
        let Resolution { native, server_args, .. } = self.inputs.resolution;
        let words: Vec<_> = server_args.iter().map(|word| word.to_string_lossy()).collect();
        let argument = words.iter().enumerate().rev().find_map(|(at, word)| match word.split_once('=') {
            Some((name, value)) if name == flag => Some(value.to_owned()),
            _ if word == flag => words.get(at + 1).map(|value| value.clone().into_owned()),
            _ => None,
        });
        let from_argument = argument.map(|value| (value, Origin::Flag(flag.to_owned())));
        from_argument.or_else(|| {
            let native = native.iter().find(|native| native.name == variable)?;
            Some((native.value.clone(), Origin::Env(variable.to_owned())))
        })
    }

    /// Whether Granian's own variable or a server argument makes it a factory.
    fn is_native_factory(&self) -> bool {
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
    fn guard(&mut self, handlers: Handlers, launch: &mut Launch) -> Option<Module> {
        let inputs = self.inputs;
        let interface = self.interface();
        let has_lifespan = interface != "asginl";
        let obstacle =
            (!["asgi", "asginl", "wsgi"].contains(&&*interface)).then(|| format!("the interface is {interface}"));
        let obstacle = obstacle.or_else(|| Around::obstacle(inputs.host)).or_else(|| self.threads_are_workers());
        let app = AppTarget { factory: inputs.app.factory || self.is_native_factory(), ..inputs.app.clone() };
        let around = Around {
            server: Server::Granian,
            app: &app,
            calls_factories: false,
            worker_class: None,
            wsgi: Some(interface == "wsgi"),
            handlers,
            has_lifespan,
            doubt: None,
            worker_timeout: inputs.worker_timeout.limit,
            bind: inputs.bind,
            is_https: self.serves_tls(),
            sockets: self.worker_sockets(),
            max_requests: self.max_requests(),
            dealing: self.dealing(),
            obstacle,
        };
        launch.guard(around, inputs.resolution, self.findings)
    }

    /// The guard counts the requests of one worker, which has a process of its own.
    fn threads_are_workers(&self) -> Option<String> {
        let interpreter = self.inputs.host.python.interpreter.as_ref()?;
        interpreter
            .is_free_threaded
            .then(|| "this Python has no GIL: Granian's workers are threads of one process".into())
    }

    /// How clients reach the workers.
    fn dealing(&self) -> Dealing {
        match self.worker_sockets() {
            WorkerSockets::Lent { .. } => Dealing::AmongSockets,
            _ if matches!(self.inputs.bind, Bind::Unix(_)) => {
                Dealing::ByKernel("Granian's workers share a Unix socket: the first one to wake up accepts")
            }
            _ if self.spawns() => Dealing::ByKernel("the workers are spawned, and inherit no listening socket"),
            _ => Dealing::ByKernel("the workers of this Granian open their listening sockets themselves"),
        }
    }

    /// How the workers get their listening sockets. Spawned ones inherit nothing, neither a socket nor the channel
    /// through which we would ask for theirs.
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
        if disabled.is_explicit() || !self.is_set_natively(flag, "GRANIAN_LOG_ACCESS_ENABLED", &[other]) {
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
