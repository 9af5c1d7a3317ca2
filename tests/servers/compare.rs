//! `compare` with the real servers and a real load generator: it measures both, survives problems of one of them, and
//! leaves nothing behind.

use std::path::{Path, PathBuf};

use crate::harness::{self, Launch, Running, descendants, skipped, tests_directory, venv, wait_until, write_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Whether there is a load generator; without one nothing can be measured.
fn has_load_generator() -> bool {
    let found = ["oha", "wrk"].into_iter().any(|name| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|path| path.join(name).is_file())
    });
    if !found {
        skipped("neither oha nor wrk is on PATH; scripts/test installs wrk where it may");
    }
    found
}

/// `compare` on the small app without work, as short as possible.
fn compare(arguments: &[&str]) -> Option<Launch> {
    let venv = venv().filter(|_| has_load_generator())?;
    Some(compare_in(&venv, arguments).in_turn())
}

fn compare_in(venv: &Path, arguments: &[&str]) -> Launch {
    let short = ["compare", "--rounds", "1", "--duration", "1s", "--connections", "4", "--workers", "1"];
    Launch::new(&[&short, arguments, &["empty_json:app"]].concat())
        .env("VIRTUAL_ENV", venv)
        .env("PYTHONPATH", tests_directory("apps"))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The results of a server.
fn of<'a>(report: &'a Value, server: &str) -> &'a Value {
    report["servers"].as_array().unwrap().iter().find(|results| results["server"] == server).unwrap()
}

#[track_caller]
fn assert_measured(results: &Value) {
    let round = &results["rounds"][0];
    let load = &round["loads"][0];
    for (what, value) in [
        ("start", &round["start_seconds"]),
        ("answers", &load["answered"]),
        ("latency", &load["p99_ms"]),
        ("CPU", &load["cpu_seconds"]),
        ("memory", &round["loaded"]["total"]),
        ("memory of a worker", &round["after"]["worker"]),
        ("answers beyond the capacity", &results["overloads"][0]["answered"]),
        ("requests during the reload", &results["reload"]["requests"]),
        ("time of the reload", &results["reload"]["seconds"]),
    ] {
        assert!(value.as_f64().is_some_and(|value| value > 0.0), "{what}: {results:#}");
    }
    assert!(round["loaded"]["total"].as_u64() > round["loaded"]["worker"].as_u64(), "{round:#}");
    assert_eq!(load["failed"], 0, "{load:#}");
    assert_eq!(results["reload"]["kept"], Value::Null);
    assert_eq!(results["failure"], Value::Null);
}

