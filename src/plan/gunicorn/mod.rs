//! How Gunicorn is started.
//!
//! Precedence: explicit settings > `GUNICORN_CMD_ARGS` > the user's configuration file > our defaults. Explicit
//! settings are flags. Defaults are flags too, unless `GUNICORN_CMD_ARGS` sets something else; if the user has a file,
//! they go into a generated module that runs the file after them.
//!
//! In supervise mode, sockets are passed by `LISTEN_FDS`, as systemd does it: Gunicorn takes the descriptors from 3 on,
//! ignores every address and unlinks nothing. The addresses are passed as `--bind` all the same, so that hooks and the
//! log show them instead of descriptors.

pub(super) mod address;
mod arguments;
pub(super) mod cmd_args;
mod directive;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grace;
mod module;
mod overridden;
mod own;
mod preload;
mod sockets;
mod threads;
pub(super) mod timeout;
mod tls;
mod worker_class;

use std::ffi::OsString;
use std::sync::Arc;

use super::app::AppTarget;
use super::bind::Addresses;
use super::capabilities;
use super::flags::{GUNICORN_NETWORKS, gunicorn_has};
use super::guard::{Around, WorkerSockets};
use super::threads::Handlers;
use super::{Bind, Descriptor, Findings, Inherited, Launch, Limits, Module, grace};
use crate::guard::MaxRequests;
use crate::host::{Host, Version};
use crate::problem::{Origin, Problem};
use crate::settings::value::{Mode, Server};
use crate::settings::{Resolution, Setting, Settings};
use crate::tls::Pair;
pub(super) use arguments::parse;
use directive::{Directive, Python};
use module::Base;
pub(super) use own::Own;
use own::UserFile;
use timeout::WorkerTimeout;

/// What the start of Gunicorn depends on.
pub(super) struct Inputs<'a> {
    pub resolution: &'a Resolution,
    pub host: &'a Host,
    pub version: Option<Version>,
    pub app: &'a AppTarget,
    pub addresses: &'a Addresses,
    pub workers: u32,
    pub own: Own<'a>,
    pub worker_timeout: &'a WorkerTimeout,
    pub pair: Option<&'a Arc<Pair>>,
}

