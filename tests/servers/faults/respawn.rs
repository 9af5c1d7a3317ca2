//! What dies is started again, or the launcher gives up, and the status shows why.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::http::{answer, ask, get, request};
use crate::harness::{
    self, Launch, Running, children, descendants, is_alive, is_stopped, tests_directory, venv, wait_for, wait_until,
};

/// A real server with two workers, ready.
fn real(server: &str) -> Option<Running> {
    let mut running = Launch::app(&venv()?, server, &["--workers", "2"]).start();
    running.wait_log("ready generation=");
    wait_until("both workers", || answering_workers(&running).len() == 2);
    Some(running)
}

/// The workers, as they identify themselves in enough responses.
fn answering_workers(running: &Running) -> std::collections::BTreeSet<Pid> {
    let answers = (0..20).filter_map(|_| get(running.port, "/pid").ok());
    let digits = |text: String| text.chars().filter(char::is_ascii_digit).collect::<String>();
    answers.filter_map(|answer| Some(Pid::from_raw(digits(answer.body).parse().ok()?))).collect()
}

fn all_killed_is_respawned(server: &str) {
    let Some(mut running) = real(server) else { return };
    let all = running.descendants();
    for pid in &all {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    running.wait_log_count("ready generation=", 2);
    wait_until("an answer", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
    assert!(all.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn survivors_of_a_killed_main_process_leave_when_the_replacement_is_ready(server: &str) {
    let Some(mut running) = real(server) else { return };
    let survivors = answering_workers(&running);
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    running.wait_log("its workers keep serving");
    running.wait_log_count("ready generation=", 2);
    wait_until("the survivors to leave", || survivors.iter().all(|pid| !is_alive(*pid)));
    wait_until("the new workers", || answering_workers(&running).len() == 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn a_killed_worker_is_replaced_by_the_server_and_the_generation_stays(server: &str) {
    let Some(mut running) = real(server) else { return };
    let main = running.children()[0];
    let before = answering_workers(&running);
    let victim = *before.first().unwrap();
    kill(victim, Signal::SIGKILL).unwrap();
    wait_until("a new worker", || {
        let now = answering_workers(&running);
        now.len() == 2 && !now.contains(&victim)
    });
    assert_eq!(running.children(), [main]);
    assert_eq!(running.log().matches("ready generation=").count(), 1, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn an_app_that_raises_on_import_ends_it_with_the_servers_status(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "1"]).env("IMPORT_FAIL", "1").start();
    let status = running.wait();
    // Gunicorn without preloading: 3. Granian: 1.
    assert_eq!(status, if server == "gunicorn" { 3 } else { 1 }, "{}", running.log());
    assert!(running.log().contains("boot-failed"), "{}", running.log());
    running.assert_nothing_left();
}

fn an_app_that_takes_8_s_to_import_is_waited_for(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1", "--startup-timeout", "30s"]);
    let mut running = launch.env("IMPORT_SLEEP", "8").start();
    running.wait_log("ready generation=");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.notes("starts").len(), 0);
    assert!(!running.log().contains("respawn"), "{}", running.log());
}

fn an_import_that_takes_longer_than_the_startup_timeout_is_69(server: &str) {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, server, &["--workers", "1", "--startup-timeout", "1s", "--stop-timeout", "3s"]);
    let mut running = launch.env("IMPORT_SLEEP", "60").start();
    assert_eq!(running.wait(), 69, "{}", running.log());
    running.assert_nothing_left();
}

crate::for_both_servers!(
    all_killed_is_respawned,
    survivors_of_a_killed_main_process_leave_when_the_replacement_is_ready,
    a_killed_worker_is_replaced_by_the_server_and_the_generation_stays,
    an_app_that_raises_on_import_ends_it_with_the_servers_status,
    an_app_that_takes_8_s_to_import_is_waited_for,
    an_import_that_takes_longer_than_the_startup_timeout_is_69,
    workers_that_die_again_and_again_at_the_start_end_it_soon,
);

#[test]
fn a_failing_lifespan_under_gunicorn_ends_it_with_3() {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, "gunicorn", &["--workers", "1"]).env("LIFESPAN_FAIL", "1").start();
    assert_eq!(running.wait(), 3, "{}", running.log());
    running.assert_nothing_left();
}

/// Fails before readiness with a status that means "cannot boot" for this server.
#[track_caller]
fn boot_failure_is_final(server: &str, status: i32) {
    let mut running = Launch::fake(server, &format!("exit={status}"), &[]).start();
    assert_eq!(running.wait(), status, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 1, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn exit_1_3_and_4_before_readiness_are_final_under_gunicorn() {
    for status in [1, 3, 4] {
        boot_failure_is_final("gunicorn", status);
    }
}

#[test]
fn exit_1_before_readiness_is_final_under_granian() {
    boot_failure_is_final("granian", 1);
}

#[test]
fn another_status_before_readiness_is_tried_again_up_to_the_limit() {
    let mut running =
        Launch::fake("gunicorn", "exit=1;exit=77", &["--restart", "always", "--restart-limit", "2"]).start();
    assert_eq!(running.wait(), 77, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 3, "{}", running.log());
    assert!(running.log().contains("too-many-failures"), "{}", running.log());
}

#[test]
fn exit_1_3_and_4_after_readiness_are_respawned() {
    let mut running = Launch::fake("gunicorn", "serve", &["--restart-limit", "10"]).start();
    for (count, status) in [1, 3, 4].into_iter().enumerate() {
        running.wait_log_count("ready generation=", count + 1);
        let _ = get(running.port, &format!("/exit/{status}"));
        running.wait_log(&format!("exit status {status}"));
    }
    running.wait_log_count("ready generation=", 4);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_boot_failure_of_a_plan_that_was_ready_once_is_tried_again() {
    let mut running = Launch::fake("gunicorn", "serve;exit=3;exit=1;serve", &[]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/9");
    running.wait_log_count("ready generation=", 2);
    assert_eq!(running.notes("starts").len(), 4);
    assert_eq!(running.stop(), 0);
}

#[test]
fn exit_0_at_once_is_a_failed_start() {
    let mut running = Launch::fake("gunicorn", "exit=0", &[]).start();
    assert_eq!(running.wait(), 69, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 1);
}

#[test]
fn a_server_that_never_answers_is_69_and_nothing_is_left() {
    for server in ["gunicorn", "granian"] {
        let mut running = Launch::fake(server, "hang", &["--startup-timeout", "500ms"]).start();
        assert_eq!(running.wait(), 69, "{server}: {}", running.log());
        running.assert_nothing_left();
    }
}

#[test]
fn a_server_that_hangs_after_it_was_ready_once_is_started_again() {
    let mut running = Launch::fake("gunicorn", "serve;hang;serve", &["--startup-timeout", "2s"]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/9");
    running.wait_log_count("ready generation=", 2);
    wait_until("the hung one to be gone", || running.children().len() == 1);
    assert_eq!(running.notes("starts").len(), 3, "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_restarts_the_servers_status_is_the_end() {
    let mut running = Launch::fake("gunicorn", "serve", &["--restart", "no"]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/7");
    assert_eq!(running.wait(), 7, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 1);
    running.assert_nothing_left();
}

#[test]
fn a_clean_exit_is_the_end_unless_restarts_are_always_wanted() {
    let mut running = Launch::fake("gunicorn", "serve", &[]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/0");
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_eq!(running.notes("starts").len(), 1);

    let mut running = Launch::fake("gunicorn", "serve", &["--restart", "always"]).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/0");
    running.wait_log_count("ready generation=", 2);
}

#[test]
fn one_failure_too_many_ends_it_with_the_last_status() {
    let mut running = Launch::fake("granian", "serve", &["--restart-limit", "2"]).start();
    for (count, status) in [11, 12, 13].into_iter().enumerate() {
        running.wait_log_count("ready generation=", count + 1);
        let _ = get(running.port, &format!("/exit/{status}"));
    }
    assert_eq!(running.wait(), 13, "{}", running.log());
    running.assert_nothing_left();
}

#[test]
fn the_first_respawn_is_immediate_and_the_next_ones_wait_longer_and_longer() {
    let fates = "serve;exit=9;exit=9;exit=9;serve";
    let arguments = ["--backoff-initial", "40ms", "--backoff-max", "10s"];
    let mut running = Launch::fake("gunicorn", fates, &arguments).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/9");
    running.wait_log_count("ready generation=", 2);
    let log = running.log();
    let waits = log.lines().filter_map(|line| line.split_once("next=\"")?.1.split('"').next());
    let seconds = waits.map(|wait| match wait.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().unwrap() / 1000.0,
        None => wait.trim_end_matches('s').parse().unwrap(),
    });
    let seconds: Vec<f64> = seconds.collect();
    assert_eq!(seconds.len(), 4, "{log}");
    assert!(seconds[0] < 0.001, "{log}");
    assert!(seconds[1..].is_sorted() && seconds[3] >= 0.1, "{seconds:?}\n{log}");
}

#[test]
fn the_first_respawn_does_not_wait() {
    let arguments = ["--backoff-initial", "1h", "--backoff-max", "1h"];
    let mut running = Launch::fake("gunicorn", "serve", &arguments).start();
    running.wait_log("ready generation=");
    for pid in running.descendants() {
        let _ = kill(pid, Signal::SIGKILL);
    }
    running.wait_log_count("ready generation=", 2);
}

/// A launcher whose server is dead and will not be started again for an hour.
fn between_generations(server: &str) -> Running {
    let arguments = ["--backoff-initial", "1h", "--backoff-max", "1h"];
    let mut running = Launch::fake(server, "serve;exit=9", &arguments).start();
    running.wait_log("ready generation=");
    let _ = get(running.port, "/exit/9");
    running.wait_log_count("respawn", 2);
    wait_until("nothing to run", || running.descendants().is_empty());
    running
}

#[test]
fn the_port_cannot_be_stolen_between_two_generations() {
    for server in ["gunicorn", "granian"] {
        let running = between_generations(server);
        let stolen = std::net::TcpListener::bind(("127.0.0.1", running.port));
        assert_eq!(stolen.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{server}");
    }
}

#[test]
fn a_client_that_comes_between_two_generations_of_gunicorn_is_answered_by_the_next() {
    let arguments = ["--backoff-initial", "1s", "--backoff-max", "1s"];
    let mut running = Launch::fake("gunicorn", "serve;exit=9;serve", &arguments).start();
    running.wait_log("ready generation=");
    let first = get(running.port, "/").unwrap().body;
    let _ = get(running.port, "/exit/9");
    running.wait_log_count("respawn", 2);
    let client = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    assert_ne!(ask(client, "/").unwrap(), first);
}

#[test]
fn a_client_that_waits_when_everything_dies_is_answered_by_the_next_generation() {
    let mut running = Launch::fake("gunicorn", "serve", &[]).start();
    running.wait_log("ready generation=");
    // The main process first: its end is noticed first.
    let all = running.descendants();
    for pid in &all {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    wait_until("everything to be stopped", || all.iter().all(|pid| is_stopped(*pid)));
    let mut client = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    request(&mut client, "/");
    for pid in &all {
        kill(*pid, Signal::SIGKILL).unwrap();
    }
    let body = answer(client).unwrap_or_else(|error| panic!("{error}: {}", running.log()));
    assert!(!all.contains(&Pid::from_raw(body.parse().unwrap())), "{}", running.log());
}

#[test]
fn processes_that_outlive_failures_do_not_outlive_the_end() {
    let mut running =
        Launch::fake("gunicorn", "serve stray", &["--restart-limit", "3", "--stop-timeout", "2s"]).start();
    for count in 1..=4 {
        running.wait_log_count("ready generation=", count);
        wait_until("the stray", || running.notes("stray").len() == count);
        let main = wait_for("a main process", || running.notes("starts").get(count - 1).copied());
        wait_until("its worker", || !children(main).is_empty());
        for pid in descendants(main).into_iter().chain([main]) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    assert_eq!(running.wait(), 137, "{}", running.log());
    running.assert_nothing_left();
}

/// An app whose import ends the worker, as a native extension that crashes does, after this many seconds.
fn dying(server: &str, workers: &str, seconds: f64) -> Option<Launch> {
    let launch = Launch::app(&venv()?, server, &["--workers", workers]);
    write_app(&launch, &format!("import os, time\ntime.sleep({seconds})\nos._exit(1)\n"));
    let mut launch = launch.replacing_argument("hello:app", "release:app").env("PYTHONDONTWRITEBYTECODE", "1");
    launch.command.env("PYTHONPATH", launch.directory.path());
    Some(launch)
}

/// Puts this in front of an app that works.
fn write_app(launch: &Launch, first: &str) {
    let original = std::fs::read_to_string(tests_directory("apps").join("hello.py")).unwrap();
    std::fs::write(launch.directory.path().join("release.py"), format!("{first}\n{original}")).unwrap();
}

fn workers_that_die_again_and_again_at_the_start_end_it_soon(server: &str) {
    // Granian ends by itself if one worker dies twice within 5.5 s.
    let (workers, seconds) = if server == "gunicorn" { ("2", 0.2) } else { ("3", 6.0) };
    let Some(launch) = dying(server, workers, seconds) else { return };
    let begun = Instant::now();
    let mut running = launch.start();
    let status = running.wait();
    let (took, log) = (begun.elapsed(), running.log());
    assert_eq!(status, 69, "{log}");
    assert!(log.contains("the workers die again and again before they are ready"), "{log}");
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(30), "{took:?} {log}");
    assert_eq!(log.matches("worker exit generation=1").count(), 1, "{log}");
    let more = log.split_once("…and ").map(|(_, rest)| rest.split(' ').next().unwrap().parse::<u32>());
    assert!(more.is_some_and(|more| more.is_ok_and(|more| more >= 4)), "{log}");
    running.assert_nothing_left();
}

#[test]
fn a_reload_to_a_release_whose_workers_die_again_and_again_is_refused_soon_with_the_reason() {
    let Some(launch) = dying("gunicorn", "2", 0.0) else { return };
    write_app(&launch, "");
    let mut running = launch.start();
    running.wait_log("ready generation=1");
    let app = running.directory.path().join("release.py");
    std::fs::write(app, "import os\nos._exit(1)\nasync def app(scope, receive, send): ...\n").unwrap();
    let reload = harness::ask::ask(&running, &["reload"]);
    assert_eq!(reload.code, Some(1), "{reload:?}");
    assert!(reload.problem.contains("its workers die before they are ready: exit status 1"), "{reload:?}");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}
