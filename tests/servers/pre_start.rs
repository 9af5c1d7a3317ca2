//! Commands before the first start: once, to their end, with nothing left of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::ask::Answer;
use crate::harness::http::get;
use crate::harness::{self, Finished, Launch, Running, is_alive, wait_for, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The fake server with a command before its start. `$OUT` is a directory for the command's files.
fn with_command(command: &str, arguments: &[&str]) -> Launch {
    let launch = Launch::fake("gunicorn", "serve", arguments).env("MCP_LAUNCH_PRE_START", command);
    let out = launch.directory.path().to_owned();
    launch.env("OUT", out)
}

fn notes(directory: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(directory.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The pid that a command has written to a file.
fn noted_pid(running: &Running, name: &str) -> Pid {
    wait_for("the command to begin", || {
        notes(running.directory.path(), name).first().and_then(|line| line.parse().ok()).map(Pid::from_raw)
    })
}

/// Whether no server was ever started.
fn nothing_started(running: &Running) -> bool {
    running.notes("starts").is_empty()
}

#[test]
fn it_runs_once_in_the_working_directory_and_not_again_for_a_reload_or_a_respawn() {
    let launch = with_command("pwd >> $OUT/ran; command -v gunicorn >> $OUT/ran", &[]);
    let root = launch.directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut running = launch.env("APP_ROOT", &root).start();
    running.wait_log("ready generation=1");
    running.signal(Signal::SIGHUP);
    running.wait_log("ready generation=2");
    // Until then a failure of the new generation would be a failed reload, and the old one would serve again.
    running.wait_log("gone generation=1");
    let _ = get(running.port, "/exit/9");
    running.wait_log("ready generation=3");
    let venv = running.directory.path().join("venv/bin/gunicorn");
    let expected = [root.display().to_string(), venv.display().to_string()];
    assert_eq!(notes(running.directory.path(), "ran"), expected, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn what_it_prints_passes_through() {
    let mut running = with_command("echo to-out; echo to-err >&2", &[]).start();
    running.wait_log("ready generation=1");
    assert_eq!(running.stop(), 0);
    assert!(running.out().contains("to-out\n"), "{}", running.out());
    assert!(running.log().contains("to-err\n"), "{}", running.log());
}

#[test]
fn exec_mode_runs_it_too() {
    let launch = with_command("echo $$ >> $OUT/ran", &["--mode", "exec"]).env("FAKE_FATES", "exit=42");
    let mut running = launch.start();
    assert_eq!(running.wait(), 42, "{}", running.log());
    assert_eq!(notes(running.directory.path(), "ran").len(), 1, "{}", running.log());
}

#[test]
fn its_failure_is_final_and_has_its_own_status() {
    let launch = with_command("echo try >> $OUT/ran; exit 7", &["--pre-start-retries", "2", "--restart", "always"]);
    let termination = launch.directory.path().join("termination");
    let mut running = launch.env("MCP_LAUNCH_TERMINATION_LOG", &termination).start();
    assert_eq!(running.wait(), 7, "{}", running.log());
    assert_eq!(notes(running.directory.path(), "ran").len(), 3, "{}", running.log());
    assert!(nothing_started(&running));
    let told = fs::read_to_string(termination).unwrap();
    assert_eq!(told, "exit status=7 cause=pre-start-failed pre_start exit status 7\n");
    running.assert_nothing_left();
}

#[test]
fn it_is_tried_again_until_it_succeeds() {
    let command = "echo try >> $OUT/ran; test $(wc -l < $OUT/ran) -eq 2";
    let mut running = with_command(command, &["--pre-start-retries", "5"]).start();
    running.wait_log("ready generation=1");
    assert_eq!(notes(running.directory.path(), "ran").len(), 2, "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
    let command = "sleep 600 & echo $! > $OUT/child; wait";
    let mut running = with_command(command, &["--pre-start-timeout", "1s"]).start();
    let child = noted_pid(&running, "child");
    assert_eq!(running.wait(), 69, "{}", running.log());
    assert!(running.log().contains("did not finish within 1s"), "{}", running.log());
    assert!(!is_alive(child) && nothing_started(&running));
    running.assert_nothing_left();
}

#[test]
fn what_a_command_leaves_behind_is_ended_before_the_server_starts() {
    let command = "trap '' TERM; setsid sleep 600 & echo $! > $OUT/child";
    let mut running = with_command(command, &[]).start();
    let child = noted_pid(&running, "child");
    running.wait_log("ready generation=1");
    assert!(!is_alive(child), "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_stop_ends_it_and_nothing_is_started() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let command =
            "trap 'echo stopped > $OUT/trap; exit 3' TERM; echo $$ > $OUT/pid; while :; do sleep 0.01; done";
        let mut running = with_command(command, &[]).start();
        noted_pid(&running, "pid");
        running.signal(signal);
        assert_eq!(running.wait(), 0, "{}", running.log());
        assert_eq!(notes(running.directory.path(), "trap"), ["stopped"], "{}", running.log());
        assert!(nothing_started(&running));
        running.assert_nothing_left();
    }
}

#[test]
fn one_that_does_not_listen_is_killed_within_the_stop_budget() {
    let command = "trap '' TERM; echo $$ > $OUT/pid; while :; do sleep 1; done";
    let mut running = with_command(command, &["--stop-timeout", "1s"]).start();
    noted_pid(&running, "pid");
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    running.assert_nothing_left();
}

#[test]
fn a_second_signal_does_not_wait() {
    let command = "trap '' TERM; echo $$ > $OUT/pid; while :; do sleep 1; done";
    let mut running = with_command(command, &[]).start();
    noted_pid(&running, "pid");
    running.signal(Signal::SIGTERM);
    running.wait_log("signal");
    let start = Instant::now();
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_stop_between_two_tries_is_heard() {
    let arguments = ["--pre-start-retries", "1", "--backoff-initial", "1h", "--backoff-max", "1h"];
    let mut running = with_command("exit 1", &arguments).start();
    running.wait_log("pre-start failed");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 0, "{}", running.log());
}

#[test]
fn a_reload_that_is_asked_for_meanwhile_comes_after_the_start() {
    let mut running = with_command("echo $$ > $OUT/pid; until test -e $OUT/go; do sleep 0.01; done", &[]).start();
    noted_pid(&running, "pid");
    running.signal(Signal::SIGHUP);
    fs::write(running.directory.path().join("go"), "").unwrap();
    running.wait_log("ready generation=2");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Another shell in the same container: the exit status, and the line on standard output, or else on standard error.
fn ask(running: &Running, arguments: &[&str]) -> (Option<i32>, String) {
    let Answer { code, out, problem } = harness::ask::ask(running, arguments);
    (code, if out.is_empty() { problem } else { out })
}

#[test]
fn who_asks_meanwhile_is_answered() {
    let mut running = with_command("until test -e $OUT/go; do sleep 0.01; done", &[]).start();
    running.wait_log("pre-start");
    let ready = (Some(1), "not ready: starting, pre_start runs\n".to_owned());
    assert_eq!(ask(&running, &["health"]), ready);
    // A liveness probe must not lead to a restart in the middle of a migration.
    assert_eq!(ask(&running, &["health", "--live"]), (Some(0), "live: starting, pre_start runs\n".to_owned()));
    let (code, status) = ask(&running, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((code, &status["launcher"]["phase"]), (Some(0), &"starting".into()));
    assert_eq!(status["generations"].as_array().unwrap().len(), 0);
    let (code, plan) = ask(&running, &["explain", "--running"]);
    assert!(code == Some(0) && plan.contains("pre-start"), "{plan}");
    let (code, refused) = ask(&running, &["reload"]);
    assert!(code == Some(1) && refused.contains("not serving yet"), "{refused}");
    fs::write(running.directory.path().join("go"), "").unwrap();
    running.wait_log("ready generation=1");
    assert_eq!(ask(&running, &["health"]), (Some(0), "ready: serving\n".to_owned()));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn who_asks_between_two_tries_is_answered_too() {
    let arguments = ["--pre-start-retries", "1", "--backoff-initial", "1h", "--backoff-max", "1h"];
    let mut running = with_command("exit 1", &arguments).start();
    running.wait_log("pre-start failed");
    assert_eq!(ask(&running, &["health"]).0, Some(1));
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert_eq!(ask(&running, &["health"]).0, Some(3), "the socket is removed with the launcher");
}

#[test]
fn the_launchers_death_ends_it() {
    let mut running = with_command("sleep 600", &[]).start();
    wait_until("the command to begin", || !running.descendants().is_empty());
    let command = running.descendants();
    running.signal(Signal::SIGKILL);
    running.wait();
    wait_until("the command to end", || command.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_command_that_is_not_there_is_found_out_before_anything_starts() {
    for arguments in [&[][..], &["check"]] {
        let mut launch = Launch::fake("gunicorn", "serve", &[]).env("MCP_LAUNCH_PRE_START", "no-such-command now");
        if let [first] = arguments {
            let mut command = std::process::Command::new(harness::PROGRAM);
            command.arg(first).args(launch.command.get_args()).env_clear();
            command.envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            launch.command = command;
        }
        let Finished { code, log, .. } = launch.finish();
        assert_eq!(code, 127, "{log}");
        assert!(log.contains("command not found: no-such-command (from environment MCP_LAUNCH_PRE_START)"), "{log}");
    }
}

/// The fake server with a pip that records its arguments and fails the first times.
fn with_pip(failures: usize) -> Launch {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let root = launch.directory.path().join("root");
    fs::create_dir_all(root.join("plugins")).unwrap();
    fs::write(root.join("plugins/requirements.txt"), "a-plugin\n").unwrap();
    let modules = launch.directory.path().join("modules");
    fs::create_dir(&modules).unwrap();
    let pip = format!(
        "import os, sys\nopen(os.environ['OUT'] + '/pip', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n\
         sys.exit(len(open(os.environ['OUT'] + '/pip').readlines()) <= {failures})\n"
    );
    fs::write(modules.join("pip.py"), pip).unwrap();
    let out = launch.directory.path().to_owned();
    launch
        .env("APP_ROOT", &root)
        .env("PYTHONPATH", &modules)
        .env("OUT", out)
        .env("RELOAD_PLUGIN_REQUIREMENTS_TXT", "true")
        .env("PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS", "0.05")
}

#[test]
fn the_plugins_requirements_are_installed_as_the_old_entrypoint_did() {
    let mut running = with_pip(2).start();
    running.wait_log("ready generation=1");
    let install = "install --no-cache-dir -r plugins/requirements.txt";
    assert_eq!(notes(running.directory.path(), "pip"), [install; 3], "{}", running.log());
    assert_eq!(running.stop(), 0);
    let mut running = with_pip(3).start();
    assert_eq!(running.wait(), 1, "{}", running.log());
    assert!(nothing_started(&running));
}

#[test]
fn requirements_outside_the_app_root_are_refused() {
    let launch = with_pip(0);
    let directory = launch.directory.path().to_owned();
    let outside = directory.join("outside.txt");
    fs::write(&outside, "").unwrap();
    symlink(&outside, directory.join("root/plugins/link.txt")).unwrap();
    let (program, args): (_, Vec<_>) = (launch.command.get_program().to_owned(), launch.command.get_args().collect());
    let env = || launch.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    for (path, why) in [
        (outside.to_str().unwrap(), "outside"),
        ("plugins/link.txt", "outside"),
        ("../outside.txt", "outside"),
        ("plugins/missing.txt", "does not exist"),
        ("plugins", "is not a regular file"),
    ] {
        let mut command = std::process::Command::new(&program);
        command.args(&args).env_clear().envs(env()).env("PLUGIN_REQUIREMENTS_TXT_PATH", path);
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{path}: {log}");
        assert!(log.contains(why) && log.contains("PLUGIN_REQUIREMENTS_TXT_PATH"), "{path}: {log}");
    }
    assert!(notes(&directory, "pip").is_empty());
}