/// Determines the arguments, the descriptors and the changes to the environment.
pub(super) fn launch(inputs: Inputs, findings: &mut Findings) -> Launch {
    let Inputs { resolution, host, version, app, addresses, workers, mut own, worker_timeout, pair } = inputs;
    let settings = &resolution.settings;
    let mut launch = Launch::new(capabilities::gunicorn());
    launch.args.extend(["--workers".into(), workers.to_string().into()]);

    let class = class(settings, host, version, app, &own, findings);
    let preload = preload::decide(settings, &own, app.is_gateway, class.known.as_deref(), findings);
    // Nothing in the main process starts child processes of its own.
    launch.capabilities.all_children_are_workers = !preload.is_on && own.file.is_none();
    let mut directives = directives(settings, host, version, &own, findings);
    directives.extend(class.directive.iter().cloned().chain(preload.directives));
    let (handlers, threads) = threads::decide(settings, &own, class.known.as_deref(), findings);
    directives.extend(threads);
    grace::export(&directives, &mut launch);
    let mut around = guarded(resolution, host, (app, &addresses.first), &own, &class, handlers, worker_timeout);
    launch.tls = around.is_https;
    let is_probed = !sockets::tell_readiness(&around, class.known.as_deref(), &own, resolution);
    sockets::listen(resolution, addresses, is_probed, &mut launch);
    directives.extend(tls::tls(&mut launch, pair, resolution));
    directives.extend(tls::http(resolution, host, version, class.known.as_deref(), findings));
    if counts_requests(settings, &own, resolution, &around) {
        around.max_requests =
            MaxRequests::new(settings.gunicorn_max_requests.0, settings.gunicorn_max_requests_jitter.0);
        directives.retain(|directive| !directive.setting.starts_with("max_requests"));
        // A count that the file computes takes effect, and Gunicorn counts the workers as well.
        let explicit = settings.gunicorn_max_requests.is_explicit();
        directives.push(Directive::new("max_requests", "--max-requests", Python::Int(0), explicit));
    }
    if around.is_possible(settings) && !own.cmd_args.sets("proc_name") {
        // Gunicorn's default is the name of what it imports, which is the guard.
        directives.push(Directive::default_value("proc_name", "--name", text(&app.text)));
    }
    if server_args_set(resolution, "control_socket") {
        directives.retain(|directive| directive.setting != "control_socket_disable");
    }
    overridden::warn(&own, findings);
    let file = own.file.clone();
    let watched = file.as_ref().map(|file| file.location.to_string_lossy());
    let watched = watched.filter(|path| !path.starts_with("python:"));
    if let (Some(path), true) = (watched, settings.gunicorn_dev_mode.value) {
        let path = text(path.strip_prefix("file:").unwrap_or(&path));
        directives.push(Directive::explicit("reload_extra_files", "--reload-extra-file", path));
    }

    let (mut defaults, mut forced) = (Vec::new(), Vec::new());
    for directive in directives {
        match (directive.arguments(), directive.explicit) {
            (Some(arguments), true) => launch.args.extend(arguments.into_iter().map(OsString::from)),
            (None, true) => {
                let why = format!("{} is set otherwise", directive.setting);
                own.cmd_args.drop(directive.setting, &why, findings);
                forced.push(directive);
            }
            (_, false) if file.is_some() => defaults.push(directive),
            (Some(arguments), false) if !own.cmd_args.sets(directive.setting) => {
                launch.args.extend(arguments.into_iter().map(OsString::from));
            }
            (_, false) => {}
        }
    }

    let base = base(file.as_ref(), app, host, findings);
    let max_requests = around.max_requests;
    let guard = launch.guard(around, resolution, findings);
    // With the guard there is always one: it imports the guard before a worker changes its user. And if sockets are
    // passed on, it sets the mode of a Unix socket, and hides the socket for probes.
    let supervises = settings.mode.value == Mode::Supervise;
    let base =
        base.or((guard.is_some() || settings.ssl.value || supervises || settings.uds_permissions.is_explicit())
            .then_some(Base::Empty));
    launch.target = guard.as_ref().map_or_else(|| app.text.clone(), |guard| format!("{}:app", guard.name));
    if let Some(base) = base {
        let least = settings.ssl.value.then_some(settings.ssl_min_version.value);
        let parts = module::Parts {
            base,
            defaults: &defaults,
            forced: &forced,
            least,
            grace: supervises.then(|| grace(settings)),
            successors: supervises.then(|| successors(&mut launch, resolution)),
            public_listeners: supervises.then_some(1 + addresses.further.len()),
            socket_owner: addresses.owner,
            socket_mode: settings.uds_permissions.value.map(|mode| mode.0),
            is_gateway: app.is_gateway,
            is_guarded: guard.is_some(),
        };
        let config = Module { name: module::NAME.into(), source: parts.source() };
        launch.carry([config].into_iter().chain(guard).collect(), resolution);
        launch.args.splice(0..0, ["-c".into(), format!("python:{}", module::NAME).into()]);
    }
    if let Some(rewritten) = own.cmd_args.rewritten() {
        launch.env.push((cmd_args::NAME.into(), (!rewritten.is_empty()).then_some(rewritten)));
    }
    launch.args.push(launch.target.clone().into());
    launch.args.extend(resolution.server_args.iter().cloned());
    match settings.mode.value {
        Mode::Supervise => {
            launch.limits = Limits::new(
                settings.gunicorn_workers_max_rss.value,
                settings.gunicorn_workers_lifetime.value,
                max_requests,
            );
        }
        Mode::Exec => limits_without_effect(settings).into_iter().for_each(|warning| findings.warn(warning)),
    }
    // Gunicorn's exit statuses for a configuration that it cannot use, and for a preloaded app that fails.
    launch.capabilities.boot_statuses.push(1);
    launch
}

/// The descriptor from which the main process learns that workers have a successor.
fn successors(launch: &mut Launch, resolution: &Resolution) -> i32 {
    let number = launch.next_number(resolution);
    launch.descriptors.push(Descriptor { number, what: Inherited::Successors });
    number
}

/// Where Gunicorn's configuration comes from, apart from our additions.
fn base<'a>(file: Option<&'a UserFile>, app: &AppTarget, host: &Host, findings: &mut Findings) -> Option<Base<'a>> {
    if let Some(file) = file {
        let shown = file.location.to_string_lossy();
        findings.decide("config", shown, format!("{}; it takes precedence over our defaults", file.origin));
        return Some(Base::User(&file.location));
    }
    if app.is_gateway {
        findings.decide("config", "built in", "the app is the gateway, and you have no file of your own");
        return Some(Base::Gateway);
    }
    // Gunicorn looks for ./gunicorn.conf.py if no configuration is named.
    host.gunicorn_config.is_some().then_some(Base::Empty)
}

