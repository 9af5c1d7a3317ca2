//! Every command in the README works as it is written there.

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Launch, Running, venv};

/// The lines of the README's shell blocks that begin with this word, without their comments.
fn commands(word: &str) -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            let words: Vec<String> = line.split('#').next().unwrap().split_whitespace().map(str::to_owned).collect();
            if words.first().is_some_and(|first| first.starts_with(word)) {
                found.push(words);
            }
        }
    }
    found
}

fn launch(arguments: &[String], venv: &Path) -> Launch {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let launch = Launch::new(&arguments).env("VIRTUAL_ENV", venv.to_str().unwrap());
    let package = launch.directory.path().join("my");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("__init__.py"), "").unwrap();
    std::fs::copy(harness::tests_directory("apps").join("hello.py"), package.join("app.py")).unwrap();
    launch
}

#[test]
fn the_scripts_are_there_and_know_their_flags() {
    let scripts = commands("scripts/");
    assert!(scripts.len() >= 3);
    for words in scripts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&words[0]);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_ne!(mode & 0o111, 0, "{} is not executable", words[0]);
        let syntax = Command::new("bash").arg("-n").arg(&path).status().unwrap();
        assert!(syntax.success(), "{}", words[0]);
    }
}

#[test]
fn the_commands_work_as_written() {
    let Some(venv) = venv() else { return };
    let mut serving: Option<Running> = None;
    for words in commands("mcp-launch") {
        let arguments = &words[1..];
        if arguments[0].starts_with("--") {
            if let Some(mut before) = serving.take() {
                assert_eq!(before.stop(), 0, "{}", before.log());
            }
            let mut running = launch(arguments, &venv).start();
            running.wait_log(" ready ");
            serving = Some(running);
        } else if ["status", "reload", "health"].contains(&arguments[0].as_str()) {
            let running = serving.as_ref().expect("a launcher to ask");
            let output = Command::new(harness::PROGRAM)
                .args(arguments)
                .env("XDG_RUNTIME_DIR", running.directory.path())
                .env("PORT", running.port.to_string())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}\n{}", running.log());
        } else {
            let finished = launch(arguments, &venv).finish();
            assert_eq!(finished.code, 0, "{words:?}: {}", finished.log);
        }
    }
    assert_eq!(serving.expect("a launcher").stop(), 0);
}
