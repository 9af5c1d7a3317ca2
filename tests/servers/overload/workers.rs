//! Workers with the guard: how they start, as whom they run, and when they end.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LIMIT, Volley, board, in_flight, launch, spawn_workers, start};
use crate::harness::{self, children, is_alive, skipped, venv, wait_until};

fn workers_end_when_the_launcher_and_the_main_process_are_killed(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "2"]) else { return };
    let main = running.children()[0];
    wait_until("two workers", || board(&running).len() == 2);
    let workers = children(main);
    assert_eq!(workers.len(), 2);
    // The kernel signals the main process when the launcher dies; one that is stopped cannot act on it.
    kill(main, Signal::SIGSTOP).unwrap();
    running.signal(Signal::SIGKILL);
    kill(main, Signal::SIGKILL).unwrap();
    running.wait();
    wait_until("the workers to end", || !workers.iter().any(|worker| is_alive(*worker)));
}

crate::for_both_servers!(workers_end_when_the_launcher_and_the_main_process_are_killed,);

#[test]
fn workers_that_are_spawned_and_not_forked_have_the_guard_and_a_slot() {
    let Some((mut launch, gate)) = launch("granian", "overload:app", &["--workers", "2"]) else { return };
    spawn_workers(&mut launch);
    let mut running = launch.start();
    running.wait_log(" ready ");
    wait_until("two workers", || board(&running).len() == 2);
    let volley = Volley::fire(running.port, "/wait", 3 * LIMIT);
    wait_until("some to be refused", || volley.count(503) >= LIMIT as usize);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Spawned workers of Granian open their listening sockets themselves, after they have told the app that it starts.
#[test]
fn spawned_workers_are_ready_when_they_listen() {
    let Some((mut launch, _)) = launch("granian", "slow_to_listen:app", &["--workers", "2"]) else { return };
    spawn_workers(&mut launch);
    let app = "\
import granian.server.mp, time
from hello import app
make = granian.server.mp.ASGIWorker
class Worker:
    def __init__(self, *options):
        self.worker = make(*options)
    def __getattr__(self, name):
        if 'serve' in name:
            time.sleep(1)
        return getattr(self.worker, name)
granian.server.mp.ASGIWorker = Worker
";
    std::fs::write(launch.directory.path().join("slow_to_listen.py"), app).unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    for _ in 0..20 {
        assert_eq!(harness::http::get(running.port, "/").unwrap().status, 200);
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// A worker that has changed its user cannot open its own files below `/proc`.
#[test]
fn workers_of_another_user_have_the_guard_as_well() {
    let Some(venv) = venv() else { return };
    if !harness::is_root() || !harness::readable_by_all(&venv.join("bin/python")) {
        skipped("needs root, and an interpreter that others may run");
        return;
    }
    let Some((launch, gate)) = launch("asgi", "overload:app", &["--workers", "1"]) else { return };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(launch.directory.path(), open).unwrap();
    let launch = launch.env("GUNICORN_CMD_ARGS", "--user 65534 --group 65534").env("GUNICORN_PRELOAD_APP", "false");
    let mut running = launch.start();
    running.wait_log(" ready ");
    let volley = Volley::fire(running.port, "/wait", LIMIT + 1);
    wait_until("the excess to be refused", || volley.count(503) == 1);
    assert_eq!(in_flight(&running), LIMIT);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Gunicorn's workers come and go as fast as possible: each has a slot. One stays, because a server without workers that are
/// ready is replaced.
#[test]
fn a_hundred_workers_that_come_and_go_all_find_a_slot() {
    let Some((mut running, _)) = start("asgi", &["--workers", "4"]) else { return };
    let main = running.children()[0];
    let mut seen = vec![children(main)[0]];
    let deadline = Instant::now() + Duration::from_mins(1);
    while seen.len() < 100 {
        let slots = board(&running);
        let is_new =
            |pid: &Pid| !seen.contains(pid) && slots.iter().any(|slot| slot.pid == pid.as_raw().cast_unsigned());
        if let Some(worker) = children(main).into_iter().find(is_new) {
            kill(worker, Signal::SIGKILL).unwrap();
            seen.push(worker);
        }
        assert!(Instant::now() < deadline, "{seen:?}: {}", running.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!running.log().contains("scoreboard"), "{}", running.log());
    let slots = board(&running).len();
    assert!(seen.len() > slots, "{} workers in {slots} slots: none is reused", seen.len());
    running.stop();
}
