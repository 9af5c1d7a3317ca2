//! The unit for systemd: right by systemd's own judgement, and in tune with the program's settings and exit statuses.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness;
use crate::harness::has;
use mcp_launch::host::Environment;
use mcp_launch::problem::Exit;
use mcp_launch::settings::{FlagLayer, Settings, resolve};

const PROGRAM: &str = "/usr/local/bin/mcp-launch";

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd/mcp-launch.service")).unwrap()
}

/// The one value of a setting of the unit.
#[track_caller]
fn value(name: &str) -> String {
    let unit = unit();
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let found = values.next().unwrap_or_else(|| panic!("no {name}=")).to_owned();
    assert_eq!(values.next(), None, "{name}");
    found
}

fn seconds(name: &str) -> Duration {
    Duration::from_secs(value(name).parse().unwrap())
}

fn defaults() -> Settings {
    resolve(&FlagLayer::default(), &Environment::new(), &|_| Err(std::io::ErrorKind::NotFound.into())).settings
}

/// What systemd has to say about a unit with this text.
fn complaints(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mcp-launch.service");
    fs::write(&path, text.replace(PROGRAM, harness::PROGRAM)).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !said.is_empty(), "{output:?}");
    // It looks at the machine's own units as well.
    said.lines().filter(|line| line.contains("mcp-launch")).collect::<Vec<_>>().join("\n")
}

#[test]
fn systemd_finds_nothing_wrong_with_it() {
    if !has("systemd-analyze") {
        return;
    }
    assert_eq!(complaints(&unit()), "");
    let misspelt = complaints(&unit().replace("WatchdogSec", "WatchDogSecs"));
    assert!(misspelt.contains("WatchDogSecs"), "it should have been found: {misspelt}");
}

#[test]
fn its_limits_are_longer_than_what_mcp_launch_takes() {
    let settings = defaults();
    assert!(seconds("TimeoutStartSec") > settings.startup_timeout.value.0);
    assert!(seconds("TimeoutStopSec") > settings.stop_timeout.value.0);
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let hopeless = [Exit::Usage, Exit::Settings, Exit::NotExecutable, Exit::NotFound];
    let expected: Vec<String> = hopeless.iter().map(|exit| exit.code().to_string()).collect();
    assert_eq!(value("RestartPreventExitStatus"), expected.join(" "));
}

#[test]
fn its_commands_are_ones_that_the_program_has() {
    assert_eq!(value("ExecStart"), PROGRAM);
    let reload = value("ExecReload");
    let words: Vec<&str> = reload.split(' ').collect();
    assert_eq!(words[0], PROGRAM);
    let nobody = harness::Launch::new(&words[1..]).without_launcher().finish();
    assert_eq!(nobody.code, i32::from(Exit::NoLauncher.code()), "{}", nobody.log);
}
