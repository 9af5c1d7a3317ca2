//! An unusual environment: missing or unreadable files, programs that no longer exist, unknown names, and variables and
//! arguments that are huge or not UTF-8. Some are refused, some cause a warning, some are passed on.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::http::get;
use crate::harness::{self, Launch, is_root, skipped, venv};

/// The output of a launcher that starts nothing.
struct Refusal {
    code: i32,
    log: String,
}

/// Runs it, and checks that it started nothing and left nothing behind.
#[track_caller]
fn refusal(launch: Launch) -> Refusal {
    let mut running = launch.start();
    let code = running.wait();
    let log = running.log();
    assert_eq!(running.notes("starts"), [], "a server was started: {log}");
    running.assert_nothing_left();
    let left = fs::read_dir(running.directory.path()).unwrap().flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.as_bytes().starts_with(b"mcp-launch-")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!log.contains("panicked"), "{log}");
    Refusal { code, log }
}

/// Expects a status and parts of the message.
#[track_caller]
pub fn refused(launch: Launch, code: i32, pieces: &[&str]) {
    let refusal = refusal(launch);
    assert_eq!(refusal.code, code, "{}", refusal.log);
    for piece in pieces {
        assert!(refusal.log.contains(piece), "no {piece:?} in: {}", refusal.log);
    }
}

/// `check` with the fake server: its status, and its output.
fn check(server: &str, change: impl FnOnce(Launch) -> Launch) -> (i32, String) {
    let mut launch = change(Launch::fake(server, "serve", &[]));
    launch.command.arg("check");
    let finished = launch.finish();
    (finished.code, format!("{}{}", finished.out, finished.log))
}

pub fn fake(arguments: &[&str]) -> Launch {
    Launch::fake("gunicorn", "serve", arguments)
}

/// A fake server that is named only in the environment or the arguments.
pub fn bare(arguments: &[&str]) -> Launch {
    let mut launch = fake(&[]);
    let mut command = Command::new(harness::PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(launch.directory.path());
    launch.command = command;
    launch
}

pub fn in_directory(launch: &Launch, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = launch.directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn unknown_names_are_warnings_with_the_nearest_known_one() {
    let (code, said) = check("gunicorn", |launch| {
        in_directory(&launch, "mcp-launch.toml", "prot = 3\n[gunicorn]\nworkerz = 3\n");
        launch.env("GUNICORN_WORKERZ", "3").env("MCP_LAUNCH_STOP_TIMOUT", "3")
    });
    assert_eq!(code, 0, "{said}");
    for piece in ["port?", "gunicorn.workers?", "GUNICORN_WORKERS?", "MCP_LAUNCH_STOP_TIMEOUT?"] {
        assert!(said.contains(piece), "no {piece:?} in: {said}");
    }
}

#[test]
fn of_conflicting_sources_the_command_line_wins_then_the_environment_then_the_file() {
    let workers = |arguments: &[&str], environment: Option<&str>| {
        let mut launch = bare(&[&["check", "fake:app"], arguments].concat());
        in_directory(&launch, "mcp-launch.toml", "[gunicorn]\nworkers = 3\n");
        if let Some(value) = environment {
            launch = launch.env("GUNICORN_WORKERS", value);
        }
        launch.finish().out
    };
    assert!(workers(&["--workers", "5"], Some("4")).contains("with 5 workers"));
    assert!(workers(&[], Some("4")).contains("with 4 workers"));
    assert!(workers(&[], None).contains("with 3 workers"));
    assert!(workers(&[], Some("")).contains("with 3 workers"), "an empty variable is an unset one");
}

#[test]
fn an_app_that_is_not_on_the_import_path_is_a_warning() {
    let (code, said) = check("gunicorn", |launch| launch);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("fake") && said.contains("not found on the import path"), "{said}");
}

#[test]
fn an_app_that_is_not_there_ends_with_the_servers_status() {
    let Some(venv) = venv() else { return };
    for (server, statuses) in [("gunicorn", [1, 3]), ("granian", [1, 1])] {
        let mut launch = Launch::new(&["--server", server, "--workers", "1", "absent.module:app"]);
        launch.command.env("VIRTUAL_ENV", &venv);
        let finished = launch.finish();
        assert!(statuses.contains(&finished.code), "{server} {}: {}", finished.code, finished.log);
    }
}

#[test]
fn kubernetes_service_links_are_ignored_and_do_not_reach_the_server() {
    let links =
        ["GRANIAN_PORT", "GRANIAN_SERVICE_HOST", "GRANIAN_PORT_80_TCP_ADDR", "PORT_80_TCP", "HOST_SERVICE_HOST"];
    let mut launch = Launch::fake("granian", "serve", &[]);
    for link in links {
        launch = launch.env(link, if link.contains("HOST") { "10.0.0.1" } else { "tcp://10.0.0.1:80" });
    }
    let mut running = launch.start();
    running.wait_log("ready generation=");
    assert!(!running.log().contains("GRANIAN_PORT"), "{}", running.log());
    let environment = fs::read(format!("/proc/{}/environ", running.children()[0])).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("GRANIAN_PORT=tcp"), "{environment}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_default_loop_that_is_not_installed_is_a_warning() {
    let (code, said) = check("granian", |launch| {
        let site = launch.directory.path().join("venv/lib/python3.11/site-packages");
        fs::remove_dir(site.join("uvloop-0.22.0.dist-info")).unwrap();
        launch
    });
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("uvloop") && said.contains("asyncio"), "{said}");
}

