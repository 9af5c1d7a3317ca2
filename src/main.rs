//! The program: argv and environment in, exit status out. The only place that prints an error.

#[path = "sys/entry.rs"]
mod entry;

use std::process::ExitCode;

use mcp_launch::problem::{Problem, exit_for};
use mcp_launch::{commands, log};

fn main() -> ExitCode {
    let result = match commands::parse() {
        Ok(invocation) => commands::execute(invocation, entry::inherited()),
        Err(status) => return status.into(),
    };
    match result {
        Ok(status) => status.into(),
        Err(problems) => {
            report(&problems);
            exit_for(&problems).code().into()
        }
    }
}

/// All problems together, so that they can be fixed together.
fn report(problems: &[Problem]) {
    let text: Vec<String> = problems.iter().map(|problem| format!("mcp-launch: {problem}\n")).collect();
    log::say(&text.concat());
}
