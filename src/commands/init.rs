//! `init`: a plain init for any command.

use std::ffi::OsString;

use crate::host::{Environment, Program, find_program};
use crate::problem::{Exit, Problem};
use crate::run::init;
use crate::sys::SignalState;

pub(super) fn init(command: &[OsString], inherited: SignalState) -> Result<u8, Problem> {
    let env: Environment = std::env::vars_os().collect();
    let name = command.first().cloned().unwrap_or_default();
    let shown = name.to_string_lossy();
    match find_program(&name, &env) {
        Program::Found(path) => init::run(&path, command, &env, inherited),
        Program::NotExecutable { path, why } => {
            Err(Problem::new(Exit::NotExecutable, format!("cannot run {shown}: {} {why}", path.display())))
        }
        Program::Missing if shown.contains('/') => {
            Err(Problem::new(Exit::NotFound, format!("cannot run {shown}: there is no such file")))
        }
        Program::Missing => Err(Problem::new(Exit::NotFound, format!("cannot run {shown}: command not found"))
            .hint("use a path, or the name of a command on PATH")),
    }
}
