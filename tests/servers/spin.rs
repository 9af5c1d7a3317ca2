//! `MCP_LAUNCH_SPIN`: a worker that uses a processor although it has nothing to do is reported, and replaced if that is
//! wanted.

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{get, open_stream};
use crate::harness::{Launch, Running, tests_directory, venv, wait_until};

crate::for_both_servers!(a_worker_that_spins_is_reported_with_where_its_time_goes_and_replaced);

fn start(server: &str, arguments: &[&str]) -> Option<Running> {
    let mut launch = Launch::new(&["--server", server, "--workers", "1", "--spin-after", "2s"]);
    launch.command.args(arguments).arg("spinning:app");
    launch.command.env("VIRTUAL_ENV", venv()?).env("PYTHONPATH", tests_directory("apps"));
    let mut running = launch.env("MCP_LAUNCH_CPUS", "1").in_turn().start();
    running.wait_log("ready generation=1");
    wait_until("the worker", || all_are_ready(&running));
    Some(running)
}

fn spins(running: &Running) -> bool {
    ask(running, &["status", "--json"]).json()["generations"][0]["workers"][0]["load"]["spinning"] == true
}

fn a_worker_that_spins_is_reported_with_where_its_time_goes_and_replaced(server: &str) {
    let Some(mut running) = start(server, &["--spin", "replace"]) else { return };
    assert_eq!(get(running.port, "/swallow").unwrap().status, 200);
    running.wait_log("worker spins: it uses a processor although it has nothing to do generation=1");
    running.wait_log("_deliver_cancellation (");
    running.wait_log("cause=spin");
    running.wait_log("gone generation=1");
    assert!(!spins(&running), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn it_is_only_reported_by_default_and_health_checks_are_no_work() {
    let Some(mut running) = start("gunicorn", &[]) else { return };
    assert_eq!(get(running.port, "/thread").unwrap().status, 200);
    wait_until("it to be seen", || {
        assert_eq!(get(running.port, "/health").unwrap().status, 200);
        spins(&running)
    });
    running.wait_log("never_rests (");
    assert!(!running.log().contains("replacing"), "{}", running.log());
    assert_eq!(running.log().matches("worker spins").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// An open stream that sends nothing is no work; one that does is.
#[test]
fn work_is_not_mistaken_for_it() {
    let Some(mut running) = start("gunicorn", &[]) else { return };
    let stream = open_stream(running.port, "/sse?ms=5", "");
    let began = std::time::Instant::now();
    wait_until("twice its time", || {
        assert!(!spins(&running), "{}", running.log());
        began.elapsed() > std::time::Duration::from_secs(4)
    });
    drop(stream);
    assert_eq!(get(running.port, "/call_soon").unwrap().status, 200);
    running.wait_log("worker spins");
    assert_eq!(running.log().matches("worker spins").count(), 1, "{}", running.log());
    running.stop();
}
