//! The forms in which an application is named, and the kinds of applications, with real servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::http::get;
use crate::harness::{Launch, Running, tests_directory, venv, wait_until};

const ASGI: &str = "
from lifespan import serve_lifespan

async def application(scope, receive, send):
    if scope['type'] == 'lifespan':
        return await serve_lifespan(receive, send)
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'first'})
";

const WSGI: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'first']
";

fn launch(venv: &Path, server: &str, files: &[(&str, &str)], arguments: &[&str]) -> Launch {
    let mut launch = Launch::new(&[&["--server", server, "--workers", "1"], arguments].concat());
    for (name, text) in files {
        let path = launch.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    launch.command.env("VIRTUAL_ENV", venv).env("MCP_LAUNCH_CPUS", "1").env("PYTHONPATH", tests_directory("apps"));
    launch
}

fn answers(running: &mut Running, text: &str) {
    running.wait_log(" ready ");
    let answer = get(running.port, "/").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, text), "{}", running.log());
}

fn forms_that_the_server_takes_are_not_refused(server: &str) {
    let Some(venv) = venv() else { return };
    let star = [("base.py", ASGI), ("starred.py", "from base import *\n")];
    for (files, app) in
        [(&[("my-app.py", ASGI)][..], "my-app:application"), (&star, "starred"), (&star, "starred:application")]
    {
        let mut running = launch(&venv, server, files, &[app]).start();
        answers(&mut running, "first");
        assert!(!running.log().contains("not found on the import path"), "{app}: {}", running.log());
        assert_eq!(running.stop(), 0, "{app}: {}", running.log());
    }
}

#[test]
fn granian_takes_the_path_of_a_file() {
    let Some(venv) = venv() else { return };
    for app in ["backend/main:application", "./backend/main.py:application"] {
        let mut running = launch(&venv, "granian", &[("backend/main.py", ASGI)], &[app]).start();
        answers(&mut running, "first");
        assert!(!running.log().contains("not found on the import path"), "{app}: {}", running.log());
        assert_eq!(running.stop(), 0, "{app}: {}", running.log());
    }
}

fn an_app_below_the_app_root_of_an_image_is_served_where_it_is(server: &str) {
    let Some(venv) = venv() else { return };
    let mut launch = launch(&venv, server, &[("src/main.py", ASGI)], &["main:application"]);
    let root = launch.directory.path().to_owned();
    launch.command.current_dir(root.join("src")).env("APP_ROOT", &root);
    let mut running = launch.start();
    answers(&mut running, "first");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn an_app_root_that_is_not_there_is_a_problem_that_names_it(server: &str) {
    let Some(venv) = venv() else { return };
    for before in [&[][..], &["check"]] {
        let launch = Launch::new(&[before, &["--server", server, "main:app"]].concat());
        let finished = launch.env("VIRTUAL_ENV", &venv).env("APP_ROOT", "/nowhere/at/all").finish();
        assert_eq!(finished.code, 78, "{}", finished.log);
        let wanted = "app_root = /nowhere/at/all does not exist (from environment APP_ROOT)";
        assert!(finished.log.contains(wanted), "{}", finished.log);
    }
}

fn a_wsgi_app_is_served(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = launch(&venv, server, &[("site.py", WSGI), ("main.py", WSGI)], &["main:application"]).start();
    answers(&mut running, "first");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_wsgi_app_that_is_not_recognised_ends_with_one_clear_problem(server: &str) {
    let Some(venv) = venv() else { return };
    let hidden = format!("{WSGI}\nserved = (lambda app: app)(application)\n");
    let finished = launch(&venv, server, &[("main.py", &hidden)], &["main:served"]).finish();
    let status = if server == "gunicorn" { 3 } else { 1 };
    assert_eq!(finished.code, status, "{}", finished.log);
    assert!(finished.log.contains("main:served is a WSGI app"), "{}", finished.log);
}

/// With the worker class that is chosen by default.
fn dev_mode_reloads(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = launch(&venv, server, &[("main.py", ASGI)], &["--dev-mode", "main:application"]).start();
    answers(&mut running, "first");
    let changed = ASGI.replace("first", "second");
    let directory = running.directory.path().to_owned();
    let mut saved = None;
    wait_until("the new code", || {
        // Gunicorn's reloader sees a change only after its first look at the files, which may come after the first
        // answer: whoever was that quick saves again.
        if saved.is_none_or(|when: Instant| when.elapsed() > Duration::from_secs(3)) {
            fs::write(directory.join("saved"), &changed).unwrap();
            fs::rename(directory.join("saved"), directory.join("main.py")).unwrap();
            saved = Some(Instant::now());
        }
        get(running.port, "/").is_ok_and(|answer| answer.body == "second")
    });
    running.stop();
}

crate::for_both_servers!(
    forms_that_the_server_takes_are_not_refused,
    an_app_below_the_app_root_of_an_image_is_served_where_it_is,
    an_app_root_that_is_not_there_is_a_problem_that_names_it,
    a_wsgi_app_is_served,
    a_wsgi_app_that_is_not_recognised_ends_with_one_clear_problem,
    dev_mode_reloads,
);
