//! Listening addresses, and conflicts with other processes.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::harness::http::{ask, get};
use crate::harness::{Launch, venv, wait_for, wait_until};

fn a_unix_socket_is_served_and_removed_afterwards(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1"]);
    let path = launch.directory.path().join("app.sock");
    let mut running = launch.env("MCP_LAUNCH_UDS", &path).start();
    running.wait_log("ready generation=");
    assert_eq!(ask(UnixStream::connect(&path).unwrap(), "/").unwrap(), "{}");
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(!path.exists());
    running.assert_nothing_left();
}

fn a_unix_socket_that_a_killed_one_left_is_no_obstacle(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1"]);
    let path = launch.directory.path().join("app.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut running = launch.env("MCP_LAUNCH_UDS", &path).start();
    running.wait_log("ready generation=");
    assert_eq!(ask(UnixStream::connect(&path).unwrap(), "/").unwrap(), "{}");
}

fn ipv6_any_is_served_to_both_families(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "1"]).env("HOST", "::").start();
    running.wait_log("ready generation=");
    for host in ["::1", "127.0.0.1"] {
        let client = TcpStream::connect((host, running.port)).unwrap();
        assert_eq!(ask(client, "/").unwrap(), "{}", "{host}");
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn localhost_is_served(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "1"]).env("HOST", "localhost").start();
    running.wait_log("ready generation=");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
}

fn port_0_is_a_free_one_for_all_workers_and_generations_and_the_log_says_which(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running =
        Launch::app(&venv, server, &["--workers", "2", "--stop-timeout", "5s"]).env("PORT", "0").start();
    running.wait_log("ready generation=1");
    let port = |log: &str| -> Option<u16> {
        let line = log.lines().rfind(|line| line.contains("ready generation="))?;
        line.split_once("address=127.0.0.1:")?.1.split(' ').next()?.parse().ok()
    };
    let first = wait_for("the port", || port(&running.log()));
    assert_ne!(first, 0);
    assert_eq!(get(first, "/").unwrap().status, 200);
    running.signal(Signal::SIGHUP);
    running.wait_log("ready generation=2");
    assert_eq!(port(&running.log()), Some(first));
    assert_eq!(get(first, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_second_instance_on_the_port_is_refused_with_75_and_names_the_first(server: &str) {
    let first = ready(server);
    let second = Launch::fake(server, "serve", &[]);
    let second = second.env("PORT", first.port.to_string()).env("XDG_RUNTIME_DIR", first.directory.path()).finish();
    assert_eq!(second.code, 75, "{}", second.log);
    assert!(second.log.contains(&format!("process {}", first.pid())), "{}", second.log);
    assert_eq!(get(first.port, "/").unwrap().status, 200);
}

fn force_start_does_not_take_a_port_in_use(server: &str) {
    let first = ready(server);
    let second = Launch::fake(server, "serve", &[]).env("FORCE_START", "true");
    let second = second.env("PORT", first.port.to_string()).env("XDG_RUNTIME_DIR", first.directory.path()).finish();
    assert_eq!(second.code, 75, "{}\n\nfirst: {}", second.log, first.log());
    assert!(second.log.contains(&format!("127.0.0.1:{}", first.port)), "{}", second.log);
    assert_eq!(get(first.port, "/").unwrap().status, 200);
}

crate::for_both_servers!(
    a_unix_socket_is_served_and_removed_afterwards,
    a_unix_socket_that_a_killed_one_left_is_no_obstacle,
    ipv6_any_is_served_to_both_families,
    localhost_is_served,
    port_0_is_a_free_one_for_all_workers_and_generations_and_the_log_says_which,
    a_second_instance_on_the_port_is_refused_with_75_and_names_the_first,
    force_start_does_not_take_a_port_in_use,
);

/// A launcher with a fake server, ready.
fn ready(server: &str) -> crate::harness::Running {
    let mut running = Launch::fake(server, "serve", &[]).start();
    running.wait_log("ready generation=");
    running
}

#[test]
fn force_start_starts_although_the_lock_is_held() {
    let first = ready("gunicorn");
    let lock = first.directory.path().join(format!("mcp-launch-127.0.0.1-{}.lock", first.port));
    let second = |force: &str| {
        let launch = Launch::fake("gunicorn", "serve", &[]).env("MCP_LAUNCH_LOCK", &lock);
        launch.env("FORCE_START", force)
    };
    assert_eq!(second("false").finish().code, 75);
    let mut second = second("true").start();
    second.wait_log("ready generation=");
    assert_eq!(second.stop(), 0);
    assert!(lock.exists(), "the lock of the first one must stay");
}

#[test]
fn a_port_of_another_process_is_75_and_names_the_holder() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for server in ["gunicorn", "granian"] {
        let finished = Launch::fake(server, "serve", &[]).env("PORT", port.to_string()).finish();
        assert_eq!(finished.code, 75, "{}", finished.log);
        assert!(finished.log.contains(&format!("process {}", std::process::id())), "{}", finished.log);
    }
}

#[test]
fn after_kill_9_the_next_one_starts_without_being_forced() {
    let mut first = ready("gunicorn");
    first.signal(Signal::SIGKILL);
    first.wait();
    wait_until("the server to end", || first.leftovers().is_empty());
    let again = Launch::fake("gunicorn", "serve", &[]).env("PORT", first.port.to_string());
    let mut again = again.env("XDG_RUNTIME_DIR", first.directory.path()).start();
    again.wait_log("ready generation=");
    assert_eq!(again.stop(), 0, "{}", again.log());
}

#[test]
fn after_a_stop_with_lingering_connections_the_next_one_starts_at_once() {
    let mut first = ready("gunicorn");
    for _ in 0..5 {
        get(first.port, "/").unwrap();
    }
    assert_eq!(first.stop(), 0);
    let mut again = Launch::fake("gunicorn", "serve", &[]).env("PORT", first.port.to_string()).start();
    again.wait_log("ready generation=");
    assert_eq!(again.stop(), 0, "{}", again.log());
}

#[test]
fn the_lock_file_does_not_stay_after_a_stop() {
    let mut running = ready("gunicorn");
    let lock = running.directory.path().join(format!("mcp-launch-127.0.0.1-{}.lock", running.port));
    assert!(lock.exists());
    assert_eq!(running.stop(), 0);
    assert!(!lock.exists());
}
