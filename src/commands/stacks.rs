//! `stacks`: what the workers of the running launcher are doing.

use std::collections::BTreeSet;

use super::launcher::Directions;
use super::unexpected;
use crate::control::ask::PATIENCE;
use crate::control::protocol::{Answer, Request, StackState};
use crate::control::stacks::{WorkerStacks, text};
use crate::problem::{Exit, Problem};
use crate::settings::FlagLayer;

pub(super) fn stacks(flags: &FlagLayer, json: bool, pids: Vec<i32>) -> Result<u8, Problem> {
    let launcher = Directions::read(flags).find(PATIENCE)?;
    let wanted: BTreeSet<i32> = pids.iter().copied().collect();
    let Answer::Stacks(answers) = launcher.ask(&Request::Stacks { pids }, Some(PATIENCE))? else {
        return Err(unexpected());
    };
    let workers: Vec<WorkerStacks> = answers.iter().map(WorkerStacks::read).collect();
    super::print(if json { super::json(&serde_json::json!({ "workers": workers })) } else { text(&workers) });
    let found: BTreeSet<i32> = workers.iter().map(|worker| worker.pid).collect();
    let missing: Vec<String> = wanted.difference(&found).map(i32::to_string).collect();
    if !missing.is_empty() {
        let message = format!("not a worker of this launcher: {}", missing.join(", "));
        return Err(Problem::new(Exit::No, message).hint("`mcp-launch status` shows the workers"));
    }
    if workers.iter().all(|worker| worker.state == StackState::Unreachable) {
        let message = if workers.is_empty() { "there are no workers" } else { "no worker can be asked" };
        return Err(Problem::new(Exit::No, message));
    }
    Ok(Exit::Success.code())
}