/// What the guard must know about Gunicorn's start. A worker class that is only known when the user's file runs is
/// checked when the guard is imported.
fn guarded<'a>(
    resolution: &Resolution,
    host: &Host,
    (app, bind): (&'a AppTarget, &'a Bind),
    own: &Own,
    class: &Class,
    handlers: Handlers,
    worker_timeout: &WorkerTimeout,
) -> Around<'a> {
    let asked = class.asked.as_deref();
    let paste = own.get("paste").is_some() || server_args_set(resolution, "paste");
    let obstacle = if paste { Some("the app is defined in a paste file".to_owned()) } else { Around::obstacle(host) };
    let wsgi = class.known.as_deref().and_then(worker_class::serves_wsgi);
    Around {
        server: Server::Gunicorn,
        app,
        calls_factories: asked != Some(worker_class::ASGI),
        worker_class: asked.map(str::to_owned),
        wsgi,
        handlers,
        has_lifespan: true,
        bind,
        is_https: resolution.settings.ssl.value || own.is_on("certfile") || own.is_on("keyfile"),
        sockets: WorkerSockets::Shared,
        max_requests: None,
        dealing: worker_class::dealing(class.known.as_deref()),
        doubt: class.known.is_none().then_some("the configuration file computes the worker class"),
        worker_timeout: worker_timeout.limit,
        obstacle,
    }
}

/// Whether we replace workers after their number of requests instead of Gunicorn, whose worker ends before it has a
/// successor: the guard counts, and our setting is the one that applies.
fn counts_requests(settings: &Settings, own: &Own, resolution: &Resolution, around: &Around) -> bool {
    const NAME: &str = "max_requests";
    let set_elsewhere = own.get(NAME).is_some() || own.cmd_args.sets(NAME) || server_args_set(resolution, NAME);
    settings.mode.value == Mode::Supervise
        && around.is_possible(settings)
        && around.doubt.is_none()
        && (settings.gunicorn_max_requests.is_explicit() || !set_elsewhere)
        && !server_args_set(resolution, NAME)
}

/// Gunicorn has no limits of memory and age: only we can enforce them.
fn limits_without_effect(settings: &Settings) -> Vec<String> {
    let (max_rss, lifetime) = (&settings.gunicorn_workers_max_rss, &settings.gunicorn_workers_lifetime);
    let set = [
        max_rss.value.is_some().then_some(("workers_max_rss", &max_rss.origin)),
        lifetime.value.is_some().then_some(("workers_lifetime", &lifetime.origin)),
    ];
    let warning = |(name, origin)| format!("{name} (from {origin}) has no effect with Gunicorn in exec mode");
    set.into_iter().flatten().map(warning).collect()
}

fn server_args_set(resolution: &Resolution, setting: &str) -> bool {
    let words: Vec<String> = resolution.server_args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    parse(&words).iter().any(|argument| argument.setting() == Some(setting))
}

/// Warnings about Gunicorn's settings that depend on no other setting.
fn directives(
    settings: &Settings,
    host: &Host,
    version: Option<Version>,
    own: &Own,
    findings: &mut Findings,
) -> Vec<Directive> {
    let mut directives = Vec::new();
    directives.extend([
        number("timeout", "--timeout", &settings.gunicorn_timeout, settings.gunicorn_timeout.0),
        grace::graceful(settings, own, findings),
        number("keepalive", "--keep-alive", &settings.gunicorn_keep_alive, settings.gunicorn_keep_alive.0),
        number("backlog", "--backlog", &settings.gunicorn_backlog, settings.gunicorn_backlog.0),
        number("max_requests", "--max-requests", &settings.gunicorn_max_requests, settings.gunicorn_max_requests.0),
        number(
            "max_requests_jitter",
            "--max-requests-jitter",
            &settings.gunicorn_max_requests_jitter,
            settings.gunicorn_max_requests_jitter.0,
        ),
    ]);
    if settings.gunicorn_dev_mode.is_explicit() {
        directives.push(Directive::explicit("reload", "--reload", Python::Bool(settings.gunicorn_dev_mode.value)));
    }
    directives.extend(logging(settings));
    directives.extend(proxies(settings, version, findings));
    if host.limits.dev_shm_writable {
        // A heartbeat file on a slow disk blocks the worker that touches it.
        directives.push(Directive::default_value("worker_tmp_dir", "--worker-tmp-dir", text("/dev/shm")));
    }
    if gunicorn_has("--no-control-socket", version) && !own.cmd_args.sets("control_socket") {
        let value = Python::Bool(true);
        directives.push(Directive::default_value("control_socket_disable", "--no-control-socket", value));
    }
    directives
}

