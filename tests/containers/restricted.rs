//! Containers without some facilities, and those in which mcp-launch is not the only service.

use super::engine::Container;
use crate::harness::http::{get, request};
use crate::harness::wait_until;

/// As in a hardened cluster: no privileges, no name for the user, nothing writable.
fn it_runs_for_any_user_with_nothing_to_write_to(server: &str) {
    let careful = [
        "--read-only",
        "--user=12345:0",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--env=HOME=/nonexistent",
    ];
    // Gunicorn itself needs a file, for which /dev/shm is enough.
    let without_shm: &[&str] = if server == "granian" { &["--ipc=none"] } else { &[] };
    let options = [&careful, without_shm].concat();
    let Some(container) = Container::ready(server, &options, &["--workers", "2"]) else { return };
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    container.server();
    assert_eq!(container.exec(&["mcp-launch", "health"]).out, "ready: serving\n");
    container.stop_well();
}

/// Debuggers need a capability or a kernel setting for that.
fn stacks_shows_where_a_worker_is_blocked_without_any_capability(server: &str) {
    let careful = ["--user=12345:0", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    let Some(container) = Container::ready(server, &careful, &["--workers", "1", "--worker-timeout", "0"]) else {
        return;
    };
    let mut client = std::net::TcpStream::connect(("127.0.0.1", container.running.port)).unwrap();
    request(&mut client, "/block?s=600");
    wait_until("the stack", || {
        let answer = container.exec(&["mcp-launch", "stacks"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        answer.out.contains("  blocked") && answer.out.contains(", in body_for")
    });
}

fn it_runs_without_a_directory_for_temporary_files(server: &str) {
    let options = ["--user=0", "--entrypoint=sh"];
    let command = format!("rm -r /tmp /var/tmp && exec mcp-launch --server {server} --workers 2 hello:app");
    let Some(mut container) = Container::start(&options, &["-c", &command]) else { return };
    container.running.wait_log(" ready generation=1");
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    assert_eq!(container.status()["launcher"]["pid"], 1);
    container.stop_well();
}

#[test]
fn it_runs_without_a_network() {
    let Some(container) = Container::ready("gunicorn", &["--network=none"], &["--workers", "1"]) else { return };
    let live = container.exec(&["mcp-launch", "health", "--live"]);
    assert!(live.code == Some(0) && live.out.starts_with("live: "), "{live:?}");
    container.stop_well();
}

#[test]
fn it_runs_behind_another_init() {
    let Some(container) = Container::ready("gunicorn", &["--init"], &["--workers", "1"]) else { return };
    let processes = container.processes();
    let (main, _) = container.server();
    let launcher = processes.iter().find(|seen| i64::from(seen.pid) == main).unwrap().parent;
    let launcher = processes.iter().find(|seen| seen.pid == launcher).unwrap();
    assert_eq!((launcher.name.as_str(), launcher.parent), ("mcp-launch", 1), "{processes:?}");
    container.stop_well();
}

/// It is not PID 1 there, so it must get orphans in another way.
fn it_looks_after_its_own_in_a_pid_namespace_of_others(server: &str) {
    let Some(other) = Container::start(&["--entrypoint=sleep"], &["600"]) else { return };
    wait_until("it to run", || other.exec(&["true"]).code == Some(0));
    let share = format!("--pid=container:{}", other.name);
    let Some(mut container) = Container::ready(server, &[&share], &["--workers", "2"]) else { return };
    let (main, _) = container.server();
    container.kill("KILL", main);
    container.running.wait_log(" ready generation=2");
    container.running.wait_log(" gone ");
    assert_eq!(get(container.running.port, "/").unwrap().status, 200);
    let processes = other.processes();
    assert!(processes.iter().all(|seen| seen.state != 'Z'), "{processes:?}");
    container.stop_well();
    let left: Vec<_> = other.processes().into_iter().filter(|seen| seen.name != "sleep").collect();
    assert_eq!(left, []);
}

#[test]
fn it_runs_in_the_pid_namespace_of_the_host() {
    let Some(container) = Container::ready("granian", &["--pid=host"], &["--workers", "1"]) else { return };
    assert_ne!(container.status()["launcher"]["pid"], 1);
    container.stop_well();
}

#[test]
fn a_command_that_is_no_app_is_answered_with_the_form_that_runs_it() {
    for (command, form) in [(&["bash"][..], "init -- bash"), (&["ls", "-l"], "init -- ls -l")] {
        let Some(finished) = Container::finish(&[], command) else { return };
        assert_eq!(finished.code, 2, "{}", finished.log);
        assert!(finished.log.contains(form), "{}", finished.log);
    }
}

crate::for_both_servers!(
    it_runs_for_any_user_with_nothing_to_write_to,
    stacks_shows_where_a_worker_is_blocked_without_any_capability,
    it_runs_without_a_directory_for_temporary_files,
    it_looks_after_its_own_in_a_pid_namespace_of_others,
);
