//! The guard's Python, without a server, on every supported interpreter that is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mcp_launch::guard::{ACCEPT, FILES};

/// The supported versions.
const VERSIONS: std::ops::RangeInclusive<u32> = 10..=14;

/// One interpreter of each version: those on PATH, that of the test's environment, those of pyenv.
fn interpreters() -> BTreeMap<String, PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let venv = std::env::var_os("MCP_LAUNCH_TEST_VENV").map(|venv| Path::new(&venv).join("bin/python"));
    let made = std::fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
    let named = VERSIONS.map(|minor| PathBuf::from(format!("python3.{minor}")));
    let candidates = venv
        .into_iter()
        .chain([PathBuf::from("python3")])
        .chain(named)
        .chain(made.map(|version| version.path().join("bin/python")));
    candidates.filter_map(|path| Some((version(&path)?, path))).collect()
}

/// `3.11`, if it is one of those.
fn version(python: &Path) -> Option<String> {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-c", script]).output().ok().filter(|output| output.status.success())?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    let minor: u32 = version.strip_prefix("3.")?.parse().ok()?;
    VERSIONS.contains(&minor).then_some(version)
}

#[test]
fn the_guard_admits_what_the_limits_allow_on_every_python() {
    on_every_python("guard_test.py");
}

#[test]
fn a_worker_reports_its_state_on_every_python() {
    on_every_python("worker_test.py");
}

#[test]
fn a_worker_reports_its_open_requests_and_its_memory_on_every_python() {
    on_every_python("report_test.py");
}

#[test]
fn apps_of_every_form_are_loaded_on_every_python() {
    on_every_python("loading_test.py");
}

#[test]
fn apps_and_messages_of_every_form_stay_as_they_are_on_every_python() {
    on_every_python("forms_test.py");
}

#[test]
fn requests_that_take_too_long_are_logged_and_ended_on_every_python() {
    on_every_python("time_limit_test.py");
}

#[test]
fn workers_tell_what_they_are_doing_on_every_python() {
    on_every_python("stacks_test.py");
}

#[test]
fn a_worker_that_leaves_disconnects_its_clients_on_every_python() {
    on_every_python("leave_test.py");
}

#[test]
fn workers_accept_clients_that_others_are_not_better_for_on_every_python() {
    on_every_python("accept_test.py");
}

#[test]
fn wsgi_apps_are_guarded_on_every_python() {
    on_every_python("wsgi_test.py");
}

#[test]
fn how_long_requests_take_is_counted_on_every_python() {
    on_every_python("latency_test.py");
}

#[test]
fn limits_that_change_are_kept_on_every_python() {
    on_every_python("adaptive_test.py");
}

#[test]
fn workers_of_wsgi_apps_warm_up_and_end_their_streams_on_every_python() {
    on_every_python("wsgi_worker_test.py");
}

fn on_every_python(test: &str) {
    let interpreters = interpreters();
    assert!(!interpreters.is_empty(), "no Python from 3.{} on", VERSIONS.start());
    let directory = tempfile::tempdir().unwrap();
    let guard = directory.path().join("guard.py");
    let files: Vec<&str> = ACCEPT.iter().chain(FILES).map(|(_, content)| *content).collect();
    std::fs::write(&guard, files.join("\n\n")).unwrap();
    for (version, python) in interpreters {
        // They take seconds, and what they are about does not depend on how busy the machine is.
        let output = Command::new("timeout")
            .arg("240")
            .arg(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guard").join(test))
            .arg(&guard)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Python {version}:\n{said}");
        eprintln!("Python {version}: {}", said.lines().find(|line| line.starts_with("Ran ")).unwrap_or_default());
    }
}
