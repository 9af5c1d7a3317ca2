//! What is reported to a service manager over `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;

use crate::harness::{Launch, Running, wait_for};
use nix::sys::signal::Signal;

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Listens for the messages of the launcher that is about to be started.
    fn of(launch: Launch) -> (Self, Launch) {
        let path = launch.directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Self { socket, heard: Vec::new() }, launch.env("NOTIFY_SOCKET", path))
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }

    /// Waits for a message with this assignment, and returns it.
    #[track_caller]
    fn wait(&mut self, assignment: &str) -> String {
        self.wait_count(assignment, 1)
    }

    #[track_caller]
    fn wait_count(&mut self, assignment: &str, count: usize) -> String {
        wait_for(assignment, || {
            self.listen();
            let mut with = self.heard.iter().filter(|message| message.lines().any(|line| line == assignment));
            with.nth(count - 1).cloned()
        })
    }

    fn heard(&mut self, assignment: &str) -> usize {
        self.listen();
        self.heard.iter().filter(|message| message.lines().any(|line| line == assignment)).count()
    }
}

fn start(fates: &str, env: &[(&str, &str)]) -> (Manager, Running) {
    let (manager, mut launch) = Manager::of(Launch::fake("gunicorn", fates, &[]));
    for (name, value) in env {
        launch = launch.env(name, value);
    }
    (manager, launch.start())
}

#[test]
fn it_reports_when_the_server_is_ready_reloads_and_stops() {
    let (mut manager, mut running) = start("serve", &[]);
    let ready = manager.wait("READY=1");
    assert!(ready.contains("STATUS=serving: generation 1, gunicorn"), "{ready}");
    running.signal(Signal::SIGHUP);
    let reloading = manager.wait("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.wait_count("READY=1", 2);
    running.signal(Signal::SIGTERM);
    manager.wait("STOPPING=1");
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_eq!(manager.heard("READY=1"), 2);
}

#[test]
fn a_reload_that_fails_leaves_it_ready() {
    let (mut manager, mut running) = start("serve;exit=3", &[]);
    manager.wait("READY=1");
    running.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    let after = manager.wait_count("READY=1", 2);
    assert!(after.contains("STATUS=serving: the last reload failed"), "{after}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_server_that_does_not_start_is_never_ready() {
    let (mut manager, mut running) = start("exit=3", &[]);
    assert_eq!(running.wait(), 3, "{}", running.log());
    manager.wait("STOPPING=1");
    assert_eq!(manager.heard("READY=1"), 0);
}

/// The time in seconds for which the manager was asked to wait, in the first message with this text.
#[track_caller]
fn patience(manager: &mut Manager, text: &str) -> u64 {
    let message = wait_for(text, || {
        manager.listen();
        manager.heard.iter().find(|message| message.contains(text)).cloned()
    });
    let asked = message.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    asked.unwrap_or_else(|| panic!("no time is requested: {message}")).parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn the_manager_is_asked_for_the_time_that_the_settings_allow() {
    let (mut manager, mut running) = start(
        "serve",
        &[
            ("MCP_LAUNCH_PRE_START", "true"),
            ("MCP_LAUNCH_PRE_START_TIMEOUT", "20m"),
            ("MCP_LAUNCH_STARTUP_TIMEOUT", "10m"),
            ("MCP_LAUNCH_STOP_TIMEOUT", "3m"),
        ],
    );
    manager.wait("READY=1");
    assert!(patience(&mut manager, "starting, pre_start runs") >= 20 * 60);
    assert!(patience(&mut manager, "STATUS=starting the server") >= 10 * 60);
    running.signal(Signal::SIGHUP);
    assert!(patience(&mut manager, "RELOADING=1") >= 10 * 60);
    manager.wait_count("READY=1", 2);
    running.signal(Signal::SIGTERM);
    assert!(patience(&mut manager, "STOPPING=1") >= 3 * 60);
    assert_eq!(running.wait(), 0, "{}", running.log());
}

#[test]
fn a_stop_before_the_first_start_is_reported() {
    let env = [("MCP_LAUNCH_PRE_START", "sleep 60"), ("MCP_LAUNCH_STOP_TIMEOUT", "3m")];
    let (mut manager, mut running) = start("serve", &env);
    running.wait_log("pre-start");
    running.signal(Signal::SIGTERM);
    assert!(patience(&mut manager, "STOPPING=1") >= 3 * 60);
    assert_eq!(running.wait(), 0, "{}", running.log());
}

#[test]
fn the_watchdog_is_fed_while_nothing_else_happens() {
    let (mut manager, mut running) = start("serve", &[("WATCHDOG_USEC", "400000")]);
    manager.wait("READY=1");
    let before = manager.heard("WATCHDOG=1");
    manager.wait_count("WATCHDOG=1", before + 3);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_manager_that_does_not_listen_holds_nothing_up() {
    let (manager, launch) = Manager::of(Launch::fake("gunicorn", "serve", &[]));
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    let path = manager.socket.local_addr().unwrap();
    while full.send_to_addr(b"STATUS=full", &path).is_ok() {}
    let mut running = launch.env("WATCHDOG_USEC", "2000").start();
    running.wait_log("ready generation=1");
    running.signal(Signal::SIGHUP);
    running.wait_log("ready generation=2");
    assert_eq!(running.stop(), 0, "{}", running.log());
}
