//! What would fail later, tried before anything starts.

use nix::unistd::Pid;

use std::path::PathBuf;

use crate::host::{Environment, runtime_directory};
use crate::plan::{Bind, Plan};
use crate::problem::{Exit, Problem};
use crate::proc::process;
use crate::run::listener::Listeners;
use crate::run::lock::{Lock, Refused};
use crate::settings::value::AutoPath;
use crate::settings::{FlagLayer, Settings};

use super::prepare::{Planner, Prepared};

/// `check`: everything that `run` does before it starts something.
pub(super) fn check(flags: FlagLayer) -> Result<u8, Vec<Problem>> {
    // A private key may pass through here, and no core file is to have it.
    let _ = nix::sys::prctl::set_dumpable(false);
    let Prepared { resolution, plan, host } = Planner::new(flags).prepare();
    for warning in resolution.warnings.iter().chain(&host.notes) {
        super::print(format!("warning: {warning}\n"));
    }
    let plan = plan?;
    for warning in &plan.warnings {
        super::print(format!("warning: {warning}\n"));
    }
    let mut problems = crate::run::prestart::problems(&plan.pre_start, plan.cwd.as_deref());
    if let Some(holder) = own_launcher(&resolution.settings, &resolution.env, &plan.bind) {
        super::print(format!("a launcher (pid {holder}) is running here; the lock and the port are in use by it\n"));
    } else {
        // Taken for a moment, to see whether they can be had.
        match take_lock(&resolution.settings, &resolution.env, &plan.bind) {
            Ok(_lock) => problems.extend(claim(&plan).err()),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let workers = plan.workers;
    let server = crate::supervisor::server_name(&plan);
    Ok(super::print(format!("ok: {server} with {workers} workers for {} on {}\n", plan.app, plan.bind)))
}

/// Takes the place where clients arrive.
pub(super) fn claim(plan: &Plan) -> Result<Listeners, Problem> {
    Listeners::claim_all(&plan.bind, &plan.further_binds)
}

/// Takes the lock of the settings; none when it is off, or held while `FORCE_START` says to go on.
pub(super) fn take_lock(settings: &Settings, env: &Environment, bind: &Bind) -> Result<Option<Lock>, Problem> {
    let Some(path) = lock_path(settings, env, bind) else { return Ok(None) };
    match Lock::acquire(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(Refused::Held(_)) if settings.force_start.value => Ok(None),
        Err(Refused::Held(pid)) => {
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Err(Problem::new(Exit::Taken, format!("another instance is running: {who} holds {}", path.display()))
                .hint("stop it, choose another port, or set FORCE_START=true"))
        }
        Err(Refused::Failed(error)) => {
            Err(Problem::setting(format!("cannot use the lock {}: {error}", path.display()), &settings.lock.origin)
                .hint("set MCP_LAUNCH_LOCK to another path, or to none"))
        }
    }
}

fn lock_path(settings: &Settings, env: &Environment, bind: &Bind) -> Option<PathBuf> {
    match &settings.lock.value {
        AutoPath::Off => None,
        AutoPath::At(path) => Some(path.clone()),
        AutoPath::Auto => Some(runtime_directory(env)?.join(format!("{}.lock", bind.runtime_name()))),
    }
}

/// The launcher that holds the lock of these settings, if it is one and not something else.
fn own_launcher(settings: &Settings, env: &Environment, bind: &Bind) -> Option<u32> {
    match Lock::acquire(&lock_path(settings, env, bind)?) {
        Err(Refused::Held(Some(pid))) => {
            let name = process::name(Pid::from_raw(pid.cast_signed()))?;
            (name == "mcp-launch").then_some(pid)
        }
        _ => None,
    }
}
