//! Every command in the documents works as written, and their links have targets.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{self, Launch, Running, venv};

/// In the order in which their commands are run: a launcher that one of them starts answers the following commands.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "config/README.md",
    "config/kubernetes/README.md",
    "scripts/RESULTS.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(document: &str) -> String {
    std::fs::read_to_string(in_project(document)).unwrap()
}

/// The lines of the documents' shell blocks that begin with this word, without their comments.
fn commands(word: &str) -> Vec<Vec<String>> {
    DOCUMENTS.iter().flat_map(|document| commands_in(&read(document), word)).collect()
}

fn commands_in(document: &str, word: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in document.lines() {
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

/// The relative targets of a document's links.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("https://")).collect()
}

#[test]
fn links_lead_to_files_that_exist() {
    for document in DOCUMENTS {
        let text = read(document);
        for target in links(&text) {
            let path = in_project(document).parent().unwrap().join(target.split('#').next().unwrap());
            assert!(path.exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn the_readme_is_short_enough_to_be_read() {
    assert!(read("README.md").len() <= 16 * 1024);
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
        let path = in_project(&words[0]);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_ne!(mode & 0o111, 0, "{} is not executable", words[0]);
        let syntax = Command::new("bash").arg("-n").arg(&path).status().unwrap();
        assert!(syntax.success(), "{}", words[0]);
    }
}

fn asks_the_running_launcher(arguments: &[String]) -> bool {
    ["status", "stacks", "top", "reload", "health"].contains(&arguments[0].as_str())
        || arguments.iter().any(|it| it == "--running")
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
        } else if asks_the_running_launcher(arguments) {
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
