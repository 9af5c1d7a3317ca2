//! `compare`: both servers on the app, measured, and one recommended.

mod page_file;

use std::ffi::OsString;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use self::page_file::PageFile;
use super::prepare::{Planner, Prepared};
use crate::compare::load::{Generator, HOW_TO_GET_ONE};
use crate::compare::measure::{Failure, OverloadLimit, Results, Subject};
use crate::compare::options::{Format, Options};
use crate::compare::page::page;
use crate::compare::report::{Machine, Report};
use crate::compare::{Interrupt, Terms, load_generator, run};
use crate::host::Environment;
use crate::plan::{Plan, RequestLimit};
use crate::problem::{Exit, Problem, exit_for};
use crate::settings::value::{Backpressure, Mode, Server};
use crate::settings::{FlagLayer, OPTIONS, Resolution, Settings};
use crate::sys::SignalState;

pub(super) fn compare(flags: &FlagLayer, options: Options, inherited: SignalState) -> Result<u8, Vec<Problem>> {
    let chosen = Planner::new(flags.clone()).prepare();
    if !chosen.resolution.problems.is_empty() {
        return Err(chosen.resolution.problems);
    }
    let Resolution { settings, env, warnings, .. } = chosen.resolution;
    let mut notes = notes(flags, &settings, &options);
    for warning in warnings.iter().chain(&options.warnings()) {
        crate::log::say(&format!("warning: {warning}\n"));
    }
    let mut app = settings.app_module.value.to_string();
    let owner = chosen.plan.as_ref().ok().map(|plan| plan.server);
    let mut all = Vec::new();
    let mut problems = Vec::new();
    for server in Server::ALL {
        let mut flags = flags.clone();
        flags.set("http_server", "compare", server.word());
        if owner != Some(server) && !flags.server_args.is_empty() {
            flags.server_args.clear();
            notes.push(format!("the arguments after -- do not apply to {server}, which was run without them"));
        }
        let Prepared { plan, .. } = Planner::new(flags.clone()).prepare();
        match plan {
            Ok(plan) => {
                app.clone_from(&plan.app);
                let overload_limit = overload_limit(&plan, &flags, default_limit(&settings));
                if overload_limit.backpressure.is_some() {
                    notes.push(format!(
                        "{}_BACKPRESSURE is {}: beyond the capacity, {} was measured with a limit of {}",
                        server.word().to_ascii_uppercase(),
                        if plan.limit.is_some() { "auto" } else { "not set" },
                        server.title(),
                        overload_limit.in_force
                    ));
                }
                all.push(Results::none(Subject { overload_limit, ..subject(&plan, &flags) }));
            }
            Err(found) => {
                all.push(not_started(server, &found));
                problems.push((server, found));
            }
        }
    }
    if problems.len() == Server::ALL.len() {
        // Problems that concern both are reported once.
        let mut all: Vec<Problem> = problems.into_iter().flat_map(|(_, problems)| problems).collect();
        all.dedup();
        return Err(all);
    }
    let file = options.html.as_deref().map(PageFile::open).transpose().map_err(|problem| vec![problem])?;
    let generator = Generator::find(&env).ok_or_else(|| {
        let missing = Problem::new(Exit::NotFound, "no load generator found: neither oha nor wrk is on PATH");
        vec![missing.hint(HOW_TO_GET_ONE)]
    })?;
    let one = |problem| vec![problem];
    let sockets = crate::host::writable_runtime_directories(&env).next().ok_or_else(|| {
        let missing = Problem::new(Exit::NotExecutable, "no writable directory for the control sockets");
        one(missing.hint("set XDG_RUNTIME_DIR to a writable directory"))
    })?;
    let system =
        |what: &str, error: std::io::Error| one(Problem::new(Exit::NotExecutable, format!("{what}: {error}")));
    let terms = Terms {
        program: std::env::current_exe()
            .map_err(|error| system("cannot find the program file of mcp-launch", error))?,
        env: child_environment(env),
        signals: inherited,
        generator,
        interrupt: Interrupt::install().map_err(|error| system("cannot handle Ctrl-C", error))?,
        sockets,
        socket_count: AtomicUsize::new(0),
        startup_timeout: startup_timeout(&settings),
        stop_timeout: settings.stop_timeout.value.0,
        options,
    };
    let machine = Machine::look();
    if machine.is_busy() {
        notes.push(format!("other programs were using this machine ({:.0} % of its CPU time)", machine.busy_percent));
    }
    let load_generator = load_generator(&terms.generator, &terms.env, inherited);
    let all = match run(&terms, all) {
        Ok(all) => all,
        Err(signal) => {
            crate::log::say("compare: interrupted; both servers have been stopped\n");
            return Ok(128 + signal);
        }
    };
    let report = |all| Report::new(app, &terms.options, machine, load_generator, all, notes);
    finish(terms.options.format, file, all, report)
}

/// Prints what there is. A server that failed gives the exit status, and if both did there is nothing to print.
fn finish(
    format: Format,
    file: Option<PageFile>,
    all: Vec<Results>,
    report: impl FnOnce(Vec<Results>) -> Report,
) -> Result<u8, Vec<Problem>> {
    let mut failures: Vec<Problem> = all
        .iter()
        .filter_map(|results| {
            let failure = results.failure.as_ref()?;
            Some(Problem::new(failure.exit, format!("{}: {}", results.subject.server, failure.why)))
        })
        .collect();
    if all.iter().all(|results| results.rounds.is_empty()) {
        return Err(failures);
    }
    let report = report(all);
    super::print(report.text(format));
    failures.extend(file.and_then(|mut file| file.write(&page(&report)).err()));
    for failure in &failures {
        crate::log::say(&format!("mcp-launch: {failure}\n"));
    }
    Ok(exit_for(&failures).code())
}

