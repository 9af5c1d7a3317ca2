//! How Gunicorn is started.
//!
//! Precedence: explicit settings > `GUNICORN_CMD_ARGS` > the user's configuration file > our defaults. Explicit
//! settings are flags. Defaults are flags too, except where `GUNICORN_CMD_ARGS` says otherwise; with a file of the
//! user's they go into a generated module that runs the file after them.
//!
//! Sockets, when we stay: a TCP one is given by `--bind fd://3`. Gunicorn unlinks the path of an `fd://` Unix socket
//! when it stops, so that one goes by `LISTEN_FDS`, as systemd does it: Gunicorn then takes descriptors 3 and 4,
//! ignores every address that is no `fd://`, and unlinks nothing. `--bind` is passed all the same, because without it
//! a `bind` in the user's file would count.

mod arguments;
pub(super) mod cmd_args;
mod directive;
mod module;
mod tls;
mod worker_class;

use std::ffi::OsString;
use std::sync::Arc;

use super::app::Target;
use super::capabilities;
use super::flags::{GUNICORN_NETWORKS, gunicorn_has};
use super::guard::Around;
use super::{Bind, Descriptor, Findings, Inherited, Launch, Limits, Module, grace};
use crate::host::{Host, Version};
use crate::problem::{Origin, Problem};
use crate::settings::checks::STOP_RESERVE;
use crate::settings::value::{Mode, Server, Value, show_span};
use crate::settings::{Resolution, Setting, Settings};
use crate::tls::Pair;
pub(super) use arguments::parse;
use cmd_args::CmdArgs;
use directive::{Directive, Python};
use module::Base;

/// What Gunicorn's start depends on.
pub(super) struct Inputs<'a> {
    pub resolution: &'a Resolution,
    pub host: &'a Host,
    pub version: Option<Version>,
    pub app: &'a Target,
    pub bind: &'a Bind,
    pub workers: u32,
    pub cmd_args: CmdArgs,
    pub pair: Option<&'a Arc<Pair>>,
}

/// Works out the arguments, the descriptors and what changes in the environment.
pub(super) fn launch(inputs: Inputs, findings: &mut Findings) -> Launch {
    let Inputs { resolution, host, version, app, bind, workers, mut cmd_args, pair } = inputs;
    let settings = &resolution.settings;
    let mut launch = Launch::new(capabilities::gunicorn());
    listen(settings, bind, &mut launch);
    launch.args.extend(["--workers".into(), workers.to_string().into()]);

    let file = user_file(settings, &cmd_args, host);
    let mut directives = directives(settings, host, version, app, &cmd_args, findings);
    let grace = directives.iter().find(|directive| directive.setting == "graceful_timeout" && directive.explicit);
    if let Some(Python::Int(seconds)) = grace.map(|directive| &directive.value) {
        launch.env.push(("GUNICORN_GRACEFUL_TIMEOUT".into(), Some(seconds.to_string().into())));
    }
    directives.extend(tls::tls(&mut launch, pair, resolution));
    let class = directives.iter().find(|directive| directive.setting == "worker_class");
    let class = class.and_then(Directive::text).or_else(|| cmd_args.value("worker_class"));
    let http = tls::http(resolution, host, version, class, findings);
    directives.extend(http);
    let around = guarded(resolution, host, app, &cmd_args);
    if around.is_possible(settings) && !cmd_args.sets("proc_name") {
        // Gunicorn's default is what it imports, which is the guard.
        directives.push(Directive::default_value("proc_name", "--name", text(&app.text)));
    }
    if server_args_set(resolution, "control_socket") {
        directives.retain(|directive| directive.setting != "control_socket_disable");
    }
    let watched = file.as_ref().map(|(path, _)| path.to_string_lossy()).filter(|path| !path.starts_with("python:"));
    if let (Some(path), true) = (watched, settings.gunicorn_dev_mode.value) {
        let path = path.strip_prefix("file:").unwrap_or(&path).to_owned();
        directives.push(Directive::explicit("reload_extra_files", "--reload-extra-file", Python::Text(path)));
    }

    let (mut defaults, mut forced) = (Vec::new(), Vec::new());
    for directive in directives {
        match (directive.arguments(), directive.explicit) {
            (Some(arguments), true) => launch.args.extend(arguments.into_iter().map(OsString::from)),
            (None, true) => {
                let why = format!("{} is set otherwise", directive.setting);
                cmd_args.drop(directive.setting, &why, findings);
                forced.push(directive);
            }
            (_, false) if file.is_some() => defaults.push(directive),
            (Some(arguments), false) if !cmd_args.sets(directive.setting) => {
                launch.args.extend(arguments.into_iter().map(OsString::from));
            }
            (_, false) => {}
        }
    }

    let base = match &file {
        Some((path, origin)) => {
            let shown = path.to_string_lossy();
            let because = format!("{origin}; it overrides our defaults; a worker count or bind in it has no effect");
            findings.decide("config", shown, because);
            Some(Base::User(path))
        }
        None if app.is_gateway => {
            findings.decide("config", "built in", "the app is the gateway, and there is no file of yours");
            Some(Base::Gateway)
        }
        // Gunicorn looks for ./gunicorn.conf.py if it is not told of a configuration.
        None if host.gunicorn_config.is_some() => Some(Base::Empty),
        None => None,
    };
    let guard = launch.guard(around, resolution, findings);
    // With the guard there is one in any case: it has the guard imported before a worker changes its user.
    let base = base.or((guard.is_some() || settings.ssl.value).then_some(Base::Empty));
    launch.target = guard.as_ref().map_or_else(|| app.text.clone(), |guard| format!("{}:app", guard.name));
    if let Some(base) = base {
        let least = settings.ssl.value.then_some(settings.ssl_min_version.value);
        let config = Module { name: module::NAME.into(), source: module::source(&base, &defaults, &forced, least) };
        launch.carry([config].into_iter().chain(guard).collect(), resolution);
        launch.args.splice(0..0, ["-c".into(), format!("python:{}", module::NAME).into()]);
    }
    if let Some(rewritten) = cmd_args.rewritten() {
        launch.env.push((cmd_args::NAME.into(), (!rewritten.is_empty()).then_some(rewritten)));
    }
    launch.args.push(launch.target.clone().into());
    launch.args.extend(resolution.server_args.iter().cloned());
    launch.capabilities.reloads = settings.gunicorn_dev_mode.value || cmd_args.sets("reload");
    launch.tls = settings.ssl.value || cmd_args.sets("certfile");
    match settings.mode.value {
        Mode::Supervise => {
            launch.limits =
                Limits::new(settings.gunicorn_workers_max_rss.value, settings.gunicorn_workers_lifetime.value);
        }
        Mode::Exec => limits_without_effect(settings).into_iter().for_each(|warning| findings.warn(warning)),
    }
    if preloads(settings) || cmd_args.sets("preload_app") {
        launch.capabilities.boot_statuses.push(1);
    }
    launch
}

