//! From start to stop: PID 1, deaths inside, and the end.

use std::time::Duration;

use super::engine::Container;
use crate::harness::http::get;
use crate::harness::wait_until;

fn it_is_pid_1_and_is_healthy(server: &str) {
    let options = ["--health-interval=1s", "--health-start-period=1m"];
    let Some(container) = Container::ready(server, &options, &["--workers", "1"]) else { return };
    assert_eq!(container.status()["launcher"]["pid"], 1);
    assert_eq!(container.exec(&["cat", "/proc/1/comm"]).out, "mcp-launch\n");
    for (probe, said) in [("--ready", "ready: serving\n"), ("--live", "live: ")] {
        let answer = container.exec(&["mcp-launch", "health", probe]);
        assert!(answer.code == Some(0) && answer.out.starts_with(said), "{answer:?}");
    }
    wait_until("the engine to call it healthy", || container.inspect("{{.State.Health.Status}}") == "healthy");
    container.stop_well();
}

fn a_stop_waits_for_the_request_in_flight_and_for_nothing_else(server: &str) {
    let Some(mut container) = Container::ready(server, &[], &["--workers", "1"]) else { return };
    let port = container.running.port;
    let slow = std::thread::spawn(move || get(port, "/slow?s=2"));
    // The only worker has started the request when it has answered the next one.
    for _ in 0..20 {
        assert_eq!(get(port, "/").unwrap().status, 200);
    }
    let (code, took) = container.stop();
    assert_eq!(code, 0, "{}", container.running.log());
    assert_eq!(slow.join().unwrap().unwrap().status, 200, "{}", container.running.log());
    assert!(took < Duration::from_secs(10), "{took:?}\n{}", container.running.log());
}

fn a_worker_that_is_killed_is_replaced(server: &str) {
    let Some(mut container) = Container::ready(server, &[], &["--workers", "2"]) else { return };
    let (main, workers) = container.server();
    let victim = *workers.first().unwrap();
    container.kill("KILL", victim);
    container.running.wait_log(&format!(" pid={victim} cause=killed by SIGKILL "));
    wait_until("another worker", || !container.server().1.contains(&victim));
    assert_eq!(container.server().0, main, "{}", container.running.log());
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    container.stop_well();
}

fn a_main_process_that_is_killed_is_replaced_while_its_workers_serve(server: &str) {
    let Some(mut container) = Container::ready(server, &[], &["--workers", "2"]) else { return };
    let (main, workers) = container.server();
    container.kill("KILL", main);
    let mut failures = Vec::new();
    wait_until("its replacement", || {
        failures.extend(get(container.running.port, "/").err());
        container.running.log().contains(" ready generation=2")
    });
    assert!(failures.is_empty(), "{failures:?}\n{}", container.running.log());
    container.running.wait_log(" gone ");
    let (second, others) = container.server();
    assert!(second != main && others.is_disjoint(&workers), "{}", container.running.log());
    let processes = container.processes();
    assert!(processes.iter().all(|seen| seen.state != 'Z'), "{processes:?}");
    container.stop_well();
}

/// A process that ends after its parent.
fn leave_an_orphan(container: &Container) {
    let answer = container.exec(&["sh", "-c", "sh -c 'echo $$; exec sleep 0.2' &"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
}

#[test]
fn orphans_are_reaped() {
    let Some(container) = Container::ready("granian", &[], &["--workers", "1"]) else { return };
    let own = container.processes().len();
    for _ in 0..3 {
        leave_an_orphan(&container);
    }
    wait_until("nothing to be left of them", || container.processes().len() == own);
    container.stop_well();
    // A PID 1 that is not an init leaves them: so it was not the engine that reaped them.
    let control = Container::start(&["--entrypoint=sleep"], &["600"]).expect("an image");
    wait_until("it to run", || control.exec(&["true"]).code == Some(0));
    leave_an_orphan(&control);
    wait_until("a zombie", || control.processes().iter().any(|seen| seen.state == 'Z'));
}

crate::for_both_servers!(
    it_is_pid_1_and_is_healthy,
    a_stop_waits_for_the_request_in_flight_and_for_nothing_else,
    a_worker_that_is_killed_is_replaced,
    a_main_process_that_is_killed_is_replaced_while_its_workers_serve,
);
