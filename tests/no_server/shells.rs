//! Completions and man page, as read by the programs for which they are made.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::harness;
use crate::harness::has;

struct Made {
    directory: tempfile::TempDir,
    path: PathBuf,
}

/// A file with the program's output.
fn made(arguments: &[&str], name: &str) -> Made {
    let output = Command::new(harness::PROGRAM).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, output.stdout).unwrap();
    Made { directory, path }
}

fn run(command: &mut Command) -> Output {
    command.env("LC_ALL", "C.UTF-8").stdin(std::process::Stdio::null()).output().unwrap()
}

#[track_caller]
fn assert_quiet(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[track_caller]
fn assert_offers(output: &Output, word: &str) {
    assert_quiet(output);
    let offered = String::from_utf8_lossy(&output.stdout);
    assert!(offered.split_whitespace().any(|offer| offer == word), "{offered}");
}

#[test]
fn bash_completes() {
    if !has("bash") {
        return;
    }
    let script = made(&["completions", "bash"], "mcp-launch.bash");
    let complete = r#"
        source "$1"
        [[ $(complete -p mcp-launch) =~ -F\ ([^ ]+) ]] && function=${BASH_REMATCH[1]}
        ask() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            "$function" mcp-launch "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            printf '%s\n' "${COMPREPLY[@]}"
        }
        ask mcp-launch hea && ask mcp-launch --server g"#;
    let output = run(Command::new("bash").args(["--norc", "-c", complete, "bash"]).arg(&script.path));
    assert_offers(&output, "health");
    assert_offers(&output, "granian");
}

#[test]
fn zsh_loads_its_completions() {
    if !has("zsh") {
        return;
    }
    let script = made(&["completions", "zsh"], "_mcp-launch");
    let load = r#"
        fpath=("$1" $fpath)
        autoload -Uz compinit && compinit -u -D
        autoload +X _mcp-launch && print -r -- "${_comps[mcp-launch]}""#;
    let folder = script.directory.path();
    let output = run(Command::new("zsh").args(["-f", "-c", load, "zsh"]).arg(folder).env("HOME", folder));
    assert_offers(&output, "_mcp-launch");
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return;
    }
    let script = made(&["completions", "fish"], "mcp-launch.fish");
    let complete = "source $argv[1]; complete -C 'mcp-launch hea'; complete -C 'mcp-launch reload --server g'";
    let home = script.directory.path();
    let command = &mut Command::new("fish");
    let output = run(command.args(["--no-config", "-c", complete]).arg(&script.path).env("HOME", home));
    assert_offers(&output, "health");
    assert_offers(&output, "granian");
}

#[test]
fn man_shows_the_page_without_a_warning() {
    if !(has("man") && has("groff")) {
        return;
    }
    let page = made(&["man"], "mcp-launch.1");
    let command = &mut Command::new("man");
    let output = run(command.args(["--warnings", "--local-file"]).arg(&page.path).env("MANWIDTH", "80"));
    assert_quiet(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("MCP_LAUNCH_STOP_TIMEOUT"));
}

#[test]
fn mandoc_takes_the_page() {
    if !has("mandoc") {
        return;
    }
    let page = made(&["man"], "mcp-launch.1");
    let output = run(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page.path));
    assert!(output.status.success(), "{output:?}");
}