/// What the guard is to know of Gunicorn's start. The worker class that only the user's file names is seen when the
/// guard is imported.
fn guarded<'a>(resolution: &Resolution, host: &Host, app: &'a Target, cmd_args: &CmdArgs) -> Around<'a> {
    let setting = &resolution.settings.gunicorn_worker_class;
    let told = (!setting.value.eq_ignore_ascii_case("auto")).then_some(setting.value.as_str());
    let class = told.or_else(|| cmd_args.value("worker_class"));
    let paste = cmd_args.sets("paste") || server_args_set(resolution, "paste");
    let obstacle = match class {
        Some(class) if worker_class::is_wsgi(class) => Some(format!("worker class {class} is for WSGI apps")),
        _ if paste => Some("the app is what a paste file says".to_owned()),
        _ => Around::obstacle(host),
    };
    let calls_factories = class != Some(worker_class::ASGI);
    let worker_class = class.map(str::to_owned);
    Around {
        server: Server::Gunicorn,
        app,
        calls_factories,
        worker_class,
        has_lifespan: true,
        own_listeners: false,
        obstacle,
    }
}

/// Gunicorn knows no limits of memory and age: without us nobody keeps them.
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

/// Where it listens, and the sockets that it inherits if we stay.
fn listen(settings: &Settings, bind: &Bind, launch: &mut Launch) {
    let mut bind_to = |address: String| launch.args.extend(["--bind".into(), address.into()]);
    if settings.mode.value == Mode::Exec {
        return bind_to(bind.to_string());
    }
    match bind {
        Bind::Tcp(_) => {
            bind_to("fd://3".into());
            bind_to("fd://4".into());
        }
        Bind::Unix(_) => {
            bind_to(bind.to_string());
            launch.listen_pid = true;
            launch.env.push(("LISTEN_FDS".into(), Some("2".into())));
        }
    }
    launch.descriptors.push(Descriptor { number: 3, what: Inherited::Listener });
    launch.descriptors.push(Descriptor { number: 4, what: Inherited::ProbeListener });
}

/// The user's configuration file: the setting, else the argument, else the one that was found.
fn user_file(settings: &Settings, cmd_args: &CmdArgs, host: &Host) -> Option<(OsString, String)> {
    let setting = &settings.gunicorn_config;
    if setting.is_explicit() {
        return setting.value.as_ref().map(|path| (path.into(), setting.origin.to_string()));
    }
    if let Some(path) = cmd_args.value("config") {
        return Some((path.into(), Origin::Env(cmd_args::NAME.into()).to_string()));
    }
    host.gunicorn_config.as_ref().map(|path| (path.into(), "found".to_owned()))
}

const fn preloads(settings: &Settings) -> bool {
    settings.gunicorn_preload_app.value && !settings.gunicorn_dev_mode.value
}

