//! The first line of a console script, which names the interpreter and with it the environment.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::Program;
use super::super::search::{SearchPath, program_at};

/// What a program is, according to its first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// A Python script, with its interpreter.
    Python(PathBuf),
    /// A binary, or a script for something else.
    Other,
    /// It cannot be executed, and why.
    Broken(String),
}

/// Enough for the two lines that matter, with the longest path.
const HEAD: u64 = 8192;

/// Reads the first lines of a program.
pub(super) fn script(path: &Path, search: &SearchPath) -> Script {
    let mut head = Vec::new();
    // A program may be executable but not readable; then its interpreter is not known.
    if File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)).is_err() {
        return Script::Other;
    }
    let head = String::from_utf8_lossy(&head);
    let Some(line) = head.strip_prefix("#!") else { return Script::Other };
    let (first, rest) = line.split_once('\n').unwrap_or((line, ""));
    if first.ends_with('\r') {
        return Script::Broken(
            "has Windows line endings: the kernel treats the carriage return as part of the interpreter's name"
                .into(),
        );
    }
    let mut words = first.split_ascii_whitespace();
    let Some(interpreter) = words.next() else { return Script::Other };
    match name(Path::new(interpreter)) {
        "env" => {
            // Options such as -S, and variables that are set for the program.
            let program = words.find(|word| !word.starts_with('-') && !word.contains('='));
            program.map_or(Script::Other, |program| interpreted_by(search.find(program), program))
        }
        "sh" | "bash" | "dash" => match exec_line(rest, path) {
            Some(python) => interpreted_by(program_at(python.clone()), &python.to_string_lossy()),
            None => interpreted_by(program_at(interpreter.into()), interpreter),
        },
        _ => interpreted_by(program_at(interpreter.into()), interpreter),
    }
}

fn interpreted_by(program: Program, named: &str) -> Script {
    match program {
        Program::Found(path) if name(Path::new(named)).starts_with("python") => Script::Python(path),
        Program::Found(_) => Script::Other,
        Program::NotExecutable { path, why } => {
            Script::Broken(format!("names {} as its interpreter, which {why}", path.display()))
        }
        Program::Missing => Script::Broken(format!("names {named} as its interpreter, which does not exist")),
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The interpreter in the second line that pip, uv and conda write if a path has blanks or is too long for the kernel:
/// `'''exec' "/long path/python" "$0" "$@"`, a command for the shell and the start of a string for Python.
/// uv's relocatable scripts compute the directory from their own location.
fn exec_line(text: &str, script: &Path) -> Option<PathBuf> {
    let command = text.lines().next()?.strip_prefix("'''exec' ")?;
    let (program, _) = command.rsplit_once(r#" "$0" "$@""#)?;
    if let Some(relative) = program.strip_prefix(r#""$(dirname -- "$(realpath -- "$0")")"/"#) {
        let directory = std::fs::canonicalize(script).ok()?.parent()?.to_owned();
        return Some(directory.join(shlex::split(relative)?.first()?));
    }
    Some(shlex::split(program)?.first()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(line: &str) -> Option<PathBuf> {
        exec_line(&format!("{line}\n' '''\nimport sys\n"), Path::new("/nowhere/gunicorn"))
    }

    #[test]
    fn the_interpreter_behind_a_shell_line_is_found() {
        assert_eq!(exec(r#"'''exec' /opt/venv/bin/python "$0" "$@""#), Some("/opt/venv/bin/python".into()));
        assert_eq!(exec(r#"'''exec' "/a b/bin/python3" "$0" "$@""#), Some("/a b/bin/python3".into()));
        assert_eq!(exec(r#"'''exec' '/a b/bin/python3' "$0" "$@""#), Some("/a b/bin/python3".into()));
        assert_eq!(exec(r#"'''exec' "/conda/bin/python" "$0" "$@" #'''"#), Some("/conda/bin/python".into()));
        let relocatable = r#"'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@""#;
        assert_eq!(exec_line(relocatable, Path::new("/bin/sh")).unwrap().file_name().unwrap(), "python");
        assert_eq!(exec("exec python3 -m gunicorn"), None);
        assert_eq!(exec(""), None);
    }
}
