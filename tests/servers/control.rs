//! Requests to a running launcher, with the real servers: status, reload, health, metrics, and its last output.

mod health;
mod worker_exits;

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::ask::{Answer, ask, command};
use crate::harness::http::get;
use crate::harness::{
    self, Launch, PROGRAM, Running, copy_program, is_root, skipped, tests_directory, venv, wait_for, wait_until,
};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

/// The time that a busy machine may add to an answer that takes a few milliseconds.
const PROMPT: Duration = Duration::from_secs(2);

fn start(server: &str) -> Option<Running> {
    let mut running = Launch::app(&venv()?, server, &["--workers", "2"]).start();
    wait_ready(&mut running, 2);
    Some(running)
}

/// Gunicorn is ready with its first worker; the others start a moment later.
fn wait_ready(running: &mut Running, workers: usize) {
    running.wait_log(" ready ");
    wait_until("all workers", || harness::children(running.children()[0]).len() == workers);
}

fn socket(running: &Running) -> PathBuf {
    running.directory.path().join(format!("mcp-launch-127.0.0.1-{}.sock", running.port))
}

fn status(running: &Running) -> Value {
    ask(running, &["status", "--json"]).json()
}

/// The generation that serves.
fn serving(running: &Running) -> Value {
    let status = status(running);
    let generations = status["generations"].as_array().unwrap().clone();
    generations.into_iter().find(|generation| generation["state"] == "serving").unwrap_or(Value::Null)
}

fn worker_pids(generation: &Value) -> Vec<Pid> {
    let workers = generation["workers"].as_array().cloned().unwrap_or_default();
    workers.iter().map(|worker| Pid::from_raw(i32::try_from(worker["pid"].as_i64().unwrap()).unwrap())).collect()
}

fn status_shows_what_runs(server: &str) {
    let Some(mut running) = start(server) else { return };
    let json = status(&running);
    assert_eq!(json["launcher"]["pid"], running.pid().as_raw());
    assert_eq!((&json["launcher"]["phase"], &json["launcher"]["ready"]), (&"serving".into(), &true.into()));
    assert_eq!(json["address"], format!("127.0.0.1:{}", running.port));
    assert_eq!((&json["restarts_left"], &json["failures"]), (&5.into(), &0.into()));
    let generation = serving(&running);
    assert_eq!((&generation["id"], &generation["server"]), (&1.into(), &server.into()));
    assert_eq!(generation["main_pid"], running.children()[0].as_raw());
    let mut workers = worker_pids(&generation);
    workers.sort();
    let mut children = harness::children(running.children()[0]);
    children.sort();
    assert_eq!(workers, children);
    for worker in generation["workers"].as_array().unwrap() {
        assert!(worker["rss_bytes"].as_u64().unwrap() > 1 << 20, "{worker}");
        assert!(worker["age_seconds"].as_f64().unwrap() < 60.0 && worker["cpu_seconds"].is_number(), "{worker}");
    }

    for worker in generation["workers"].as_array().unwrap() {
        let load = &worker["load"];
        assert_eq!((&load["state"], &load["in_flight"], &load["rejected"]), (&"ready".into(), &0.into(), &0.into()));
        assert!(load["heartbeat_seconds_ago"].as_f64().unwrap() < 20.0, "{worker}");
    }

    let text = ask(&running, &["status"]);
    for pid in &workers {
        let starts_with_it = |line: &str| line.trim_start().starts_with(&format!("{pid}  "));
        assert!(text.out.lines().any(starts_with_it), "{text:?}");
    }
    assert!(text.out.contains(&format!("generation 1  {server}/")) && text.out.contains("workers 2/2"), "{text:?}");

    let metrics = ask(&running, &["status", "--prometheus"]).out;
    assert!(metrics.contains("\nmcp_launch_ready 1\n"), "{metrics}");
    assert!(metrics.contains("\nmcp_launch_workers{generation=\"1\"} 2\n"), "{metrics}");

    running.stop();
    assert_eq!(ask(&running, &["status"]).code, Some(3));
}

#[test]
fn status_shows_what_runs_under_gunicorn() {
    status_shows_what_runs("gunicorn");
}

#[test]
fn status_shows_what_runs_under_granian() {
    status_shows_what_runs("granian");
}

