//! One launcher for an address: takes the lock, and recognises a launcher of ours that holds it.

use std::time::Duration;

use nix::unistd::Pid;

use crate::control::socket::places;
use crate::host::{Environment, writable_runtime_directories};
use crate::plan::Bind;
use crate::problem::{Exit, Problem};
use crate::proc::process;
use crate::run::lock::{Holder, Lock, Refused};
use crate::settings::Settings;
use crate::settings::value::AutoPath;

/// How long a launcher's socket may take to accept a connection that only checks whether it is there.
const GLANCE: Duration = Duration::from_millis(500);

/// The outcome of taking the lock.
#[derive(Debug, Default)]
pub(super) struct Locked {
    /// None when it is off, when another process holds it and `FORCE_START` is set, or when no directory can be used:
    /// the port itself also prevents a second instance.
    pub lock: Option<Lock>,
    /// What was in the way and did not prevent the start.
    pub warnings: Vec<String>,
}

/// Takes the lock of the settings.
pub(super) fn take_lock(settings: &Settings, env: &Environment, bind: &Bind) -> Result<Locked, Problem> {
    let mut warnings = Vec::new();
    match try_lock(settings, env, bind, &mut warnings) {
        Ok(lock) => Ok(Locked { lock, warnings }),
        Err(Refused::Held(_)) if settings.force_start.value => Ok(Locked { lock: None, warnings }),
        Err(Refused::Held(holder)) => Err(taken(&holder)),
        Err(Refused::Unusable(path, why)) => {
            let message = format!("cannot use the lock {}: {why}", path.display());
            Err(Problem::setting(message, &settings.lock.origin)
                .hint("set MCP_LAUNCH_LOCK to another path, or to none"))
        }
    }
}

fn try_lock(
    settings: &Settings,
    env: &Environment,
    bind: &Bind,
    warnings: &mut Vec<String>,
) -> Result<Option<Lock>, Refused> {
    match &settings.lock.value {
        AutoPath::Off => Ok(None),
        AutoPath::At(path) => Lock::named(path, &bind.to_string()).map(Some),
        // Nobody can have taken a port yet that the kernel will choose.
        AutoPath::Auto if matches!(bind, Bind::Tcp(address) if address.port() == 0) => Ok(None),
        AutoPath::Auto => in_runtime_directory(env, bind, warnings),
    }
}

/// In the first directory where nothing is in the way. Anybody can put a file into a world-writable directory, which
/// must not prevent the start.
fn in_runtime_directory(env: &Environment, bind: &Bind, warnings: &mut Vec<String>) -> Result<Option<Lock>, Refused> {
    for directory in writable_runtime_directories(env) {
        match Lock::of_instance(&directory, &bind.instance(), &bind.to_string()) {
            Err(Refused::Unusable(path, why)) => {
                warnings.push(format!("{} is not used as a lock: {why}; remove it", path.display()));
            }
            outcome => return outcome.map(Some),
        }
    }
    if !warnings.is_empty() {
        warnings.push("without a lock file, the port alone prevents a second instance".to_owned());
    }
    Ok(None)
}

fn taken(holder: &Holder) -> Problem {
    let who = holder.pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let serves = holder.serves.as_ref().map(|address| format!(", which serves {address},")).unwrap_or_default();
    let message = format!("another instance is running: {who}{serves} holds {}", holder.path.display());
    Problem::new(Exit::Taken, message).hint("stop it, choose another port, or set FORCE_START=true")
}

/// The process of the launcher that serves this address, if there is one that can be trusted.
pub(super) fn own_launcher(settings: &Settings, env: &Environment, bind: &Bind) -> Option<i32> {
    let by_socket = places(&settings.socket.value, env, bind).into_iter().find_map(|place| place.own(GLANCE).ok());
    let by_socket = by_socket.and_then(|(_, pid)| pid);
    by_socket.or_else(|| match try_lock(settings, env, bind, &mut Vec::new()) {
        Err(Refused::Held(Holder { pid: Some(pid), serves: Some(address), .. })) if address == bind.to_string() => {
            let name = process::name(Pid::from_raw(pid.cast_signed()))?;
            (name == "mcp-launch").then(|| pid.cast_signed())
        }
        _ => None,
    })
}
