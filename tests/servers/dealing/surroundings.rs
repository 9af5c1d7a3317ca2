//! Surroundings in which clients are dealt out in another way, or not at all: all are served, none is lost, and what
//! cannot be done is said once.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::status::words;
use super::{Spread, WORKERS, ask_fresh};
use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{Load, get};
use crate::harness::{
    Launch, Running, children, is_root, readable_by_all, skipped, take_turn, tests_directory, venv, venv_without,
    wait_until,
};

const UVICORN: &str = "uvicorn_worker.UvicornWorker";

fn launch(server: &str, class: &str) -> Option<Launch> {
    let workers = WORKERS.to_string();
    let arguments = ["--workers", &workers, "--worker-class", class, "--keep-alive", "30"];
    Some(Launch::app(&venv()?, server, if server == "gunicorn" { &arguments } else { &arguments[..2] }))
}

fn ready(launch: Launch) -> Running {
    let mut running = launch.start();
    running.wait_log("ready generation=1");
    wait_until("all workers", || all_are_ready(&running));
    running
}

/// A reload while clients come, and a stop.
#[track_caller]
fn reloads_and_stops_without_loss(mut running: Running) {
    let load = Load::start(running.port, "/", 4);
    let answer = ask(&running, &["reload"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let before = load.answered();
    wait_until("answers", || load.answered() > before + 50);
    load.assert_nothing_lost();
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn spread(running: &Running) -> Spread {
    Spread::measure(&format!("127.0.0.1:{}", running.port), "plain")
}

/// As a container's profile may have it: setting a program for the group of sockets fails with EPERM.
fn where_the_kernel_does_not_let_us_steer_all_share_a_socket_and_that_is_said_once(server: &str) {
    let _turn = take_turn();
    let filter = tests_directory("apps").join("without_calls.py");
    let refused = format!("{}/{}", libc::SYS_setsockopt, libc::SO_ATTACH_REUSEPORT_CBPF);
    let Some(launch) = launch(server, UVICORN) else { return };
    let running = ready(launch.through(&["python3", filter.to_str().unwrap(), &refused]));
    let (counts, _) = ask_fresh(running.port, 60);
    assert_eq!(counts.values().sum::<u32>(), 60, "{counts:?}");
    assert!(!running.log().contains("perhaps unevenly"), "{}", running.log());
    if server == "gunicorn" {
        // They share it anyway, and deal clients out among themselves.
        spread(&running).assert_even("without steering");
    }
    let expected = if server == "gunicorn" { vec!["dealt"; WORKERS as usize] } else { Vec::new() };
    assert_eq!(words(&running), expected, "what status says");
    let answer = ask(&running, &["reload"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let said = "new clients cannot be steered: all workers and generations share one socket";
    assert_eq!(running.log().matches(said).count(), 1, "{}", running.log());
    if server == "gunicorn" {
        return reloads_and_stops_without_loss(running);
    }
    // A worker of Granian's that leaves goes on accepting until it is told to end, and then disconnects clients that have
    // sent nothing yet.
    let mut running = running;
    running.wait_log("gone generation=1");
    ask_fresh(running.port, 60);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn workers_of_another_user_deal_clients_out_as_well() {
    let _turn = take_turn();
    let Some(launch) = launch("gunicorn", UVICORN) else { return };
    if !is_root() || !readable_by_all(&venv().unwrap().join("bin/python")) {
        skipped("needs root, and an interpreter that others may run");
        return;
    }
    std::fs::set_permissions(launch.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let launch = launch.env("GUNICORN_CMD_ARGS", "--user 65534 --group 65534").env("GUNICORN_PRELOAD_APP", "false");
    let running = ready(launch);
    for worker in children(running.children()[0]) {
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{worker}")).unwrap());
        assert_eq!(user, 65534);
    }
    spread(&running).assert_even("another user");
    reloads_and_stops_without_loss(running);
}

/// The servers fall back to asyncio's own event loop.
fn without_uvloop_clients_are_dealt_out_as_well(server: &str) {
    let _turn = take_turn();
    let place = tempfile::tempdir().unwrap();
    let Some(launch) = launch(server, UVICORN) else { return };
    let venv = venv_without("uvloop", place.path());
    let running = ready(launch.env("VIRTUAL_ENV", venv));
    assert!(running.log().contains("uvloop") || server == "gunicorn", "the fallback is said: {}", running.log());
    assert!(!running.log().contains("perhaps unevenly"), "{}", running.log());
    spread(&running).assert_even("without uvloop");
    reloads_and_stops_without_loss(running);
}

crate::for_both_servers!(
    where_the_kernel_does_not_let_us_steer_all_share_a_socket_and_that_is_said_once,
    without_uvloop_clients_are_dealt_out_as_well,
);

/// An app that has its own event loop: the servers ask for it, or bring theirs.
const POLICY: &str = "
import asyncio


class Loop(asyncio.SelectorEventLoop):
    pass


class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        return Loop()


asyncio.set_event_loop_policy(Policy())

from hello import app
";

#[test]
fn an_app_that_replaces_the_event_loop_policy_is_served_and_its_clients_are_dealt_out() {
    let _turn = take_turn();
    for (server, class) in [("gunicorn", UVICORN), ("gunicorn", "asgi"), ("granian", "")] {
        let Some(launch) = launch(server, class) else { return };
        std::fs::write(launch.directory.path().join("policy.py"), POLICY).unwrap();
        let path = format!("{}:{}", launch.directory.path().display(), tests_directory("apps").display());
        let running = ready(launch.replacing_argument("hello:app", "policy:app").env("PYTHONPATH", path));
        spread(&running).assert_even(&format!("{server} {class}"));
        assert!(!running.log().contains("perhaps unevenly"), "{}", running.log());
        reloads_and_stops_without_loss(running);
    }
}

#[test]
fn a_program_that_shares_the_socket_gets_its_clients_and_the_workers_get_the_others() {
    let _turn = take_turn();
    let Some(launch) = launch("gunicorn", UVICORN) else { return };
    let running = ready(launch);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/dealing/sharer.py");
    let main = running.children()[0].to_string();
    let mut sharer = Command::new("python3")
        .args([script, &main, &running.port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(sharer.stdout.take().unwrap()).lines();
    let begun = lines.next().transpose().unwrap();
    if begun.is_none() {
        sharer.wait().unwrap();
        skipped("the kernel does not let another process have the socket");
        return;
    }
    let own = format!("{{\"pid\": {}}}", sharer.id());
    let (counts, _) = ask_fresh(running.port, 300);
    assert!(counts.contains_key(&own) && counts.len() == 1 + WORKERS as usize, "{counts:?}");
    drop(sharer.stdin.take());
    assert!(sharer.wait().unwrap().success());
    assert_eq!(lines.count(), counts[&own] as usize);
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert!(!running.log().contains("Error"), "{}", running.log());
    reloads_and_stops_without_loss(running);
}
