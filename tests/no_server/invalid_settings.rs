//! Invalid settings: a clear message with the source, the documented exit status, nothing started, nothing left behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{self, Finished, Launch};
use crate::unusual_environment::{bare, fake, in_directory, refused};

/// The input, and the expected result.
struct Case {
    env: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
}

/// Runs the launcher (not `check`) with a fake server, which records its starts.
fn run(case: &Case) -> Finished {
    let mut launch = Launch::fake("gunicorn", "serve", &[]);
    for (name, value) in case.env {
        launch.command.env(name, value);
    }
    launch.command.args(case.arguments);
    ends_refused(launch, case.code)
}

/// Waits for the end and checks what was started and left behind.
fn ends_refused(launch: Launch, code: i32) -> Finished {
    let before = files(&launch);
    let mut running = launch.start();
    let ended = running.wait();
    let started = running.directory.path().join("state").read_dir().map_or(0, Iterator::count);
    let after = std::fs::read_dir(running.directory.path()).unwrap().count();
    assert_eq!(ended, code, "{}", running.log());
    assert_eq!(started, 0, "a server was started: {}", running.log());
    assert_eq!(after, before, "something was left behind");
    running.finished(ended)
}

fn files(launch: &Launch) -> usize {
    std::fs::read_dir(launch.directory.path()).unwrap().count()
}

