//! Which server runs, and how it is started.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Findings;
use crate::host::{Host, Program, Python, Version};
use crate::problem::{Exit, Problem};
use crate::settings::value::{Mode, Server, ServerChoice};
use crate::settings::{Origin, Setting, Settings};

/// A server and its program.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub server: Server,
    pub version: Option<Version>,
    pub program: PathBuf,
    /// The words before the server's own arguments.
    pub argv: Vec<OsString>,
}

/// Chooses the server. A missing or unusable one is a problem, but the plan is continued with it so that other
/// problems are found too.
pub(super) fn choose(settings: &Settings, host: &Host, findings: &mut Findings) -> Chosen {
    let choice = &settings.http_server;
    let python = &host.python;
    let (server, because) = match choice.value {
        ServerChoice::Gunicorn => (Server::Gunicorn, choice.origin.to_string()),
        ServerChoice::Granian => (Server::Granian, choice.origin.to_string()),
        ServerChoice::Auto if !installed(python, Server::Gunicorn) && installed(python, Server::Granian) => {
            (Server::Granian, "auto: gunicorn is not installed, granian is".to_owned())
        }
        ServerChoice::Auto => (Server::Gunicorn, "auto: gunicorn is preferred".to_owned()),
    };
    let version = python.packages.get(server.word()).copied();
    too_old(server, version, choice, python, findings);
    no_processes(server, settings, python, findings);
    let decision = version.map_or_else(|| server.to_string(), |version| format!("{server} {version}"));
    findings.decide("server", decision, because);
    if let Some(interpreter) = &python.interpreter {
        findings.decide("python", interpreter.path.display().to_string(), interpreter.found_by.clone());
    }

    let (program, argv) = match (script(python, server), &python.interpreter) {
        (Program::Found(path), _) => (path.clone(), vec![path.into()]),
        (Program::NotExecutable { path, why }, _) => {
            let message = format!("cannot run {server}: {} {why}", path.display());
            let hint = format!("reinstall it: {}", install(python, package(server)));
            findings.problem(Problem::new(Exit::NotExecutable, message).hint(hint));
            (path.clone(), vec![path.into()])
        }
        (Program::Missing, Some(interpreter)) if installed(python, server) => {
            let path = &interpreter.path;
            (path.clone(), vec![path.into(), "-m".into(), server.word().into()])
        }
        (Program::Missing, _) => {
            findings.problem(missing(server, choice, python));
            (server.word().into(), vec![server.word().into()])
        }
    };
    Chosen { server, version, program, argv }
}

/// The oldest Gunicorn that accepts what is passed to it.
const OLDEST_GUNICORN: Version = Version(20, 0, 0);

fn too_old(
    server: Server,
    version: Option<Version>,
    choice: &Setting<ServerChoice>,
    python: &Python,
    findings: &mut Findings,
) {
    let Some(version) = version.filter(|version| server == Server::Gunicorn && *version < OLDEST_GUNICORN) else {
        return;
    };
    let message = format!("gunicorn {version} is too old: mcp-launch needs {} or newer", OLDEST_GUNICORN.0);
    let problem = Problem::setting(message, &choice.origin);
    findings.problem(problem.hint(install(python, &format!("-U {}", package(server)))));
}

/// On a Python without GIL, Granian's workers are threads of one process: none can be replaced, measured or told to leave.
fn no_processes(server: Server, settings: &Settings, python: &Python, findings: &mut Findings) {
    let interpreter = python.interpreter.as_ref().filter(|interpreter| interpreter.is_free_threaded);
    if let Some(interpreter) = interpreter
        && server == Server::Granian
        && settings.mode.value == Mode::Supervise
    {
        let message = format!(
            "granian on a free-threaded Python ({}) has threads for workers, and mcp-launch supervises processes",
            interpreter.path.display()
        );
        let hint = "use --server gunicorn, a Python with the GIL, or --mode exec, in which nothing is supervised";
        findings.problem(Problem::setting(message, &settings.http_server.origin).hint(hint));
    }
}

fn script(python: &Python, server: Server) -> &Program {
    python.program(server.word())
}

fn installed(python: &Python, server: Server) -> bool {
    *script(python, server) != Program::Missing || python.packages.contains_key(server.word())
}

fn missing(server: Server, choice: &Setting<ServerChoice>, python: &Python) -> Problem {
    let place = python.interpreter.as_ref().map_or_else(
        || format!("found no Python that has it in {}", python.searched.join(", ")),
        |interpreter| format!("looked next to {} ({}) and on PATH", interpreter.path.display(), interpreter.found_by),
    );
    let what = if choice.value == ServerChoice::Auto { "neither gunicorn nor granian" } else { server.word() };
    let verb = if choice.value == ServerChoice::Auto { "is" } else { "is not" };
    let mut hint = install(python, package(server));
    let mut others = Server::ALL.into_iter().filter(|other| *other != server);
    if let Some(other) = others.find(|other| installed(python, *other)) {
        hint = format!("{hint}; or use --server {other}, which is installed");
    }
    let problem = Problem::new(Exit::NotFound, format!("{what} {verb} installed: {place}")).hint(hint);
    if choice.origin == Origin::Default { problem } else { problem.from(&choice.origin) }
}

