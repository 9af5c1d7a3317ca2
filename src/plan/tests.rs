//! Helpers for the plan's unit tests, and tests of the plan as a whole.

use super::*;
use crate::host::{Cpu, Interpreter, Program};
use crate::problem::Exit;
use crate::settings::{FlagLayer, resolve};

/// Settings as this environment gives them, without a file or flags.
pub(super) fn resolution(env: &[(&str, &str)]) -> Resolution {
    let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    resolve(&FlagLayer::default(), &env, &|_| Err(std::io::ErrorKind::NotFound.into()))
}

/// A machine with 2 processors and everything installed.
pub(super) fn installed_host() -> Host {
    let mut host = Host { arch: "x86_64", ..Host::default() };
    host.cpu = Cpu { affinity: 2, ..Cpu::default() };
    host.python.interpreter = Some(Interpreter {
        path: "/venv/bin/python".into(),
        version: Some((3, 11)),
        is_free_threaded: false,
        venv: Some("/venv".into()),
        site_packages: vec!["/venv/lib/python3.11/site-packages".into()],
        found_by: "VIRTUAL_ENV".into(),
    });
    host.python.gunicorn = Program::Found("/venv/bin/gunicorn".into());
    host.python.granian = Program::Found("/venv/bin/granian".into());
    for (package, version) in [
        ("gunicorn", Version(27, 0, 1)),
        ("granian", Version(2, 8, 7)),
        ("uvicorn", Version(0, 54, 0)),
        ("uvicorn-worker", Version(0, 4, 0)),
        ("gevent", Version(26, 9, 0)),
        ("uvloop", Version(0, 23, 0)),
        ("setproctitle", Version(1, 3, 8)),
        ("watchfiles", Version(1, 3, 0)),
    ] {
        host.python.packages.insert(package.into(), version);
    }
    host.memory_directory = Some("/dev/shm".into());
    host.app.file = Some("/venv/lib/python3.11/site-packages/mcpgateway/main.py".into());
    host
}

/// Files in perfect order, where they are needed.
pub(super) fn certificates(resolution: &Resolution) -> TlsFindings {
    let made = || {
        let mut pair = crate::tls::example(tempfile::tempdir().unwrap().path());
        pair.authority = pair.authority.filter(|_| resolution.settings.ssl_ca_file.value.is_some());
        std::sync::Arc::new(pair)
    };
    TlsFindings { pair: resolution.settings.ssl.value.then(made), ..TlsFindings::default() }
}

/// The plan for this environment on that machine.
pub(super) fn planned(env: &[(&str, &str)], host: &Host) -> Plan {
    let resolution = resolution(env);
    assert_eq!(resolution.problems, [], "{env:?}");
    plan(&resolution, host, &certificates(&resolution)).unwrap_or_else(|problems| panic!("{env:?}: {problems:?}"))
}

/// The problems that prevent a plan.
pub(super) fn problems(env: &[(&str, &str)], host: &Host) -> Vec<String> {
    let resolution = resolution(env);
    let plan = plan(&resolution, host, &certificates(&resolution));
    plan.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// The arguments as text, without the program.
pub(super) fn argv(plan: &Plan) -> Vec<String> {
    plan.argv.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The arguments with each flag joined to its value, sorted: a set to compare.
pub(super) fn flags(plan: &Plan) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    for word in argv(plan) {
        match flags.last_mut() {
            Some(last)
                if last.starts_with('-')
                    && !last.contains(' ')
                    && (!word.starts_with('-') || word == "-")
                    && word != plan.target =>
            {
                *last = format!("{last} {word}");
            }
            _ => flags.push(word),
        }
    }
    flags.sort();
    flags
}

#[test]
fn problems_of_every_part_are_reported_together() {
    let mut host = installed_host();
    host.python.granian = Program::Missing;
    host.python.packages.remove("granian");
    let env = [("HTTP_SERVER", "granian"), ("RUST_MCP_MODE", "shadow"), ("APP_MODULE", "a.b:make(1)")];
    let problems = plan(&resolution(&env), &host, &TlsFindings::default()).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(crate::problem::exit_for(&problems), Exit::Settings);
}

#[test]
fn the_policy_and_the_grace_come_from_the_stop_budget() {
    let env = [("MCP_LAUNCH_STOP_TIMEOUT", "60.5"), ("MCP_LAUNCH_STOP_DELAY", "5"), ("GUNICORN_BACKLOG", "100")];
    let plan = planned(&env, &installed_host());
    assert_eq!(plan.policy.stop_timeout, Duration::from_millis(60_500));
    assert_eq!(plan.policy.backlog, 100);
    assert!(flags(&plan).contains(&"--graceful-timeout 53".to_owned()), "{:?}", plan.argv);
    let plan = planned(&[("MCP_LAUNCH_STOP_TIMEOUT", "1"), ("HTTP_SERVER", "granian")], &installed_host());
    assert!(flags(&plan).contains(&"--workers-kill-timeout 1".to_owned()), "{:?}", plan.argv);
}

#[test]
fn the_working_directory_is_app_root() {
    assert_eq!(planned(&[("APP_ROOT", "/srv")], &installed_host()).cwd, Some("/srv".into()));
    assert_eq!(planned(&[], &installed_host()).cwd, None);
}