#[test]
fn the_socket_is_for_its_owner_and_is_removed_with_the_launcher() {
    let Some(mut running) = start("gunicorn") else { return };
    let path = socket(&running);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(running.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn another_user_is_refused() {
    if !is_root() {
        return skipped("only root can be another user");
    }
    let Some(running) = start("gunicorn") else { return };
    let directory = running.directory.path();
    let program = directory.join("mcp-launch");
    copy_program(PROGRAM, &program);
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    let ask = || -> Answer {
        let mut command = Command::new(&program);
        command.env_clear().args(["reload", "--socket"]).arg(socket(&running)).uid(65534).gid(65534);
        command.output().unwrap().into()
    };
    let denied = ask();
    assert!(denied.code == Some(1) && denied.problem.contains("permission denied"), "{denied:?}");
    // Even if the file's mode allows everything.
    std::fs::set_permissions(socket(&running), PermissionsExt::from_mode(0o666)).unwrap();
    let refused = ask();
    assert!(refused.code == Some(1) && refused.problem.contains("may not use this socket"), "{refused:?}");
    assert_eq!(status(&running)["generations"][0]["id"], 1, "nothing was reloaded");
}

#[test]
fn a_reload_hands_over_and_is_reported() {
    let Some(mut running) = start("gunicorn") else { return };
    let reload = ask(&running, &["reload"]);
    assert_eq!((reload.code, reload.out.lines().count()), (Some(0), 1), "{reload:?}");
    assert!(reload.out.contains("generation 2 serves (gunicorn/"), "{reload:?}");
    assert_eq!(serving(&running)["id"], 2);
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_reload_changes_the_server_and_back() {
    let Some(mut running) = start("gunicorn") else { return };
    for (server, id) in [("granian", 2), ("gunicorn", 3)] {
        let reload = ask(&running, &["reload", "--server", server]);
        assert_eq!(reload.code, Some(0), "{reload:?} {}", running.log());
        let generation = serving(&running);
        assert_eq!((&generation["id"], &generation["server"]), (&id.into(), &server.into()));
        assert_eq!(get(running.port, "/").unwrap().status, 200);
    }
    assert_eq!(ask(&running, &["reload", "--server", "apache"]).code, Some(2));
    assert_eq!(running.stop(), 0);
}

#[test]
fn the_client_of_a_reload_to_a_broken_release_gets_the_reason() {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, "gunicorn", &["--workers", "2"]);
    let app = launch.directory.path().join("hello.py");
    std::fs::copy(tests_directory("apps").join("hello.py"), &app).unwrap();
    launch.command.env("PYTHONPATH", launch.directory.path());
    let mut running = launch.start();
    running.wait_log(" ready ");
    std::fs::write(&app, "raise RuntimeError('broken release')\n").unwrap();
    let reload = ask(&running, &["reload"]);
    assert_eq!(reload.code, Some(1), "{reload:?}");
    assert!(reload.problem.contains("the old generation was kept: the new generation failed to start"), "{reload:?}");
    assert!(reload.problem.contains("RuntimeError: broken release"), "{reload:?}");
    assert_eq!(serving(&running)["id"], 1);
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_reload_that_a_stop_overtakes_is_answered() {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, "gunicorn", &["--workers", "1"]);
    let slow = launch.directory.path().join("slow");
    let app = launch.directory.path().join("hello.py");
    symlink(tests_directory("apps").join("hello.py"), &app).unwrap();
    launch.command.env("PYTHONPATH", launch.directory.path());
    let mut running = launch.start();
    running.wait_log(" ready ");
    let text = format!("open({:?}, 'w').close()\nimport time\ntime.sleep(600)\n", slow.to_str().unwrap());
    std::fs::remove_file(&app).unwrap();
    std::fs::write(&app, text).unwrap();
    std::thread::scope(|scope| {
        let mut reload = command(&running, &["reload"]);
        let waiting = scope.spawn(move || Answer::from(reload.output().unwrap()));
        wait_until("the new generation", || slow.exists());
        let impatient = ask(&running, &["reload", "--timeout", "50ms"]);
        assert!(impatient.code == Some(1) && impatient.problem.contains("in time"), "{impatient:?}");
        running.signal(Signal::SIGTERM);
        let answer = waiting.join().unwrap();
        assert!(answer.code == Some(1) && answer.problem.contains("stopping"), "{answer:?}");
    });
    assert_eq!(running.wait(), 0, "{}", running.log());
}

#[test]
fn idle_and_hostile_clients_delay_no_others() {
    let Some(mut running) = start("gunicorn") else { return };
    let path = socket(&running);
    let _idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut hostile: Vec<UnixStream> = Vec::new();
    for bytes in
        [vec![b'x'; 1 << 20], vec![0; 4096], b"{\"request\":\n".to_vec(), b"{\"request\":\"status\"".to_vec()]
    {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_write_timeout(Some(PROMPT)).unwrap();
        // The launcher may close the connection in the middle of it.
        let _ = client.write_all(&bytes);
        hostile.push(client);
    }
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(serving(&running)["id"], 1);
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
    let mut answer = String::new();
    hostile[2].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"refused\":{\"why\":\"not a request"), "{answer}");
    assert!(std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().count() < 60);
    let stopped = Instant::now();
    assert_eq!(running.stop(), 0);
    assert!(stopped.elapsed() < Duration::from_secs(10));
}