fn not_started(server: Server, problems: &[Problem]) -> Results {
    let why = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut results = Results::none(Subject {
        server,
        version: None,
        worker_class: None,
        workers: 0,
        limit: None,
        overload_limit: OverloadLimit::default(),
        flags: Vec::new(),
        operands: Vec::new(),
    });
    results.failure = Some(Failure { why, exit: exit_for(problems) });
    results
}

fn subject(plan: &Plan, flags: &FlagLayer) -> Subject {
    let class = plan.reasons.iter().find(|reason| reason.topic == "worker-class");
    Subject {
        server: plan.server,
        version: plan.version.as_ref().map(ToString::to_string),
        worker_class: class.map(|reason| reason.decision.clone()),
        workers: plan.workers,
        limit: plan.limit.and_then(RequestLimit::fixed),
        overload_limit: OverloadLimit::default(),
        flags: child_flags(plan.server, flags),
        operands: operands(plan, flags),
    }
}

/// The limit in force when there are more clients than the capacity: that of the plan, else that of a plan with this
/// backpressure.
fn overload_limit(plan: &Plan, flags: &FlagLayer, backpressure: u64) -> OverloadLimit {
    if let Some(in_force) = plan.limit.and_then(RequestLimit::fixed) {
        return OverloadLimit { in_force, backpressure: None };
    }
    let mut flags = flags.clone();
    let id = match plan.server {
        Server::Gunicorn => "gunicorn_backpressure",
        Server::Granian => "granian_backpressure",
    };
    flags.set(id, "compare", backpressure.to_string());
    let limited = Planner::new(flags).prepare().plan.ok().and_then(|plan| plan.limit?.fixed());
    OverloadLimit { in_force: limited.unwrap_or(backpressure), backpressure: Some(backpressure) }
}

/// The user's flags, and those that keep the launcher to itself.
fn child_flags(server: Server, flags: &FlagLayer) -> Vec<OsString> {
    let joined = |name: &str, value: &OsString| {
        let mut text = OsString::from(format!("--{name}="));
        text.push(value);
        text
    };
    let mut child: Vec<OsString> = flags.config.iter().map(|config| joined("config", config)).collect();
    for given in &flags.values {
        let Some(opt) = OPTIONS.iter().find(|opt| opt.id == given.id) else { continue };
        // A flag that both servers have would set both.
        let name = if opt.shares_flag() { opt.specific_flag() } else { opt.flag.map(str::to_owned) };
        if let Some(name) = name.filter(|_| opt.id != "app_module") {
            child.push(joined(&name, &given.value));
        }
    }
    let ours = [
        "--host=127.0.0.1",
        "--port=0",
        "--uds=",
        "--mode=supervise",
        "--lock=none",
        "--metrics=",
        "--termination-log=none",
        "--ssl=false",
        "--watch-certs=false",
        "--stop-delay=0",
        "--http=auto",
        "--log-level=info",
        "--log-format=text",
    ];
    child.extend(ours.map(OsString::from));
    child.push(format!("--server={server}").into());
    child
}

fn operands(plan: &Plan, flags: &FlagLayer) -> Vec<OsString> {
    let mut operands = vec![OsString::from(&plan.app)];
    if !flags.server_args.is_empty() {
        operands.push("--".into());
        operands.extend(flags.server_args.iter().cloned());
    }
    operands
}

/// How long a launcher may take until its server is ready, what comes before the server included.
fn startup_timeout(settings: &Settings) -> Duration {
    let tries = u32::try_from(settings.pre_start_retries.value.0).unwrap_or(0).saturating_add(1);
    let before = settings.pre_start_timeout.value.0.saturating_mul(tries);
    let prepares = settings.pre_start.value.is_some() || settings.reload_plugin_requirements_txt.value;
    settings.startup_timeout.value.0 + if prepares { before } else { Duration::ZERO }
}

/// The service manager must not be notified of servers that come and go.
fn child_environment(mut env: Environment) -> Environment {
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        env.remove(std::ffi::OsStr::new(name));
    }
    env
}

/// The limit for the overload where the settings have no number.
const fn default_limit(settings: &Settings) -> u64 {
    match settings.granian_backpressure.value {
        Backpressure::Limit(number) => number,
        Backpressure::Auto => 512,
    }
}

/// Where what is measured is not what would be run.
fn notes(flags: &FlagLayer, settings: &Settings, options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.ssl.value {
        notes.push("measured without TLS".to_owned());
    }
    if settings.uds.value.is_some() {
        notes.push("measured on a TCP port, not on the Unix socket".to_owned());
    }
    if settings.mode.value == Mode::Exec {
        notes.push("measured in supervise mode, not in exec mode".to_owned());
    }
    if settings.granian_http.is_explicit() {
        notes.push("measured over HTTP/1, which the load generators use".to_owned());
    }
    if !settings.guard.value {
        notes.push("the guard is off: requests beyond the capacity are not refused".to_owned());
    }
    let path = options.request.path.split('?').next().unwrap_or_default();
    let exempt = settings.guard_exempt.value.0.iter().any(|prefix| path.starts_with(&prefix.0));
    if path == settings.health_path.value.0 || exempt {
        notes.push(format!("{path} is exempt from the limit, so there are no 503s beyond the capacity"));
    }
    if flags.has("--server") {
        notes.push("--server has no effect: both servers are measured".to_owned());
    }
    notes
}