/// The packages to install for a server.
const fn package(server: Server) -> &'static str {
    match server {
        Server::Gunicorn => "gunicorn uvicorn-worker",
        Server::Granian => "'granian[uvloop,pname]'",
    }
}

/// The command that installs packages into the interpreter in use.
pub(super) fn install(python: &Python, packages: &str) -> String {
    let interpreter = python.interpreter.as_ref().map_or("python3".into(), |it| it.path.to_string_lossy());
    let interpreter = shlex::try_quote(&interpreter).unwrap_or("python3".into());
    format!("{interpreter} -m pip install {packages}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{installed_host, resolution};

    fn chosen(env: &[(&str, &str)], host: &Host) -> (Chosen, Findings) {
        let mut findings = Findings::default();
        (choose(&resolution(env).settings, host, &mut findings), findings)
    }

    #[test]
    fn auto_takes_gunicorn_if_it_is_there_and_else_granian() {
        let auto = [("HTTP_SERVER", "Auto")];
        let mut host = installed_host();
        assert_eq!(chosen(&auto, &host).0.server, Server::Gunicorn);
        // As on processors for which Granian has no wheel.
        let mut without_granian = installed_host();
        without_granian.python.granian = Program::Missing;
        without_granian.python.packages.remove("granian");
        let (choice, findings) = chosen(&auto, &without_granian);
        assert_eq!((choice.server, findings.problems.len()), (Server::Gunicorn, 0));
        host.python.gunicorn = Program::Missing;
        host.python.packages.remove("gunicorn");
        assert_eq!(chosen(&auto, &host).0.server, Server::Granian);
    }

    #[test]
    fn a_gunicorn_that_is_too_old_is_named_with_what_is_needed() {
        let mut host = installed_host();
        host.python.packages.insert("gunicorn".into(), Version(19, 9, 0));
        let (_, findings) = chosen(&[], &host);
        assert!(
            findings.problems[0].to_string().contains("gunicorn 19.9.0 is too old: mcp-launch needs 20 or newer")
        );
        host.python.packages.insert("gunicorn".into(), Version(20, 0, 0));
        assert!(chosen(&[], &host).1.problems.is_empty());
    }

    #[test]
    fn granians_threads_on_a_free_threaded_python_are_not_supervised() {
        let mut host = installed_host();
        host.python.interpreter.as_mut().unwrap().is_free_threaded = true;
        let problems = |env: &[_]| chosen(env, &host).1.problems;
        let granian = ("HTTP_SERVER", "granian");
        assert_eq!(
            problems(&[granian])[0].to_string(),
            "granian on a free-threaded Python (/venv/bin/python) has threads for workers, and mcp-launch supervises \
             processes (from environment HTTP_SERVER); use --server gunicorn, a Python with the GIL, or --mode exec, in \
             which nothing is supervised"
        );
        assert_eq!(problems(&[granian, ("MCP_LAUNCH_MODE", "exec")]), []);
        assert_eq!(problems(&[]), []);
    }

    #[test]
    fn a_missing_server_is_answered_with_the_command_that_installs_it() {
        let mut host = installed_host();
        host.python.granian = Program::Missing;
        host.python.packages.remove("granian");
        let (_, findings) = chosen(&[("HTTP_SERVER", "granian")], &host);
        assert_eq!(findings.problems[0].exit, Exit::NotFound);
        assert_eq!(
            findings.problems[0].to_string(),
            "granian is not installed: looked next to /venv/bin/python (VIRTUAL_ENV) and on PATH (from environment \
             HTTP_SERVER); /venv/bin/python -m pip install 'granian[uvloop,pname]'; or use --server gunicorn, which \
             is installed"
        );
    }

    #[test]
    fn neither_server_is_a_problem_for_auto() {
        let host = Host::default();
        let (_, findings) = chosen(&[("HTTP_SERVER", "auto")], &host);
        assert!(findings.problems[0].message.starts_with("neither gunicorn nor granian is installed"));
        assert!(findings.problems[0].to_string().contains("python3 -m pip install gunicorn"));
    }

    #[test]
    fn a_script_that_cannot_be_executed_reports_why() {
        let mut host = installed_host();
        let why = "is not executable".to_owned();
        host.python.gunicorn = Program::NotExecutable { path: "/venv/bin/gunicorn".into(), why };
        let (_, findings) = chosen(&[], &host);
        assert_eq!(findings.problems[0].exit, Exit::NotExecutable);
        assert!(findings.problems[0].message.contains("/venv/bin/gunicorn is not executable"));
    }

    #[test]
    fn a_package_without_its_script_is_run_as_a_module() {
        let mut host = installed_host();
        host.python.granian = Program::Missing;
        let (chosen, findings) = chosen(&[("HTTP_SERVER", "granian")], &host);
        assert!(findings.problems.is_empty());
        assert_eq!(chosen.argv, ["/venv/bin/python", "-m", "granian"]);
        assert_eq!(chosen.program, PathBuf::from("/venv/bin/python"));
    }
}