/// Everything that we have to say about Gunicorn's settings but the bind and the worker count.
fn directives(
    settings: &Settings,
    host: &Host,
    version: Option<Version>,
    app: &Target,
    cmd_args: &CmdArgs,
    findings: &mut Findings,
) -> Vec<Directive> {
    let mut directives = Vec::new();
    directives.extend(class(settings, host, version, app, cmd_args, findings));
    directives.extend([
        number("timeout", "--timeout", &settings.gunicorn_timeout, settings.gunicorn_timeout.0),
        graceful(settings, cmd_args, findings),
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
    directives.extend(reloading(settings, findings));
    directives.extend(logging(settings));
    directives.extend(proxies(settings, version, findings));
    if host.limits.dev_shm_writable {
        // A heartbeat file on a slow disk stalls the worker that touches it.
        directives.push(Directive::default_value("worker_tmp_dir", "--worker-tmp-dir", text("/dev/shm")));
    }
    if gunicorn_has("--no-control-socket", version) && !cmd_args.sets("control_socket") {
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

fn class(
    settings: &Settings,
    host: &Host,
    version: Option<Version>,
    app: &Target,
    cmd_args: &CmdArgs,
    findings: &mut Findings,
) -> Option<Directive> {
    const FLAG: &str = "--worker-class";
    let setting = &settings.gunicorn_worker_class;
    if !setting.value.eq_ignore_ascii_case("auto") {
        worker_class::check(&setting.value, &setting.origin, app, host, version, findings);
        return Some(Directive::explicit("worker_class", FLAG, text(&setting.value)));
    }
    if let (Some(class), false) = (cmd_args.value("worker_class"), setting.is_explicit()) {
        worker_class::check(class, &Origin::Env(cmd_args::NAME.into()), app, host, version, findings);
        return None;
    }
    let class = worker_class::best(host, version, findings)?;
    Some(Directive::new("worker_class", FLAG, text(class), setting.is_explicit()))
}

fn graceful(settings: &Settings, cmd_args: &CmdArgs, findings: &mut Findings) -> Directive {
    let setting = &settings.gunicorn_graceful_timeout;
    let budget = grace(settings);
    if let Some(seconds) = setting.value {
        let seconds =
            if settings.mode.value == Mode::Supervise { fitted(seconds.0, settings, findings) } else { seconds.0 };
        return Directive::explicit("graceful_timeout", "--graceful-timeout", Python::Int(seconds));
    }
    if let Some(seconds) = cmd_args.value("graceful_timeout").and_then(|text| text.parse::<u64>().ok())
        && seconds > budget
        && settings.mode.value == Mode::Supervise
    {
        findings.warn(format!(
            "--graceful-timeout {seconds} in {} is more than the {budget} s that stop_timeout leaves; workers are \
             ended then",
            cmd_args::NAME
        ));
    }
    Directive::default_value("graceful_timeout", "--graceful-timeout", Python::Int(budget))
}

/// The grace that was asked for, as far as the stop budget has room for it. Whoever chose both has contradicted himself.
fn fitted(seconds: u64, settings: &Settings, findings: &mut Findings) -> u64 {
    let (setting, budget) = (&settings.gunicorn_graceful_timeout, grace(settings));
    if seconds <= budget {
        return seconds;
    }
    let (timeout, delay) = (&settings.stop_timeout, &settings.stop_delay);
    let what = format!(
        "graceful_timeout = {seconds}s exceeds the available {budget}s, which is stop_timeout {} less stop_delay {} less \
         {}",
        timeout.value.show(),
        delay.value.show(),
        show_span(STOP_RESERVE),
    );
    if timeout.is_explicit() {
        findings.problem(Problem::setting(what, &setting.origin).hint("lower it, or raise stop_timeout"));
    } else {
        let advice = "raise MCP_LAUNCH_STOP_TIMEOUT if whoever stops the launcher waits longer";
        findings.warn(format!("{what} (from {}); {budget}s is used; {advice}", setting.origin));
    }
    budget
}

/// Reloading and preloading, which exclude each other.
fn reloading(settings: &Settings, findings: &mut Findings) -> Vec<Directive> {
    let (dev_mode, preload) = (&settings.gunicorn_dev_mode, &settings.gunicorn_preload_app);
    if dev_mode.value && preload.is_explicit() && preload.value {
        findings.warn(format!("preload_app (from {}) has no effect in dev mode", preload.origin));
    }
    let mut directives = vec![Directive::new(
        "preload_app",
        "--preload",
        Python::Bool(preloads(settings)),
        preload.is_explicit() || dev_mode.value,
    )];
    if dev_mode.is_explicit() {
        directives.push(Directive::explicit("reload", "--reload", Python::Bool(dev_mode.value)));
    }
    directives
}

fn logging(settings: &Settings) -> Vec<Directive> {
    let (level, disabled) = (&settings.gunicorn_log_level, &settings.disable_access_log);
    // Gunicorn writes no access log by itself. A file to nowhere would do the work of formatting it all the same.
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
            format!("forwarded_allow_ips = {proxies} has a network, which gunicorn before 24.1 does not take");
        findings.problem(Problem::setting(message, &setting.origin).hint("list addresses, or use a newer gunicorn"));
    }
    Some(Directive::explicit("forwarded_allow_ips", "--forwarded-allow-ips", text(proxies)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
