//! The commands: each reads its input, does its work, and returns an exit status or its problems.

mod compare;
mod explain;
mod health;
mod import;
mod init;
mod launcher;
mod preflight;
mod prepare;
mod reload;
mod run;
mod single_instance;
mod stacks;
mod status;
mod top;

use std::io::Write;

use crate::cli::{self, Action, Invocation};
use crate::problem::{Exit, Problem};
use crate::report::redact;
use crate::sys::{SignalState, set_mask};

/// Carries out a command line.
///
/// # Errors
/// All problems that prevent it.
pub fn execute(invocation: Invocation, inherited: SignalState) -> Result<u8, Vec<Problem>> {
    let Invocation { action, flags } = invocation;
    if !matches!(action, Action::Run | Action::Init { .. }) {
        // Signals have been blocked since the start of the program, for handlers that these commands do not have.
        set_mask(inherited.blocked);
    }
    let one = |problem| vec![problem];
    let outcome = match action {
        Action::Run => run::run(flags, inherited),
        Action::Check => preflight::check(flags),
        Action::Explain { json, running: false } => Ok(explain::explain(flags, json)),
        Action::Explain { json, running: true } => explain::running(&flags, json).map_err(one),
        Action::Init { command } => init::init(&command, inherited).map_err(one),
        Action::Completions { shell } => Ok(print(crate::docs::completions(shell))),
        Action::Man => Ok(print(crate::docs::man_page().unwrap_or_default())),
        Action::Health { probe, timeout, url } => health::health(&flags, probe, timeout, url.as_deref()).map_err(one),
        Action::Status { format } => status::status(&flags, format).map_err(one),
        Action::Top(options) => top::top(&flags, options, inherited).map_err(one),
        Action::Stacks { json, pids } => stacks::stacks(&flags, json, pids).map_err(one),
        Action::Reload { server, timeout } => reload::reload(&flags, server, timeout).map_err(one),
        Action::Import(file, name) => import::import(&file, name.as_deref()),
        Action::Compare(options) => compare::compare(&flags, *options, inherited),
    };
    outcome.map_err(|problems| problems.into_iter().map(shown).collect())
}

/// A problem without secrets, as it may be shown.
fn shown(problem: Problem) -> Problem {
    let hint = problem.hint.as_deref().map(redact::message);
    Problem { message: redact::message(&problem.message), hint, ..problem }
}

/// Parses the command line; help, version and usage errors are printed here, as clap formats them.
///
/// # Errors
/// The status to exit with.
pub fn parse() -> Result<Invocation, u8> {
    cli::parse(std::env::args_os()).map_err(|error| {
        let _ = error.print();
        u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code())
    })
}

/// A value as JSON for people and programs.
fn json(value: &impl serde::Serialize) -> String {
    // The types that are shown have string keys and no other way to fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// The problem of a response that does not match its request.
fn unexpected() -> Problem {
    Problem::new(Exit::No, "the launcher sent an unexpected response")
        .hint("it may be a different version of mcp-launch")
}

/// Prints for people and pipes. A reader that has closed its end is no error.
fn print(text: impl AsRef<[u8]>) -> u8 {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_ref()).and_then(|()| out.flush());
    Exit::Success.code()
}