/// A key and a certificate for it.
fn key_pair(directory: &Path) -> (PathBuf, PathBuf) {
    let (key, certificate) = (directory.join("key.pem"), directory.join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (key, certificate)
}

#[test]
fn tls_with_files_that_this_user_may_not_read_is_refused() {
    if !is_root() {
        skipped("only root may change to another user");
        return;
    }
    let launch = fake(&[]);
    let (key, certificate) = key_pair(launch.directory.path());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let launch = launch.env("SSL", "true").env("CERT_FILE", certificate).env("KEY_FILE", key);
    let launch = launch.through(&["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]);
    refused(launch, 78, &["key.pem", "not readable", "KEY_FILE"]);
}

#[test]
fn a_missing_interpreter_of_a_server_is_reported() {
    let launch = fake(&[]);
    in_directory(&launch, "venv/bin/gunicorn", "#!/no/such/python\n");
    refused(launch, 126, &["bin/gunicorn", "/no/such/python"]);
}

#[test]
fn a_reload_without_the_server_keeps_the_old_one() {
    let launch = fake(&[]).env("PATH", "/nonexistent");
    let program = launch.directory.path().join("venv/bin/gunicorn");
    let mut running = launch.start();
    running.wait_log("ready generation=");
    fs::remove_file(program).unwrap();
    fs::remove_dir_all(running.directory.path().join("venv/lib")).unwrap();
    running.signal(nix::sys::signal::Signal::SIGHUP);
    running.wait_log("the old generation was kept");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn an_argument_that_is_no_unicode_is_refused_without_a_panic() {
    let mut launch = bare(&[]);
    launch.command.arg(OsString::from_vec(b"caf\xe9:app".to_vec()));
    let refusal = refusal(launch);
    assert!([2, 78].contains(&refusal.code), "{}: {}", refusal.code, refusal.log);
    assert!(refusal.log.contains("caf"), "{}", refusal.log);
}

#[test]
fn a_variable_of_the_app_that_is_no_unicode_arrives_as_it_is() {
    let mut running = fake(&[]).env("OF_THE_APP", OsStr::from_bytes(b"a\xff\n\x01b")).start();
    running.wait_log("ready generation=");
    let environment = fs::read(format!("/proc/{}/environ", running.children()[0])).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|pair| pair == b"OF_THE_APP=a\xff\n\x01b"));
    assert_eq!(running.stop(), 0);
}

/// The longest string that the kernel accepts, minus its name (`MAX_ARG_STRLEN` is 128 KiB).
const LONGEST: usize = 131_000;

#[test]
fn a_megabyte_of_environment_arrives() {
    let mut launch = fake(&[]);
    for number in 0..8 {
        launch = launch.env(&format!("LARGE_{number}"), "x".repeat(LONGEST));
    }
    let mut running = launch.start();
    running.wait_log("ready generation=");
    let environment = fs::read(format!("/proc/{}/environ", running.children()[0])).unwrap();
    assert!(environment.len() > 8 * LONGEST);
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_enormous_value_is_not_shown_whole() {
    for launch in [
        bare(&["fake:app"]).env("GUNICORN_WORKERS", "9".repeat(LONGEST)),
        bare(&["fake:app"]).env("HTTP_SERVER", "x".repeat(LONGEST)),
    ] {
        let refusal = refusal(launch);
        assert!([2, 78].contains(&refusal.code), "{}", refusal.code);
        assert!(refusal.log.len() < 2000, "{} bytes: {:.500}", refusal.log.len(), refusal.log);
    }
    let launch = bare(&["fake:app"]);
    in_directory(&launch, "mcp-launch.toml", format!("[gunicorn]\nworkers = \"{}\"\n", "y".repeat(1 << 20)));
    let refusal = refusal(launch);
    assert_eq!(refusal.code, 78, "{:.500}", refusal.log);
    assert!(refusal.log.len() < 2000, "{} bytes: {:.500}", refusal.log.len(), refusal.log);
}
