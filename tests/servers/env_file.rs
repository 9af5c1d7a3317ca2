//! Environment files, at the start and at reloads.

use std::fs;
use std::path::Path;

use crate::harness::ask::ask;
use crate::harness::http::get;
use crate::harness::{Launch, Running, venv, wait_until};

crate::for_both_servers!(
    an_env_file_reaches_the_app_and_is_read_again_at_each_reload,
    a_broken_env_file_is_a_refused_reload_with_file_and_line,
    an_env_file_that_changes_is_reloaded_if_it_is_watched
);

/// A server with an env file of this content, and one worker.
fn start(server: &str, content: &str, arguments: &[&str]) -> Option<Running> {
    let venv = venv()?;
    let launch = Launch::app(&venv, server, &[&["--workers", "1"], arguments].concat());
    let file = launch.directory.path().join("app.env");
    fs::write(&file, content).unwrap();
    let launch = launch.env("MCP_LAUNCH_ENV_FILE", &file).env("FROM_ABOVE", "first");
    let mut running = launch.start();
    running.wait_log(" ready ");
    Some(running)
}

fn write(running: &Running, content: &str) {
    let new = running.directory.path().join("new.env");
    fs::write(&new, content).unwrap();
    fs::rename(new, running.directory.path().join("app.env")).unwrap();
}

/// A variable as the app sees it.
fn seen(running: &Running, name: &str) -> String {
    get(running.port, &format!("/env?name={name}")).unwrap().body
}

fn an_env_file_reaches_the_app_and_is_read_again_at_each_reload(server: &str) {
    let Some(mut running) = start(server, "TENANT=one\nFROM_ABOVE=below\nMCP_LAUNCH_GUARD=off\n", &[]) else {
        return;
    };
    assert_eq!(seen(&running, "TENANT"), r#"{"value": "one"}"#);
    assert_eq!(seen(&running, "FROM_ABOVE"), r#"{"value": "first"}"#, "the environment takes precedence");
    let plan = ask(&running, &["explain", "--running"]);
    assert!(plan.out.contains("app.env line 3, MCP_LAUNCH_GUARD"), "{}", plan.out);
    write(&running, "TENANT=two\nFROM_ABOVE=changed\n");
    assert_eq!(ask(&running, &["reload"]).code, Some(0), "{}", running.log());
    assert_eq!(seen(&running, "TENANT"), r#"{"value": "two"}"#);
    running
        .wait_log("app.env line 2, FROM_ABOVE has changed without effect: environment FROM_ABOVE takes precedence");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_broken_env_file_is_a_refused_reload_with_file_and_line(server: &str) {
    let Some(mut running) = start(server, "TENANT=one\n", &[]) else { return };
    for (content, wrong) in [
        ("TENANT=two\nexport TENANT=hunter2\n", "app.env line 2 begins with export"),
        ("TENANT=two\nMCP_LAUNCH_RESTART_LIMIT=many\n", "app.env line 2, MCP_LAUNCH_RESTART_LIMIT"),
    ] {
        write(&running, content);
        let answer = ask(&running, &["reload"]);
        assert!(answer.code == Some(1) && answer.problem.contains(wrong), "{answer:?}");
    }
    write(&running, &"x".repeat(10 << 20));
    let answer = ask(&running, &["reload"]);
    assert!(
        answer.code == Some(1) && answer.problem.contains("app.env cannot be read: it has 10485760 "),
        "{answer:?}"
    );
    let file = running.directory.path().join("app.env");
    fs::remove_file(&file).unwrap();
    let answer = ask(&running, &["reload"]);
    assert!(answer.code == Some(1) && answer.problem.contains("app.env cannot be read"), "{answer:?}");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let answer = ask(&running, &["reload"]);
    assert!(answer.code == Some(1) && answer.problem.contains("app.env cannot be read: it is not a "), "{answer:?}");
    assert!(!running.log().contains("hunter2"), "{}", running.log());
    assert_eq!(seen(&running, "TENANT"), r#"{"value": "one"}"#);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn an_env_file_that_changes_is_reloaded_if_it_is_watched(server: &str) {
    let Some(mut running) = start(server, "TENANT=one\n", &["--watch-certs"]) else { return };
    write(&running, "TENANT=two\n");
    running.wait_log("watched files have changed");
    wait_until("the new value", || seen(&running, "TENANT") == r#"{"value": "two"}"#);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// What cannot be used may be half written, so it is reported after ten seconds.
#[test]
fn a_watched_env_file_that_is_broken_changes_nothing_is_reported_with_its_line_and_may_be_mended() {
    let Some(mut running) = start("gunicorn", "TENANT=one\n", &["--watch-certs"]) else { return };
    write(&running, "TENANT=two\nexport TENANT=hunter2\n");
    running.wait_log("cannot be used: the old ones stay in use");
    assert!(running.log().contains("app.env line 2 begins with export"), "{}", running.log());
    assert!(!running.log().contains("hunter2"), "{}", running.log());
    assert_eq!(seen(&running, "TENANT"), r#"{"value": "one"}"#);
    write(&running, "TENANT=three\n");
    running.wait_log_count("watched files have changed", 2);
    wait_until("the new value", || seen(&running, "TENANT") == r#"{"value": "three"}"#);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn an_env_file_that_is_no_plain_text_file_is_a_problem_and_nothing_waits() {
    let check = |path: &Path| {
        let finished = Launch::new(&["check"]).env("MCP_LAUNCH_ENV_FILE", path).finish();
        assert_eq!(finished.code, 78, "{}", finished.log);
        finished.log
    };
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        check(&pipe).contains("pipe cannot be read: it is not a regular file (from environment MCP_LAUNCH_ENV_FILE)")
    );
    let large = directory.path().join("large");
    fs::write(&large, vec![b'x'; 10 << 20]).unwrap();
    assert!(check(&large).contains("large cannot be read: it has 10485760 bytes, and at most 1048576 are read"));
    fs::write(&large, [b'A', b'=', 0xff]).unwrap();
    assert!(check(&large).contains("large line 1 is not UTF-8"));
    assert!(check(directory.path()).contains("cannot be read: is a directory"));
}