fn text(value: impl Into<String>) -> Python {
    Python::Text(value.into())
}

fn number<T>(setting: &'static str, flag: &'static str, from: &Setting<T>, value: u64) -> Directive {
    Directive::new(setting, flag, Python::Int(value), from.is_explicit())
}

/// The worker class.
struct Class {
    /// The directive for Gunicorn.
    directive: Option<Directive>,
    /// The class, unless it is only known when the user's file runs.
    known: Option<String>,
    /// The class that was set explicitly.
    asked: Option<String>,
}

/// The setting, else Gunicorn's own, else the best that is installed.
fn class(
    settings: &Settings,
    host: &Host,
    version: Option<Version>,
    app: &AppTarget,
    own: &Own,
    findings: &mut Findings,
) -> Class {
    const FLAG: &str = "--worker-class";
    let setting = &settings.gunicorn_worker_class;
    let dev_mode = settings.gunicorn_dev_mode.value;
    if !setting.value.eq_ignore_ascii_case("auto") {
        let class = &setting.value;
        worker_class::check(class, &setting.origin, app, host, version, findings);
        worker_class::warn_if_not_reloading(class, dev_mode, host, findings);
        let directive = Some(Directive::explicit("worker_class", FLAG, text(class)));
        return Class { directive, known: Some(class.clone()), asked: Some(class.clone()) };
    }
    let native = own.get("worker_class").filter(|_| !setting.is_explicit());
    if let Some(class) = native.as_ref().and_then(|native| native.text()) {
        worker_class::check(
            class,
            &native.as_ref().map_or(Origin::Default, |native| native.origin.clone()),
            app,
            host,
            version,
            findings,
        );
        worker_class::warn_if_not_reloading(class, dev_mode, host, findings);
        return Class { directive: None, known: Some(class.to_owned()), asked: Some(class.to_owned()) };
    }
    if let Some(native) = native.filter(own::Given::is_computed) {
        findings.decide("worker-class", "computed", format!("{native}: the workers report when they start"));
        return Class { directive: None, known: None, asked: None };
    }
    let class = worker_class::best(app, dev_mode, host, version, findings);
    let directive = class.map(|class| Directive::new("worker_class", FLAG, text(class), setting.is_explicit()));
    let asked = class.filter(|class| *class == worker_class::GTHREAD).map(str::to_owned);
    Class { directive, known: class.map(str::to_owned), asked }
}

fn logging(settings: &Settings) -> Vec<Directive> {
    let (level, disabled) = (&settings.gunicorn_log_level, &settings.disable_access_log);
    // Gunicorn writes no access log by default. With /dev/null as its file, it would still format every line.
    let access = if disabled.value { Python::None } else { text("-") };
    vec![
        Directive::new("loglevel", "--log-level", text(level.value.word()), level.is_explicit()),
        Directive::default_value("errorlog", "--error-logfile", text("-")),
        Directive::new("accesslog", "--access-logfile", access, disabled.is_explicit()),
    ]
}

fn proxies(settings: &Settings, version: Option<Version>, findings: &mut Findings) -> Option<Directive> {
    let setting = &settings.forwarded_allow_ips;
    let proxies = setting.value.as_ref()?;
    if proxies.contains('/') && version.is_some_and(|version| version < GUNICORN_NETWORKS) {
        let message =
            format!("forwarded_allow_ips = {proxies} contains a network, which gunicorn before 24.1 does not accept");
        findings
            .problem(Problem::setting(message, &setting.origin).hint("list the addresses, or use a newer gunicorn"));
    }
    Some(Directive::explicit("forwarded_allow_ips", "--forwarded-allow-ips", text(proxies)))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod file_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
