//! The workflow that releases: well-formed, without loopholes, and made of the repository's own scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::tools;

fn workflow() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/release.yml")
}

/// Whether a tool finds nothing wrong with a file, and what it says.
fn judge(tool: &Path, arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new(tool).args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The tool finds nothing wrong with the workflow, and something if a text in it is replaced.
fn assert_judged(tool: &str, arguments: &[&str], old: &str, new: &str) {
    let Some(tools) = tools() else { return };
    let tool = tools.join("bin").join(tool);
    let (is_right, said) = judge(&tool, arguments, &workflow());
    assert!(is_right, "{said}");
    let (_directory, wrong) = with(old, new);
    assert!(!judge(&tool, arguments, &wrong).0, "{new} would not be found");
}

fn with(old: &str, new: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(workflow()).unwrap();
    assert!(text.contains(old));
    let path = directory.path().join("release.yml");
    fs::write(&path, text.replacen(old, new, 1)).unwrap();
    (directory, path)
}

#[test]
fn it_follows_the_published_schema() {
    let arguments = ["--builtin-schema", "vendor.github-workflows"];
    assert_judged("check-jsonschema", &arguments, "timeout-minutes: 180", "timeout-minute: 180");
}

#[test]
fn it_has_no_loophole() {
    let arguments = ["--offline", "--no-progress", "--min-severity", "medium"];
    // A shell would execute such a name.
    assert_judged("zizmor", &arguments, "test \"$GITHUB_REF_NAME\"", "test \"${{ github.ref_name }}\"");
}

#[test]
fn the_scripts_that_it_calls_exist() {
    let text = fs::read_to_string(workflow()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let called: Vec<&str> = text.split_whitespace().filter(|word| word.starts_with("scripts/")).collect();
    for script in ["scripts/test", "scripts/release", "scripts/container"] {
        assert!(called.contains(&script), "{script} is not called");
    }
    for script in called {
        assert!(root.join(script).is_file(), "{script}");
    }
}
