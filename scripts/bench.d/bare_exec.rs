//! Executes its arguments: the minimum cost of any program that starts another.

use std::os::unix::process::CommandExt;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { std::process::exit(2) };
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("bare_exec: {error}");
    std::process::exit(127);
}
