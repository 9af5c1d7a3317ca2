//! The results of `scripts/release`: complete, reproducible, and installable without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{release, tools};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The only file in the folder with this extension.
fn only(folder: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

fn archive_name() -> String {
    format!("mcp-launch-{VERSION}-{}-linux", std::env::consts::ARCH)
}

#[test]
fn the_checksums_are_right() {
    let Some(release) = release() else { return };
    let checked =
        text(run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(release)));
    assert_eq!(checked.lines().count(), 2, "{checked}");
}

#[test]
fn the_archive_has_what_an_administrator_needs_and_it_runs() {
    let Some(release) = release() else { return };
    let directory = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("xzf").arg(only(&release, ".tar.gz")).arg("-C").arg(directory.path()));
    let folder = directory.path().join(archive_name());
    for name in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "completions/mcp-launch.bash",
        "completions/_mcp-launch",
        "completions/mcp-launch.fish",
        "man/mcp-launch.1",
        "mcp-launch.cdx.json",
        "config/README.md",
        "config/install.md",
        "config/mcp-launch.toml",
        "config/systemd/mcp-launch.service",
        "config/systemd/mcp-launch.socket",
        "config/kubernetes/base/kustomization.yaml",
        "config/kubernetes/granian/kustomization.yaml",
        "config/helm/mcp-launch/Chart.yaml",
    ] {
        let length = fs::metadata(folder.join(name)).map(|found| found.len());
        assert!(length.as_ref().is_ok_and(|length| *length > 0), "{name}: {length:?}");
    }
    let version = text(run(Command::new(folder.join("mcp-launch")).arg("--version").env_clear()));
    assert_eq!(version.trim(), format!("mcp-launch {VERSION}"));
}

#[test]
fn the_archive_does_not_show_who_packed_it_or_when() {
    let Some(release) = release() else { return };
    let mut list = Command::new("tar");
    list.args(["--numeric-owner", "--full-time", "-tvzf"]).arg(only(&release, ".tar.gz")).env("TZ", "UTC");
    let listed = text(run(&mut list));
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|fields| fields[5]).collect();
    assert!(names.is_sorted(), "{names:?}");
    for fields in &lines {
        assert_eq!(fields[1], "0/0", "{fields:?}");
        assert_eq!(fields[3..5], lines[0][3..5], "{fields:?}");
        assert!(fields[5].starts_with(&archive_name()), "{fields:?}");
    }
}

/// Two more runs that differ only in the folder.
#[test]
fn the_same_binary_gives_the_same_files_again() {
    let Some(release) = release() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release");
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(script);
    // Variables that cargo sets for a test: crates with a build script would consider them changed.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_CRATE_NAME" {
            command.env_remove(&*name);
        }
    }
    run(command.arg(directory.path()));
    let sums = |folder: &Path| fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(directory.path()), sums(&release));
}

#[test]
fn archive_and_wheel_say_which_crates_are_in_the_binary() {
    let (Some(release), Some(tools)) = (release(), tools()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}/mcp-launch.cdx.json", archive_name());
    run(Command::new("tar").arg("xzf").arg(only(&release, ".tar.gz")).arg("-C").arg(directory.path()).arg(&name));
    let path = directory.path().join(name);
    let bill = fs::read_to_string(&path).unwrap();
    let script = "
import sys, zipfile
(name,) = [name for name in zipfile.ZipFile(sys.argv[1]).namelist() if '/sboms/' in name]
sys.stdout.write(zipfile.ZipFile(sys.argv[1]).read(name).decode())";
    let python = || Command::new(tools.join("bin/python"));
    assert_eq!(text(run(python().args(["-c", script]).arg(only(&release, ".whl")))), bill);

    let script = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(str(wrong) if wrong else 0)";
    run(python().args(["-c", script]).arg(path));
    for place in [env!("CARGO_MANIFEST_DIR"), "path+file", "/root/", "/home/", "/build"] {
        assert!(!bill.contains(place), "{place}");
    }

    let bill: Value = serde_json::from_str(&bill).unwrap();
    assert_eq!(bill["metadata"]["component"]["version"], VERSION);
    let components = bill["components"].as_array().unwrap();
    let names: Vec<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    assert!(names.contains(&"rustls") && names.contains(&"libc"), "{names:?}");
    // What only tests, builds and macros need is not in the binary.
    assert!(!["proptest", "cc", "serde_derive"].iter().any(|name| names.contains(name)), "{names:?}");
    for component in components {
        assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), Some(64), "{component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
    }
}

#[test]
fn pip_installs_the_wheel_without_a_network() {
    let (Some(release), Some(tools)) = (release(), tools()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let venv = directory.path().join("venv");
    run(Command::new(tools.join("bin/python")).args(["-m", "venv"]).arg(&venv));
    let python = venv.join("bin/python");
    let pip = ["-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check"];
    run(Command::new(python).args(pip).arg(only(&release, ".whl")));
    let version = text(run(Command::new(venv.join("bin/mcp-launch")).arg("--version").env_clear()));
    assert_eq!(version.trim(), format!("mcp-launch {VERSION}"));
}

#[test]
fn one_wheel_is_for_every_linux() {
    let (Some(release), Some(tools)) = (release(), tools()) else { return };
    let wheel = only(&release, ".whl");
    // With the library that pip uses to decide.
    let script = "
import sys
from packaging.utils import parse_wheel_filename
for tag in parse_wheel_filename(sys.argv[1])[3]: print(tag)";
    let name = wheel.file_name().unwrap();
    let tags = text(run(Command::new(tools.join("bin/python")).args(["-c", script]).arg(name)));
    for libc in ["manylinux_2_17", "musllinux_1_1"] {
        let tag = format!("py3-none-{libc}_{}", std::env::consts::ARCH);
        assert!(tags.lines().any(|line| line == tag), "{tag} is not among\n{tags}");
    }
}
