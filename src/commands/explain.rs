//! `explain`: each setting, and the plan that follows, with reasons.

use super::launcher::Directions;
use super::prepare::{Planner, Prepared};
use crate::control::ask::PATIENCE;
use crate::control::protocol::{Answer, Request};
use crate::problem::{Problem, exit_for};
use crate::report;
use crate::settings::FlagLayer;

pub(super) fn explain(flags: FlagLayer, json: bool) -> u8 {
    // A private key may pass through here, and must not end up in a core file.
    let _ = nix::sys::prctl::set_dumpable(false);
    let Prepared { resolution, host, plan } = Planner::new(flags).prepare();
    let plan = plan.as_ref().map_err(Vec::as_slice);
    super::print(if json {
        report::explain_json(&resolution, &host, plan)
    } else {
        report::explain(&resolution, &host, plan, crate::log::wants_colour(&std::io::stdout()))
    });
    plan.err().map_or(0, |problems| exit_for(problems).code())
}

/// The plan of the running launcher, whose environment may differ from ours.
pub(super) fn running(flags: &FlagLayer, json: bool) -> Result<u8, Problem> {
    let launcher = Directions::read(flags).find(PATIENCE)?;
    let Answer::Plan(plan) = launcher.ask(&Request::Explain, Some(PATIENCE))? else {
        return Err(super::unexpected());
    };
    Ok(super::print(if json { super::json(&plan) } else { plan.text() }))
}