#[test]
fn both_servers_are_measured_and_compared() {
    let Some(launch) = compare(&["--json", "--backpressure", "8", "--html", "page.html"]) else { return };
    let mut running = launch.start();
    let code = running.wait();
    assert_eq!(code, 0, "{}", running.log());
    let report = json(&running.out());
    for server in ["gunicorn", "granian"] {
        assert_measured(of(&report, server));
        let overload = &of(&report, server)["overloads"][0];
        assert_eq!((&overload["capacity"], &overload["connections"]), (&8.into(), &16.into()), "{overload:#}");
    }
    assert_eq!(of(&report, "gunicorn")["http2"], false);
    assert_eq!(of(&report, "granian")["http2"], true);
    // With one round, no difference can be distinguished from chance.
    let rate = report["table"].as_array().unwrap().iter().find(|row| row["key"] == "requests_per_second_4").unwrap();
    assert_eq!(rate["verdict"], "too_few_rounds");
    assert_eq!(report["recommendations"].as_array().unwrap().len(), 5);
    let log = running.log();
    assert!(log.contains("--duration 1s is too short") && log.contains("fewer than 3 rounds"), "{log}");
    let file = running.directory.path().join("page.html");
    let page = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    for part in
        ["<h3>Requests per second", "<h3>Latency", "<h3>Memory of each round", "refused with 503 at once", "Granian"]
    {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    running.assert_nothing_left();
    assert_no_sockets(running.directory.path());
}

#[test]
fn a_server_that_does_not_boot_does_not_stop_the_other() {
    let Some(launch) = compare(&["--json"]) else { return };
    let finished = launch.env("ONLY_UNDER", "gunicorn").finish();
    assert_eq!(finished.code, 1, "{}", finished.log);
    let report = json(&finished.out);
    assert_measured(of(&report, "gunicorn"));
    let failure = &of(&report, "granian")["failure"]["why"];
    assert!(failure.as_str().unwrap().contains("this app needs gunicorn"), "{failure}");
    assert!(finished.log.contains("mcp-launch: granian: "), "{}", finished.log);
    assert!(report["recommendations"].as_array().unwrap().iter().all(|it| it["choose"] == "unknown"));
}

/// The same virtual environment without Granian.
fn without_granian(venv: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join("venv");
    std::fs::create_dir_all(copy.join("bin")).unwrap();
    std::fs::copy(venv.join("pyvenv.cfg"), copy.join("pyvenv.cfg")).unwrap();
    let python = std::fs::canonicalize(venv.join("bin/python")).unwrap();
    std::os::unix::fs::symlink(python, copy.join("bin/python")).unwrap();
    for version in std::fs::read_dir(venv.join("lib")).unwrap() {
        let packages = Path::new("lib").join(version.unwrap().file_name()).join("site-packages");
        std::fs::create_dir_all(copy.join(&packages)).unwrap();
        for package in std::fs::read_dir(venv.join(&packages)).unwrap() {
            let name = package.unwrap().file_name();
            if !name.to_str().unwrap().starts_with("granian") {
                std::os::unix::fs::symlink(venv.join(&packages).join(&name), copy.join(&packages).join(&name))
                    .unwrap();
            }
        }
    }
    let script = format!("#!{}/bin/python\nfrom gunicorn.app.wsgiapp import run\nrun()\n", copy.display());
    let program = copy.join("bin/gunicorn");
    write_program(&program, &script);
    copy
}

#[test]
fn a_server_that_is_not_installed_does_not_stop_the_other() {
    let Some(venv) = venv().filter(|_| has_load_generator()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let finished = compare_in(&without_granian(&venv, directory.path()), &[]).in_turn().finish();
    assert_eq!(finished.code, 127, "{}", finished.log);
    assert!(finished.log.contains("granian: granian is not installed"), "{}", finished.log);
    let line = |begin: &str| finished.out.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
    assert!(line("Requests/s, 4 connections").ends_with('–'), "{}", finished.out);
    assert!(finished.out.contains("not measured on both servers"), "{}", finished.out);
}

#[test]
fn what_cannot_be_measured_is_said_before_it_is_measured() {
    let Some(venv) = venv().filter(|_| has_load_generator()) else { return };
    for (arguments, code, says) in [
        (&["--path", "/nowhere"][..], 1, "GET /nowhere returned 404; use --path to name a path that exists"),
        (&["--path", "/fail"], 1, "GET /fail returned 500"),
        (&["--workers", "many"], 78, "workers = \"many\" is not valid"),
        (&["--html", "nowhere/page.html"], 2, "--html: nowhere/page.html cannot be written: No such file"),
    ] {
        let finished = compare_in(&venv, arguments).finish();
        assert_eq!(finished.code, code, "{arguments:?}: {}", finished.log);
        assert!(finished.log.contains(says), "{arguments:?}: {}", finished.log);
        assert_eq!(finished.out, "", "{arguments:?}");
    }
    let finished = compare_in(&venv, &[]).env("ONLY_UNDER", "neither").finish();
    assert_eq!(finished.code, 1, "{}", finished.log);
    let both = ["gunicorn: ", "granian: "].iter().all(|server| finished.log.contains(server));
    assert!(both && finished.log.contains("this app needs neither"), "{}", finished.log);
}

#[test]
fn without_a_load_generator_it_is_said_how_to_get_one() {
    let Some(venv) = venv() else { return };
    let finished = compare_in(&venv, &[]).env("PATH", "/nowhere").finish();
    assert_eq!(finished.code, 127, "{}", finished.log);
    assert!(
        finished.log.contains("cargo install oha") && finished.log.contains("apt-get install wrk"),
        "{}",
        finished.log
    );
}

#[test]
fn numbers_that_make_no_sense_are_usage_errors() {
    for (flag, value, says) in [
        ("--connections", "0", "from 1 to 20000"),
        ("--connections", "1,,2", "from 1 to 20000"),
        ("--duration", "-1", "seconds"),
        ("--duration", "10ms", "100ms"),
        ("--rounds", "0", "from 1 to 100"),
        ("--header", "novalue", "NAME: VALUE"),
        ("--path", "health", "begins with /"),
        ("--method", "HEAD", "GET, POST or PUT"),
    ] {
        let finished = Launch::new(&["compare", &format!("{flag}={value}"), "empty_json:app"]).finish();
        assert_eq!(finished.code, 2, "{flag} {value}: {}", finished.log);
        assert!(finished.log.contains(says), "{flag} {value}: {}", finished.log);
    }
}

/// Waits until the load generator is running.
#[track_caller]
fn wait_for_load(running: &Running) {
    let is_load = |pid: &Pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ["oha", "wrk"].contains(&name.trim())
    };
    wait_until("the load generator", || running.descendants().iter().any(is_load));
}

#[track_caller]
fn assert_no_sockets(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let Some(launch) = compare(&["--duration", "60s"]) else { return };
        let mut running = launch.start();
        wait_for_load(&running);
        running.signal(signal);
        assert_eq!(running.wait(), code, "{}", running.log());
        running.assert_nothing_left();
        assert_no_sockets(running.directory.path());
    }
}

#[test]
fn when_it_is_killed_its_children_end_by_themselves() {
    let Some(launch) = compare(&["--duration", "60s"]) else { return };
    let mut running = launch.start();
    wait_for_load(&running);
    kill(running.pid(), Signal::SIGKILL).unwrap();
    assert_eq!(running.wait(), 137);
    wait_until("its children to end", || running.leftovers().is_empty());
    assert_no_sockets(running.directory.path());
    assert_eq!(descendants(running.pid()), []);
}

#[test]
fn the_database_app_and_the_streaming_app_work() {
    let Some(venv) = venv() else { return };
    let directory = tempfile::tempdir().unwrap();
    for (app, wanted) in [("database", "\"orders\": 40"), ("streaming", "data: {\"step\": 9, \"of\": 10}")] {
        let mut launch = Launch::new(&["--workers", "2", &format!("{app}:app")])
            .env("VIRTUAL_ENV", &venv)
            .env("PYTHONPATH", tests_directory("apps"));
        launch.command.env("DATABASE_FILE", directory.path().join("compare.db"));
        let mut running = launch.start();
        running.wait_log(" ready ");
        let answer = harness::http::get(running.port, "/").unwrap();
        assert!(answer.status == 200 && answer.body.contains(wanted), "{app}: {answer:?}");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}
