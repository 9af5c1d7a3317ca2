//! The guard around applications of every form.

use super::{LIMIT, Volley, launch, start};
use crate::harness::http::get;
use crate::harness::{self, tests_directory, wait_until};

fn neither_app_nor_environment_shows_how_the_guard_was_loaded(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "1"]) else { return };
    let traces = get(running.port, "/traces").unwrap().body;
    let own = tests_directory("apps").display().to_string();
    let wanted = format!(r#"{{"path": [], "variable": "{own}", "in a child": "{own}", "finders": []}}"#);
    assert_eq!(traces, wanted);
    let shown: Vec<String> = harness::descendants(running.pid())
        .into_iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .collect();
    assert!(shown.iter().all(|title| title.contains("overload:app") && !title.contains("guard")), "{shown:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_both_servers!(neither_app_nor_environment_shows_how_the_guard_was_loaded,);

/// The guard imports what the server would, in every form that the server accepts.
#[test]
fn apps_of_every_form_are_served() {
    for (server, app) in [
        ("gunicorn", "overload:instance"),
        ("gunicorn", "overload:make()"),
        ("gunicorn", "overload:make(debug=True)"),
        ("gunicorn", "overload:make"),
        ("gunicorn", "overload:Callable"),
        ("gunicorn", "overload:double"),
        ("asgi", "overload:make()"),
        ("granian", "overload:instance"),
        ("granian", "overload:make()"),
        ("granian", "overload:Nested.app"),
    ] {
        let Some((launch, gate)) = launch(server, app, &["--workers", "1"]) else { return };
        let mut running = launch.start();
        running.wait_log(" ready ");
        let volley = Volley::fire(running.port, "/wait", LIMIT + 1);
        wait_until("the excess to be refused", || volley.count(503) == 1);
        std::fs::write(&gate, "").unwrap();
        assert_eq!(volley.finish().iter().filter(|answer| answer.0 == 200).count(), LIMIT as usize, "{server} {app}");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn granian_takes_its_factory_flag_after_the_dashes() {
    let Some((mut launch, _)) = launch("granian", "overload:make", &["--workers", "1"]) else { return };
    launch.command.args(["--", "--factory"]);
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The exit status with a broken app, and whether there is a traceback, with and without the guard.
#[test]
fn a_broken_app_fails_as_it_does_without_the_guard() {
    const BROKEN: &str = "import os\nif os.environ['HOW'] == 'raise':\n    raise RuntimeError('on purpose')\n\
                          async def app(scope, receive, send):\n    raise SystemExit(7)\n";
    for (server, app, how) in [
        ("gunicorn", "broken:app", "raise"),
        ("gunicorn", "broken:nothing", ""),
        ("gunicorn", "nowhere:app", ""),
        ("granian", "broken:app", "raise"),
        ("granian", "broken:nothing", ""),
        ("granian", "nowhere:app", ""),
    ] {
        for preload in ["true", "false"] {
            let outcome = |guard: &str| {
                let (mut launch, _) = launch(server, app, &["--workers", "1", "--restart", "no"])?;
                let directory = launch.directory.path().to_owned();
                std::fs::write(directory.join("broken.py"), BROKEN).unwrap();
                launch.command.env("PYTHONPATH", directory).env("HOW", how).env("MCP_LAUNCH_GUARD", guard);
                Some(launch.env("GUNICORN_PRELOAD_APP", preload).finish())
            };
            let (Some(with), Some(without)) = (outcome("on"), outcome("off")) else { return };
            let case = format!("{server} {app} {how} preload={preload}\n{}", with.log);
            assert_eq!(with.code, without.code, "{case}");
            assert_eq!(with.log.contains("Traceback"), without.log.contains("Traceback"), "{case}");
        }
    }
}

#[test]
fn a_directory_that_is_a_package_does_not_keep_granian_from_finding_the_guard() {
    let Some((mut launch, _)) = launch("granian", "overload:app", &["--workers", "1"]) else { return };
    // Granian takes the app for a module of the package.
    let directory = launch.directory.path().join("package");
    std::fs::create_dir(&directory).unwrap();
    launch.command.current_dir(&directory);
    std::fs::write(directory.join("__init__.py"), "").unwrap();
    std::fs::copy(tests_directory("apps").join("overload.py"), directory.join("overload.py")).unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn wsgi_workers_serve_whoever_names_the_class() {
    for by_file in [true, false] {
        let Some((mut launch, _)) = launch("gunicorn", "overload:wsgi", &["--workers", "1"]) else { return };
        if by_file {
            std::fs::write(launch.directory.path().join("gunicorn.conf.py"), "worker_class = 'sync'\n").unwrap();
        } else {
            launch.command.env("GUNICORN_WORKER_CLASS", "gthread");
        }
        let mut running = launch.start();
        running.wait_log(" ready ");
        assert_eq!(get(running.port, "/").unwrap().body, "wsgi");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}
