//! Reload, respawn and stop under load, with the real servers: no request is lost.

use crate::harness::ask::{Answer, ask};
use crate::harness::http::{Load, get};
use crate::harness::{self, Launch, Running, tests_directory, venv, wait_until};
use nix::sys::signal::{Signal, kill};

fn start(server: &str) -> Option<Running> {
    let mut running = Launch::app(&venv()?, server, &["--workers", "2"]).start();
    running.wait_log(" ready ");
    Some(running)
}

fn reload_under_load(server: &str, reloads: usize) {
    let Some(mut running) = start(server) else { return };
    let load = Load::start(running.port, "/", 8);
    for reload in 1..=reloads {
        running.signal(Signal::SIGHUP);
        running.wait_log_count(" ready ", reload + 1);
        running.wait_log_count(" gone ", reload);
    }
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn twenty_reloads_of_gunicorn_lose_no_request() {
    reload_under_load("gunicorn", 20);
}

#[test]
fn twenty_reloads_of_granian_lose_no_request() {
    reload_under_load("granian", 20);
}

/// Requests a reload as a user does, and waits for its answer.
fn reload(running: &Running, arguments: &[&str]) -> (i32, String) {
    let Answer { code, out, problem } = ask(running, &[&["reload"], arguments].concat());
    (code.unwrap(), out + &problem)
}

#[test]
fn changing_the_server_twenty_times_loses_no_request() {
    let Some(mut running) = start("gunicorn") else { return };
    let load = Load::start(running.port, "/", 8);
    for change in 1..=20 {
        let server = if change % 2 == 1 { "granian" } else { "gunicorn" };
        let (code, text) = reload(&running, &["--server", server]);
        assert_eq!(code, 0, "{text}\n{}", running.log());
        assert!(running.log().contains(&format!("server={server}/")), "{}", running.log());
        running.wait_log_count(" gone ", change);
    }
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers_on_both_servers() {
    for server in ["gunicorn", "granian"] {
        let Some(mut running) = start(server) else { return };
        let workers = |running: &Running| harness::children(*running.children().last().unwrap()).len();
        wait_until("two workers", || workers(&running) == 2);
        running.signal(Signal::SIGTTIN);
        wait_until("three workers", || running.children().len() == 1 && workers(&running) == 3);
        running.signal(Signal::SIGTTOU);
        wait_until("two workers again", || running.children().len() == 1 && workers(&running) == 2);
        assert_eq!(running.stop(), 0);
    }
}

fn main_process_killed_under_load(server: &str) {
    let Some(mut running) = start(server) else { return };
    let load = Load::start(running.port, "/", 8);
    let main = running.children()[0];
    wait_until("some load", || load.answered() > 200);
    kill(main, Signal::SIGKILL).unwrap();
    running.wait_log_count(" ready ", 2);
    running.wait_log(" gone ");
    let answered = load.answered();
    wait_until("more load", || load.answered() > answered + 200);
    let failures = load.finish();
    assert!(failures.is_empty(), "{}: {failures:?}", failures.len());
    assert_eq!(running.stop(), 0);
}

#[test]
fn gunicorns_main_process_killed_under_load_loses_no_request() {
    main_process_killed_under_load("gunicorn");
}

#[test]
fn granians_main_process_killed_under_load_loses_no_request() {
    main_process_killed_under_load("granian");
}

fn broken_release_is_discarded(server: &str) {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, server, &["--workers", "2"]);
    let app = launch.directory.path().join("hello.py");
    std::fs::copy(tests_directory("apps").join("hello.py"), &app).unwrap();
    launch.command.env("PYTHONPATH", launch.directory.path());
    let mut running = launch.start();
    running.wait_log(" ready ");
    let load = Load::start(running.port, "/", 4);
    std::fs::write(&app, "raise RuntimeError('broken release')\n").unwrap();
    running.signal(Signal::SIGHUP);
    running.wait_log("the old generation was kept");
    std::fs::copy(tests_directory("apps").join("hello.py"), &app).unwrap();
    running.signal(Signal::SIGHUP);
    running.wait_log_count(" ready ", 2);
    running.wait_log_count(" gone ", 1);
    let failures = load.finish();
    assert!(failures.is_empty(), "{}: {failures:?}", failures.len());
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_broken_release_under_gunicorn_is_discarded_and_the_old_one_serves_on() {
    broken_release_is_discarded("gunicorn");
}

#[test]
fn a_broken_release_under_granian_is_discarded_and_the_old_one_serves_on() {
    broken_release_is_discarded("granian");
}
