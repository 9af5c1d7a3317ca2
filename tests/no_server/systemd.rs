//! The units for systemd: valid according to systemd itself, and matching the program's settings and exit statuses.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness;
use crate::harness::has;
use mcp_launch::host::Environment;
use mcp_launch::problem::Exit;
use mcp_launch::settings::{FlagLayer, Settings, resolve};

/// The one for the gateway, and the one in the packages; each with its program.
const UNITS: [Unit; 2] = [
    Unit { path: "config/systemd/mcp-launch.service", program: "/usr/local/bin/mcp-launch" },
    Unit { path: "config/package/mcp-launch.service", program: "/usr/bin/mcp-launch" },
];

struct Unit {
    path: &'static str,
    program: &'static str,
}

impl Unit {
    fn text(&self) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(self.path)).unwrap()
    }

    /// The only value of a setting.
    #[track_caller]
    fn value(&self, name: &str) -> String {
        let text = self.text();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let found = values.next().unwrap_or_else(|| panic!("{}: no {name}=", self.path)).to_owned();
        assert_eq!(values.next(), None, "{}: {name}", self.path);
        found
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.value(name).parse().unwrap())
    }

    /// systemd's messages about a unit with this text, and about a socket unit for it.
    fn complaints(&self, text: &str, socket: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["mcp-launch.service", "mcp-launch.socket"].map(|name| directory.path().join(name));
        fs::write(&paths[0], text.replace(self.program, harness::PROGRAM)).unwrap();
        fs::write(&paths[1], socket).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || !said.is_empty(), "{output:?}");
        // It also reads the machine's own units.
        said.lines().filter(|line| line.contains("mcp-launch")).collect::<Vec<_>>().join("\n")
    }
}

fn defaults() -> Settings {
    resolve(&FlagLayer::default(), &Environment::new(), &|_| Err(std::io::ErrorKind::NotFound.into())).settings
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    if !has("systemd-analyze") {
        return;
    }
    let socket = include_str!("../../config/systemd/mcp-launch.socket");
    let misspelt_socket = socket.replace("ListenStream", "ListenStreams");
    for unit in UNITS {
        assert_eq!(unit.complaints(&unit.text(), socket), "", "{}", unit.path);
        let misspelt = unit.complaints(&unit.text().replace("WatchdogSec", "WatchDogSecs"), &misspelt_socket);
        for name in ["WatchDogSecs", "ListenStreams"] {
            assert!(misspelt.contains(name), "it should have been found: {misspelt}");
        }
    }
}

#[test]
fn their_limits_are_longer_than_what_mcp_launch_takes() {
    let settings = defaults();
    for unit in UNITS {
        assert!(unit.seconds("TimeoutStartSec") > settings.startup_timeout.value.0, "{}", unit.path);
        assert!(unit.seconds("TimeoutStopSec") > settings.stop_timeout.value.0, "{}", unit.path);
    }
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    let hopeless = [Exit::Usage, Exit::Settings, Exit::NotExecutable, Exit::NotFound];
    let expected: Vec<String> = hopeless.iter().map(|exit| exit.code().to_string()).collect();
    for unit in UNITS {
        assert_eq!(unit.value("RestartPreventExitStatus"), expected.join(" "), "{}", unit.path);
    }
}

#[test]
fn their_commands_are_ones_that_the_program_has() {
    for unit in UNITS {
        assert_eq!(unit.value("ExecStart"), unit.program);
        let reload = unit.value("ExecReload");
        let words: Vec<&str> = reload.split(' ').collect();
        assert_eq!(words[0], unit.program);
        let nobody = harness::Launch::new(&words[1..]).without_launcher().finish();
        assert_eq!(nobody.code, i32::from(Exit::NoLauncher.code()), "{}", nobody.log);
    }
}

/// Both are equally confined, and stop equally well.
#[test]
fn they_differ_only_in_what_they_serve_and_as_whom() {
    let differing = [
        "Description",
        "ExecStart",
        "ExecReload",
        "DynamicUser",
        "User",
        "Group",
        "StateDirectory",
        "WorkingDirectory",
        "Environment",
        "EnvironmentFile",
    ];
    let common = |unit: &Unit| {
        let text = unit.text();
        let is_common = |line: &&str| line.split_once('=').is_some_and(|(name, _)| !differing.contains(&name));
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter(is_common);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(common(&UNITS[0]), common(&UNITS[1]));
}

/// What `check` says about a socket on standard input that is passed on as descriptor 3.
fn check(server: &str, variables: &str, socket: impl Into<Stdio>) -> harness::Finished {
    let script = format!("export {variables}; exec \"$@\" 3<&0 0</dev/null");
    let mut launch = harness::Launch::new(&["check", "--server", server]).through(&["sh", "-c", &script, "sh"]);
    launch.command.stdin(socket);
    launch.finish()
}

#[test]
fn a_socket_that_cannot_be_served_is_a_problem_and_one_for_another_process_a_warning() {
    let listener = || Stdio::from(OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let datagrams = || Stdio::from(OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()));
    let own = "LISTEN_PID=$$ LISTEN_FDS=1";
    for (server, variables, socket, expected) in [
        ("granian", own, listener(), "LISTEN_FDS = 1: Granian cannot serve a socket from systemd"),
        ("gunicorn", own, datagrams(), "descriptor 3 cannot be served, it is not a stream socket"),
        ("gunicorn", "LISTEN_PID=$$ LISTEN_FDS=2", listener(), "descriptor 4 cannot be served, it is not open"),
        ("gunicorn", "LISTEN_PID=$$ LISTEN_FDS=one", listener(), "LISTEN_FDS = \"one\" is not a whole number"),
        ("gunicorn", "LISTEN_PID=self LISTEN_FDS=1", listener(), "LISTEN_PID = \"self\" is not a whole number"),
    ] {
        let checked = check(server, variables, socket);
        assert_eq!(checked.code, i32::from(Exit::Settings.code()), "{}", checked.log);
        assert!(checked.log.contains(expected), "{}", checked.log);
    }
    let launch = harness::Launch::new(&["check", "--server", "gunicorn", "fake:app"]);
    let venv = launch.directory.path().join("venv");
    harness::fake::make_venv(&venv);
    let launch = launch.env("VIRTUAL_ENV", venv).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let of_another = launch.finish();
    assert_eq!(of_another.code, 0, "{}", of_another.log);
    assert!(of_another.out.contains("LISTEN_PID = 1 is another process"), "{}", of_another.out);
}
