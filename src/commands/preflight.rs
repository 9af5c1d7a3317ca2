//! Tries what would fail later, before anything starts.

use crate::plan::{Plan, SocketOwner};
use crate::problem::Problem;
use crate::report::redact;
use crate::run::listener::Listeners;
use crate::settings::FlagLayer;

use super::prepare::{Planner, Prepared};
use super::single_instance::{own_launcher, take_lock};

/// `check`: everything that `run` does before it starts something.
pub(super) fn check(flags: FlagLayer) -> Result<u8, Vec<Problem>> {
    // A private key may pass through here, and must not end up in a core file.
    let _ = nix::sys::prctl::set_dumpable(false);
    let Prepared { resolution, plan, host } = Planner::new(flags).prepare();
    for warning in resolution.warnings.iter().chain(&host.notes) {
        super::print(format!("warning: {}\n", redact::message(warning)));
    }
    let plan = plan?;
    for warning in &plan.warnings {
        super::print(format!("warning: {}\n", redact::message(warning)));
    }
    let mut problems = crate::run::prestart::problems(&plan.pre_start, plan.cwd.as_deref());
    if let Some(holder) = own_launcher(&resolution.settings, &resolution.env, &plan.bind) {
        super::print(format!("a launcher (pid {holder}) is running here; the lock and the port are in use by it\n"));
    } else {
        // Taken for a moment, to see whether they are free.
        match take_lock(&resolution.settings, &resolution.env, &plan.bind) {
            Ok(locked) => {
                for warning in &locked.warnings {
                    super::print(format!("warning: {}\n", redact::message(warning)));
                }
                problems.extend(claim(&plan).err());
            }
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

/// Binds the addresses, unless their sockets were passed to us.
pub(super) fn claim(plan: &Plan) -> Result<Listeners, Problem> {
    match plan.socket_owner {
        SocketOwner::Launcher => Listeners::claim_all(&plan.bind, &plan.further_binds),
        SocketOwner::ServiceManager => Listeners::passed(&plan.bind, &plan.further_binds),
    }
}
