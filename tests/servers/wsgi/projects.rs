//! Projects as their frameworks make them, named by their modules alone.

use std::process::Command;

use crate::harness::http::get;
use crate::harness::{Launch, venv};

const FLASK: &str = "from flask import Flask\n\napp = Flask(__name__)\napp.get('/')(lambda: 'hello')\n";

/// A launch in the directory of a Django project `mysite` and a Flask app `flasky`.
fn launch(arguments: &[&str]) -> Option<Launch> {
    let venv = venv()?;
    let launch = Launch::new(arguments).env("VIRTUAL_ENV", &venv).env("MCP_LAUNCH_CPUS", "1");
    let directory = launch.directory.path();
    let made = Command::new(venv.join("bin/python"))
        .args(["-m", "django", "startproject", "mysite"])
        .arg(directory)
        .current_dir(directory)
        .status()
        .unwrap();
    assert!(made.success());
    let settings = directory.join("mysite/settings.py");
    let text = std::fs::read_to_string(&settings).unwrap() + "\nALLOWED_HOSTS = ['*']\n";
    std::fs::write(settings, text).unwrap();
    std::fs::write(directory.join("flasky.py"), FLASK).unwrap();
    Some(launch)
}

#[test]
fn a_project_is_served_by_the_name_of_its_module() {
    for server in ["gunicorn", "granian"] {
        for (app, said) in [("mysite.wsgi", "install worked"), ("mysite.asgi", "install worked"), ("flasky", "hello")]
        {
            let Some(launch) = launch(&["--server", server, "--workers", "1", app]) else { return };
            let mut running = launch.start();
            running.wait_log(" ready generation=");
            let answer = get(running.port, "/").unwrap();
            assert!(answer.status == 200 && answer.body.contains(said), "{server} {app}: {answer:?}");
            assert_eq!(running.stop(), 0, "{}", running.log());
        }
    }
}

#[test]
fn an_interface_that_is_not_the_projects_is_a_problem_that_names_what_to_use() {
    let uvicorn = "uvicorn_worker.UvicornWorker";
    for (server, app, setting, value, instead) in [
        ("granian", "mysite.wsgi", "GRANIAN_INTERFACE", "asgi", "use GRANIAN_INTERFACE=wsgi (-- --interface wsgi)"),
        ("granian", "flasky", "GRANIAN_INTERFACE", "asgi", "use GRANIAN_INTERFACE=wsgi"),
        ("granian", "mysite.asgi", "GRANIAN_INTERFACE", "wsgi", "use GRANIAN_INTERFACE=asgi"),
        ("gunicorn", "mysite.wsgi", "GUNICORN_WORKER_CLASS", uvicorn, "use gthread"),
        ("gunicorn", "flasky", "GUNICORN_WORKER_CLASS", uvicorn, "use gthread"),
        ("gunicorn", "mysite.asgi", "GUNICORN_WORKER_CLASS", "gthread", "remove it, or use auto"),
    ] {
        let Some(launch) = launch(&["check", "--server", server, app]) else { return };
        let finished = launch.env(setting, value).finish();
        let problems = finished.out + &finished.log;
        assert_eq!(finished.code, 78, "{problems}");
        assert!(problems.contains(instead) && problems.contains(setting), "{server} {app}: {problems}");
    }
}

/// The text does not show what a factory returns: the guard finds out.
#[test]
fn a_wsgi_app_that_the_text_does_not_show_is_told_what_to_use() {
    for (server, code, instead) in
        [("gunicorn", 3, "use worker class gthread (--worker-class)"), ("granian", 1, "use GRANIAN_INTERFACE=wsgi")]
    {
        let Some(launch) = launch(&["--server", server, "--workers", "1", "hidden:make()"]) else { return };
        let text = "def make():\n    from flasky import app\n    return app\n";
        std::fs::write(launch.directory.path().join("hidden.py"), text).unwrap();
        let finished = launch.finish();
        assert_eq!(finished.code, code, "{}", finished.log);
        assert!(finished.log.contains(instead), "{}", finished.log);
    }
}
