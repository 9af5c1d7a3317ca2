//! `run`: from the command line to a supervised server.

use std::net::TcpListener;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::preflight;
use super::prepare::{Planner, Prepared};
use super::single_instance::{Locked, take_lock};
use crate::control::server::ControlServer;
use crate::control::socket::{Listener, places};
use crate::host::Environment;
use crate::log::Log;
use crate::plan::{Bind, Plan};
use crate::problem::{Exit, Problem};
use crate::report::redact;
use crate::run::listener::Listeners;
use crate::run::lock::Lock;
use crate::run::notify::Notifier;
use crate::run::prestart::{self, Outcome};
use crate::run::signals::Signals;
use crate::run::termination::TerminationLog;
use crate::settings::value::{AutoPath, Mode};
use crate::settings::{FlagLayer, OPTIONS, Settings};
use crate::supervisor::{HANDLED, Outside, Supervisor, server_name};
use crate::sys::SignalState;
use crate::sys::secrets::{blank_variable, hide_memory};

pub(super) fn run(flags: FlagLayer, inherited: SignalState) -> Result<u8, Vec<Problem>> {
    let planner = Planner::new(flags);
    // We have a copy; workers of the same user could read it here.
    OPTIONS.iter().filter(|opt| opt.secret).flat_map(|opt| opt.env).for_each(|name| blank_variable(name));
    let prepared = planner.prepare();
    let termination = TerminationLog::new(&prepared.resolution.settings.termination_log.value);
    let status = start(planner, prepared, termination.clone(), inherited);
    if let Err(problems) = &status {
        termination.write(&problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    status
}

fn start(
    mut planner: Planner,
    prepared: Prepared,
    termination: TerminationLog,
    inherited: SignalState,
) -> Result<u8, Vec<Problem>> {
    let Prepared { resolution, plan, host } = prepared;
    let settings = &resolution.settings;
    let mut plan = plan?;
    if plan.credentials.is_some() {
        hide_memory();
    }
    planner.settle(&plan);
    let problems = prestart::problems(&plan.pre_start, plan.cwd.as_deref());
    if !problems.is_empty() {
        return Err(problems);
    }
    let one = |problem| vec![problem];
    let wants_any_port = matches!(plan.bind, Bind::Tcp(address) if address.port() == 0);
    // With port 0, the lock is taken once the port is known.
    let mut locked = if wants_any_port {
        Locked::default()
    } else {
        take_lock(settings, &resolution.env, &plan.bind).map_err(one)?
    };
    let listeners = preflight::claim(&plan).map_err(one)?;
    if let (true, Bind::Tcp(address)) = (wants_any_port, listeners.bind()) {
        planner.settle_port(address.port());
        plan = planner.prepare().plan?;
        locked = take_lock(settings, &resolution.env, &plan.bind).map_err(one)?;
    }

    planner.settle_address(listeners.bind());
    let log = Log::start(settings.log_level.value, settings.log_format.value);
    for warning in resolution.warnings.iter().chain(&host.notes).chain(&plan.warnings).chain(&locked.warnings) {
        warn!("{}", redact::message(warning));
    }
    announce(&plan);
    let lock = locked.lock;
    let mut notify = Notifier::from_environment(&resolution.env);
    // In exec mode, the server replaces the launcher, and nobody would answer.
    let mut control = match plan.mode {
        Mode::Exec => ControlServer::default(),
        Mode::Supervise => control(settings, &resolution.env, listeners.bind()),
    };
    match pre_start(&plan, inherited, &mut control, &mut notify).map_err(one)? {
        Outcome::Done => {}
        Outcome::Stopped(status) => {
            termination.write(&format!("stopped status={status} before the first start"));
            return Ok(status);
        }
        Outcome::Failed(status, why) => {
            termination.write(&format!("exit status={status} cause=pre-start-failed {why}"));
            return Ok(status);
        }
    }
    if plan.mode == Mode::Exec {
        listeners.leave_to_server().map_err(|errno| one(cannot_pass_on(errno)))?;
        log.flush();
        return crate::run::exec::exec(&plan, lock, inherited).map(Exit::code).map_err(one);
    }
    notify.starting("starting the server", plan.policy.startup_timeout + plan.policy.stop_timeout);
    let outside = Outside { control, termination, notifier: notify };
    let status = supervise(plan, listeners, lock, outside, planner, inherited);
    drop(log);
    status.map_err(one)
}

fn cannot_pass_on(errno: nix::errno::Errno) -> Problem {
    Problem::new(Exit::NotExecutable, format!("cannot pass on the sockets from systemd: {}", errno.desc()))
}

/// What is about to be run and why, in one line.
fn announce(plan: &Plan) {
    let because = plan.reasons.iter().find(|reason| reason.topic == "workers").map_or("", |reason| &reason.because);
    info!(
        mode = %plan.mode,
        server = %server_name(plan),
        app = %plan.app,
        address = %plan.bind,
        workers = plan.workers,
        because,
        limit = plan.limit.map(tracing::field::display),
        "start"
    );
}

/// What must succeed before the first generation starts.
fn pre_start(
    plan: &Plan,
    inherited: SignalState,
    control: &mut ControlServer,
    notify: &mut Notifier,
) -> Result<Outcome, Problem> {
    prestart::run(plan, inherited, control, notify)
        .map_err(|error| Problem::new(Exit::NotExecutable, format!("cannot receive signals: {error}")))
}

/// The control socket and the metrics listener. If one of them cannot be created, the server runs all the same.
fn control(settings: &Settings, env: &Environment, bind: &Bind) -> ControlServer {
    let socket = match &settings.socket.value {
        AutoPath::Off => None,
        setting => Listener::bind(&places(setting, env, bind))
            .map_err(|why| warn!(%why, "no control socket: status, reload and health will not work"))
            .ok(),
    };
    let metrics = settings.metrics.value.and_then(|address| {
        let listener = TcpListener::bind(address.0).and_then(|it| it.set_nonblocking(true).map(|()| it));
        listener.map_err(|error| warn!(address = %address.0, %error, "no metrics")).ok()
    });
    if let Some(address) = metrics.as_ref().and_then(|listener| listener.local_addr().ok()) {
        info!(%address, "metrics");
    }
    ControlServer::new(socket, metrics)
}

fn supervise(
    plan: Plan,
    listeners: Listeners,
    lock: Option<Lock>,
    outside: Outside,
    planner: Planner,
    inherited: SignalState,
) -> Result<u8, Problem> {
    let signals = Signals::install(&HANDLED, inherited).map_err(|error| {
        error!(%error, "cannot install signal handlers");
        Problem::new(Exit::NotExecutable, format!("cannot install signal handlers: {error}"))
    })?;
    let replan = Arc::new(move |choice, change| planner.replan(choice, change));
    let status = Supervisor::new(plan, listeners, signals, inherited, outside, replan).run();
    drop(lock);
    Ok(status)
}