#[test]
fn each_is_refused_with_its_source_and_what_would_be_right() {
    let cases = [
        Case {
            env: &[("HTTP_SERVER", "nginx")],
            arguments: &["--server", "nginx"],
            code: 78,
            says: &["nginx", "--server", "gunicorn, granian, auto"],
        },
        Case { env: &[], arguments: &["--workers", "0"], code: 78, says: &["\"0\"", "--workers", "from 1 to 4096"] },
        Case { env: &[], arguments: &["--workers=-1"], code: 78, says: &["\"-1\"", "--workers"] },
        Case { env: &[], arguments: &["--workers", "abc"], code: 78, says: &["\"abc\"", "2n+1"] },
        Case { env: &[], arguments: &["--workers", "1e3"], code: 78, says: &["\"1e3\""] },
        Case { env: &[], arguments: &["--workers", "99999999999"], code: 78, says: &["99999999999"] },
        Case {
            env: &[("PORT", "70000")],
            arguments: &[],
            code: 78,
            says: &["70000", "environment PORT", "from 0 to 65535"],
        },
        Case {
            env: &[("HOST", "example.com")],
            arguments: &[],
            code: 78,
            says: &["example.com", "environment HOST", "localhost"],
        },
        Case {
            env: &[],
            arguments: &["--bind", "127.0.0.1:1", "--port", "2"],
            code: 2,
            says: &["--bind and --port"],
        },
        Case { env: &[], arguments: &["--", "--bind", "1.2.3.4:5"], code: 2, says: &["--bind", "before the --"] },
        Case { env: &[], arguments: &["--nonsense"], code: 2, says: &["--nonsense"] },
        Case {
            env: &[("SSL", "maybe")],
            arguments: &[],
            code: 78,
            says: &["maybe", "environment SSL", "true or false"],
        },
        Case {
            env: &[("SSL", "true")],
            arguments: &[],
            code: 78,
            says: &["certs/cert.pem does not exist", "certs/key.pem does not exist"],
        },
        Case { env: &[("MCP_LAUNCH_STOP_TIMEOUT", "5x")], arguments: &[], code: 78, says: &["5x", "ms, s, m or h"] },
        Case {
            env: &[("MCP_LAUNCH_WARM_UP", "/ready,tools")],
            arguments: &[],
            code: 78,
            says: &["/ready,tools", "environment MCP_LAUNCH_WARM_UP", "paths that begin with /"],
        },
        Case { env: &[], arguments: &["--warm-up", "/ready,"], code: 78, says: &["/ready,", "--warm-up"] },
        Case {
            env: &[("MCP_LAUNCH_CONFIG", "nowhere.toml")],
            arguments: &[],
            code: 78,
            says: &["nowhere.toml", "MCP_LAUNCH_CONFIG"],
        },
        Case { env: &[("RUST_MCP_MODE", "edge")], arguments: &[], code: 78, says: &["RUST_MCP_MODE", "sidecar"] },
    ];
    for case in &cases {
        let finished = run(case);
        for text in case.says {
            assert!(finished.log.contains(text), "no {text:?} in {}", finished.log);
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let finished = run(&Case {
        env: &[("PORT", "70000"), ("SSL", "maybe"), ("MCP_LAUNCH_RESTART", "sometimes")],
        arguments: &["--workers", "abc"],
        code: 78,
        says: &[],
    });
    assert_eq!(finished.log.lines().count(), 4, "{}", finished.log);
}

#[test]
fn a_file_with_bad_syntax_is_refused_with_the_place() {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    std::fs::write(launch.directory.path().join("mcp-launch.toml"), "host = \"::1\"\nworkers = [\n").unwrap();
    let finished = ends_refused(launch, 78);
    assert!(finished.log.contains("mcp-launch.toml") && finished.log.contains("line 2"), "{}", finished.log);
}

#[test]
fn a_program_in_place_of_an_app_is_answered_with_the_init_form() {
    let mut launch = Launch::new(&["sh"]);
    let venv = launch.directory.path().join("venv");
    harness::fake::make_venv(&venv);
    launch.command.env("VIRTUAL_ENV", venv);
    let finished = ends_refused(launch, 2);
    assert!(finished.log.contains("mcp-launch init -- sh"), "{}", finished.log);
}

#[test]
fn what_is_not_utf_8_is_refused_by_name() {
    let mut launch = Launch::fake("gunicorn", "serve", &[]);
    launch.command.env("GUNICORN_TIMEOUT", OsStr::from_bytes(b"6\xff"));
    launch.command.arg("--worker-class").arg(OsStr::from_bytes(b"\xfe"));
    let finished = ends_refused(launch, 78);
    assert!(finished.log.contains("GUNICORN_TIMEOUT") && finished.log.contains("--worker-class"), "{}", finished.log);
}

#[test]
fn a_megabyte_is_not_printed_back() {
    let mut launch = Launch::fake("gunicorn", "serve", &[]);
    launch.command.env("GUNICORN_TIMEOUT", "9".repeat(100_000));
    let finished = ends_refused(launch, 78);
    assert!(finished.log.len() < 1000 && finished.log.contains("GUNICORN_TIMEOUT"), "{} bytes", finished.log.len());
}

#[test]
fn a_swapped_certificate_and_key_are_recognised() {
    let mut launch = Launch::fake("gunicorn", "serve", &["--ssl", "--cert-file", "a.pem", "--key-file", "b.pem"]);
    let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    std::fs::write(launch.directory.path().join("a.pem"), block("PRIVATE KEY")).unwrap();
    std::fs::write(launch.directory.path().join("b.pem"), block("CERTIFICATE")).unwrap();
    launch.command.env("SSL_MIN_VERSION", "1.2");
    let finished = ends_refused(launch, 78);
    assert_eq!(finished.log.matches("swapped").count(), 2, "{}", finished.log);
}

#[test]
fn a_server_that_is_not_there_is_127_with_the_command_that_installs_it() {
    let launch = Launch::fake("granian", "serve", &[]);
    let venv = launch.directory.path().join("venv");
    std::fs::remove_file(venv.join("bin/granian")).unwrap();
    std::fs::remove_dir(venv.join("lib/python3.11/site-packages/granian-2.8.7.dist-info")).unwrap();
    // Not even one on PATH.
    let finished = ends_refused(launch.env("PATH", "/nonexistent"), 127);
    assert!(finished.log.contains("-m pip install") && finished.log.contains("granian"), "{}", finished.log);
}

#[test]
fn a_server_that_cannot_be_executed_is_126() {
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let program = launch.directory.path().join("venv/bin/gunicorn");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
    let finished = ends_refused(launch.env("PATH", "/nonexistent"), 126);
    assert!(finished.log.contains("not executable"), "{}", finished.log);
    let launch = Launch::fake("gunicorn", "serve", &[]);
    let program = launch.directory.path().join("venv/bin/gunicorn");
    std::fs::remove_file(&program).unwrap();
    std::fs::create_dir(&program).unwrap();
    let finished = ends_refused(launch.env("PATH", "/nonexistent"), 126);
    assert!(finished.log.contains("is a directory"), "{}", finished.log);
}

#[test]
fn kubernetes_service_links_do_no_harm_and_unknown_names_are_pointed_out() {
    let launch = Launch::fake("granian", "serve", &[])
        .env("GRANIAN_PORT", "tcp://10.0.0.1:80")
        .env("GRANIAN_SERVICE_HOST", "10.0.0.1")
        .env("GRANIAN_WORKER", "3");
    let mut check = launch;
    check.command.arg("check");
    let finished = check.finish();
    assert_eq!(finished.code, 0, "{}", finished.log);
    assert!(!finished.out.contains("GRANIAN_PORT") && !finished.out.contains("SERVICE"), "{}", finished.out);
    assert!(finished.out.contains("did you mean GRANIAN_WORKERS?"), "{}", finished.out);
}

#[test]
fn worker_counts_that_are_none_are_refused_from_every_source() {
    for bad in ["0", "-1", "abc", "1e3", "99999999999"] {
        let launch = bare(&["fake:app"]).env("GUNICORN_WORKERS", bad);
        refused(launch, 78, &[&format!("\"{bad}\""), "environment GUNICORN_WORKERS", "a whole number from 1"]);
        let launch = bare(&["--workers", bad, "fake:app"]);
        refused(launch, 78, &[&format!("\"{bad}\""), "command line --workers", "a whole number from 1"]);
        let launch = bare(&["fake:app"]);
        let file = in_directory(&launch, "mcp-launch.toml", format!("[gunicorn]\nworkers = \"{bad}\"\n"));
        refused(
            launch,
            78,
            &[&format!("\"{bad}\""), file.file_name().unwrap().to_str().unwrap(), "gunicorn.workers"],
        );
    }
}

#[test]
fn server_arguments_that_contradict_are_refused_with_the_flag_to_use() {
    for (server, arguments) in [
        ("gunicorn", ["--bind", "127.0.0.1:1"]),
        ("gunicorn", ["--workers", "9"]),
        ("gunicorn", ["-w", "9"]),
        ("granian", ["--port", "9"]),
        ("granian", ["--workers", "9"]),
    ] {
        let mut launch = Launch::fake(server, "serve", &[]);
        launch.command.arg("--").args(arguments);
        refused(launch, 2, &[arguments[0], "after --", "before the --"]);
    }
}

#[test]
fn blocking_threads_other_than_1_are_refused() {
    let launch = Launch::fake("granian", "serve", &[]).env("GRANIAN_BLOCKING_THREADS", "2");
    refused(launch, 78, &["blocking_threads", "environment GRANIAN_BLOCKING_THREADS", "1"]);
}

#[test]
fn a_number_of_threads_that_no_server_can_have_is_refused() {
    for (server, name, key) in
        [("granian", "GRANIAN_BLOCKING_THREADS", "blocking_threads"), ("gunicorn", "GUNICORN_THREADS", "threads")]
    {
        for value in ["0", "100000", "-1", "many"] {
            let launch = Launch::fake(server, "serve", &[]).env(name, value).env("GRANIAN_INTERFACE", "wsgi");
            refused(launch, 78, &[key, &format!("environment {name}"), value]);
        }
    }
}

#[test]
fn a_loop_that_was_asked_for_and_is_not_installed_is_refused_with_the_command_that_installs_it() {
    let launch = Launch::fake("granian", "serve", &["--loop", "rloop"]);
    refused(launch, 78, &["rloop", "command line --loop", "pip install", "bin/python"]);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    refused(fake(&[]).env("HOST", "192.0.2.1"), 78, &["192.0.2.1"]);
}

#[test]
fn a_grace_that_is_longer_than_the_stop_budget_is_refused() {
    let launch = fake(&["--stop-timeout", "5s"]).env("GUNICORN_GRACEFUL_TIMEOUT", "60");
    refused(launch, 78, &["environment GUNICORN_GRACEFUL_TIMEOUT", "stop_timeout"]);
}
