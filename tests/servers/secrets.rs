//! No secret is shown by any command, in the log or in the termination log, in any form.

use std::process::Command;

use crate::harness::ask::{Answer, command};
use crate::harness::{Launch, PROGRAM};

/// The text that every secret here contains, and nothing else.
const MARK: &str = "Hunter2";

/// A launcher with secrets in its environment, its commands and its arguments.
fn launch(pre_start: &str) -> Launch {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let log = launch.directory.path().join("termination-log");
    let mut launch = launch
        .env("API_TOKEN", "SHunter2abc==")
        .env("GUNICORN_CMD_ARGS", "--env API_TOKEN=Hunter2= --env 'X_HEADER=Authorization: Bearer Hunter2.x'")
        .env("WEB_CONCURRENCY", "postgres://app:Hunter2/x@db/x")
        .env("GUNICORN_WORKRES", "{\"password\": \"Hunter2 and more\"}")
        .env("MCP_LAUNCH_TERMINATION_LOG", log)
        .env("MCP_LAUNCH_PRE_START", pre_start);
    launch.command.args(["--", "--env", "DB_PASSWORD=Hunter2 x", "--statsd-host", "https://u:Hunter2@host"]);
    launch
}

const FORMS: &str = "--password Hunter2 --password='a Hunter2' --url https://u:Hunter2@host/?token=Hunter2 \
    -H 'Authorization: Bearer Hunter2' '{\"secret\": \"a Hunter2\"}' TOKEN=Hunter2==";

#[track_caller]
fn assert_hidden(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(MARK));
    assert!(line.is_none(), "{what}: {line:?}");
}

/// Runs a command in the environment of a launcher, before its arguments.
fn ask(launch: &Launch, words: &[&str], env: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(PROGRAM);
    command.args(words).args(launch.command.get_args()).env_clear().current_dir(launch.directory.path());
    command.envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs(env.iter().copied()).output().unwrap().into()
}

#[test]
fn what_is_planned_is_shown_without_secrets() {
    let launch = launch(&format!("true {FORMS}"));
    let broken = [("HOST", "https://u:Hunter2@host"), ("MCP_LAUNCH_PRE_START", "no-such-command --password Hunter2")];
    for words in [&["explain"][..], &["explain", "--json"], &["check"]] {
        for env in [&broken[..], &[]] {
            let answer = ask(&launch, words, env);
            assert!(!answer.out.is_empty() || !answer.problem.is_empty());
            assert_hidden(&format!("{words:?}"), &(answer.out + &answer.problem));
        }
    }
}

#[test]
fn what_runs_is_shown_without_secrets() {
    let mut running = launch(&format!("true {FORMS}")).env("WEB_CONCURRENCY", "1").start();
    running.wait_log(" ready ");
    for words in
        [&["explain", "--running"][..], &["explain", "--running", "--json"], &["status"], &["status", "--json"]]
    {
        let answer = Answer::from(command(&running, words).output().unwrap());
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert_hidden(&format!("{words:?}"), &answer.out);
    }
    assert_eq!(running.stop(), 0);
    assert!(running.log().contains("--password ********"), "{}", running.log());
    assert_hidden("the log", &running.log());
}

/// They reach the server, except our own.
#[test]
fn what_an_env_file_contains_is_shown_without_secrets() {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let file = launch.directory.path().join("app.env");
    let content = "API_TOKEN=Hunter2\nDATABASE_URL=postgres://app:Hunter2@db/x\nKEY_FILE_PASSWORD=Hunter2\n";
    std::fs::write(&file, content).unwrap();
    let launch = launch.env("MCP_LAUNCH_ENV_FILE", &file);
    for words in [&["explain"][..], &["explain", "--json"], &["check"]] {
        let answer = ask(&launch, words, &[]);
        assert_hidden(&format!("{words:?}"), &(answer.out + &answer.problem));
    }
    let mut running = launch.start();
    running.wait_log(" ready ");
    for words in [&["explain", "--running"][..], &["explain", "--running", "--json"], &["status", "--json"]] {
        let answer = Answer::from(command(&running, words).output().unwrap());
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert_hidden(&format!("{words:?}"), &answer.out);
    }
    let server = std::fs::read(format!("/proc/{}/environ", running.children()[0])).unwrap();
    let server = String::from_utf8_lossy(&server);
    assert!(server.contains("API_TOKEN=Hunter2") && !server.contains("KEY_FILE_PASSWORD"), "{server}");
    std::fs::write(&file, format!("{content}export API_TOKEN=Hunter2\nHOST=Hunter2\n")).unwrap();
    let refused = Answer::from(command(&running, &["reload"]).output().unwrap());
    assert!(refused.code == Some(1) && refused.problem.contains("app.env line 4 "), "{refused:?}");
    assert_hidden("the answer", &refused.problem);
    assert_eq!(running.stop(), 0);
    assert_hidden("the log", &running.log());
}

#[test]
fn why_it_ended_is_told_without_secrets() {
    let mut running = launch(&format!("false {FORMS}")).env("WEB_CONCURRENCY", "1").start();
    assert_ne!(running.wait(), 0);
    let told = std::fs::read_to_string(running.directory.path().join("termination-log")).unwrap();
    assert!(told.contains("pre-start"), "{told}");
    assert_hidden("the log", &running.log());
    assert_hidden("the termination log", &told);
}