/// Requests the status repeatedly without reading the answer, on more connections than are kept. All of these answers are
/// made before the last one, which a client awaits for five seconds.
#[test]
fn a_client_that_does_not_read_is_left() {
    let Some(running) = start("gunicorn") else { return };
    let silent: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut client = UnixStream::connect(socket(&running)).unwrap();
            client.write_all(b"{\"request\":\"status\"}\n").unwrap();
            client
        })
        .collect();
    assert_eq!(serving(&running)["id"], 1);
    drop(silent);
}

#[test]
fn a_launcher_on_a_port_of_its_choice_is_found_if_it_is_the_only_one() {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, "gunicorn", &["--workers", "1"]).env("PORT", "0").start();
    running.wait_log(" ready ");
    // Another one that no longer exists does not matter.
    let gone = running.directory.path().join("mcp-launch-127.0.0.1-1.sock");
    drop(std::os::unix::net::UnixListener::bind(gone).unwrap());
    let mut unnamed = command(&running, &["status", "--json"]);
    let status = Answer::from(unnamed.env_remove("PORT").output().unwrap()).json();
    assert_eq!(status["launcher"]["pid"], running.pid().as_raw());
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_a_socket_it_serves_and_says_what_is_missing() {
    let Some(venv) = venv() else { return };
    let mut launch = Launch::app(&venv, "gunicorn", &["--workers", "1"]);
    let file = launch.directory.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    launch.command.env("MCP_LAUNCH_SOCKET", &file);
    let mut running = launch.start();
    running.wait_log("no control socket");
    running.wait_log(" ready ");
    assert_eq!(running.stop(), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn the_live_plan_is_shown_without_secrets() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "2"]).env("MY_API_TOKEN", "hunter2");
    let mut running = launch.start();
    wait_ready(&mut running, 2);
    let plan = ask(&running, &["explain", "--running", "--json"]).json();
    assert_eq!(
        (&plan["server"], &plan["workers"], &plan["app"]),
        (&"gunicorn".into(), &2.into(), &"hello:app".into())
    );
    let argv: Vec<&str> = plan["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(
        (argv.first().map(|name| name.ends_with("gunicorn")), argv.last()),
        (Some(true), Some(&"mcp_launch_guard:app")),
        "{plan}"
    );
    assert!(argv.windows(2).any(|words| words == ["--workers", "2"]), "{plan}");
    assert_eq!(plan["generations"][0]["workers"].as_array().unwrap().len(), 2);
    let text = ask(&running, &["explain", "--running"]);
    assert!(text.out.contains("hello:app") && !text.out.contains("hunter2"), "{text:?}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn the_cause_of_the_exit_is_in_the_termination_log() {
    let Some(venv) = venv() else { return };
    let launch = |name: &str, value: &str| {
        let launch = Launch::app(&venv, "gunicorn", &["--workers", "1"]).env(name, value);
        let log = launch.directory.path().join("termination-log");
        (launch.env("MCP_LAUNCH_TERMINATION_LOG", log.to_str().unwrap()), log)
    };
    let (stopped, log) = launch("X", "");
    let mut running = stopped.start();
    running.wait_log(" ready ");
    assert_eq!(running.stop(), 0);
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.starts_with("stopped status=0 uptime=") && line.lines().count() == 1, "{line}");

    let (failing, log) = launch("IMPORT_FAIL", "1");
    let mut running = failing.start();
    assert_eq!(running.wait(), 3);
    let line = std::fs::read_to_string(&log).unwrap();
    let cause = "exit status=3 cause=boot-failed server=\"exit status 3: RuntimeError: IMPORT_FAIL is set\" after=1 ";
    assert!(line.starts_with(cause), "{line}");

    let (invalid, log) = launch("MCP_LAUNCH_BACKOFF_MAX", "soon");
    let mut running = invalid.start();
    assert_eq!(running.wait(), 78);
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.contains("MCP_LAUNCH_BACKOFF_MAX") && line.lines().count() == 1, "{line}");
}
