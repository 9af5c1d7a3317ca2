//! The class of Gunicorn's workers: it decides whether an ASGI app is served at all.

use super::super::Findings;
use super::super::app::{AppTarget, interface};
use super::super::flags::GUNICORN_ASGI;
use super::super::server::install;
use crate::host::{Host, Interface, Version};
use crate::problem::Problem;
use crate::settings::Origin;

const UVICORN_WORKER: &str = "uvicorn_worker.UvicornWorker";
const UVICORN: &str = "uvicorn.workers.UvicornWorker";
/// Gunicorn's own for WSGI apps, which answers several requests at a time.
pub(super) const GTHREAD: &str = "gthread";
/// Gunicorn's own for ASGI apps.
pub(super) const ASGI: &str = "asgi";

/// The best class for the application.
pub(super) fn best(
    app: &AppTarget,
    dev_mode: bool,
    host: &Host,
    version: Option<Version>,
    findings: &mut Findings,
) -> Option<&'static str> {
    let python = &host.python;
    let has = |package: &str| python.packages.contains_key(package);
    let has_own = version.is_none_or(|version| version >= GUNICORN_ASGI);
    let (class, because) = if interface(app, host) == Some(Interface::Wsgi) {
        (GTHREAD, "auto: the app is a WSGI app")
    } else if dev_mode && has_own {
        (ASGI, "auto: uvicorn's workers do not reload when the code changes, gunicorn's own do")
    } else if has("uvicorn-worker") {
        (UVICORN_WORKER, "auto: uvicorn-worker is installed")
    } else if has("uvicorn") {
        (UVICORN, "auto: uvicorn is installed, uvicorn-worker is not")
    } else if has_own {
        (ASGI, "auto: gunicorn's own because neither uvicorn-worker nor uvicorn is installed")
    } else {
        let message = "no worker class for an ASGI app: neither uvicorn-worker nor uvicorn is installed, and this \
                       gunicorn has none of its own before 24.0";
        findings.problem(Problem::setting(message, &Origin::Default).hint(install(python, "uvicorn-worker")));
        return None;
    };
    reload_in_vain(class, dev_mode, host, findings);
    findings.decide("worker-class", class, because);
    Some(class)
}

/// Checks a class that somebody asked for.
pub(super) fn check(
    class: &str,
    origin: &Origin,
    app: &AppTarget,
    host: &Host,
    version: Option<Version>,
    findings: &mut Findings,
) {
    let python = &host.python;
    findings.decide("worker-class", class, origin.to_string());
    if is_asgi(class) && interface(app, host) == Some(Interface::Wsgi) {
        let message = format!("worker class {class} is for ASGI apps, and {} is a WSGI app", app.text);
        findings.problem(Problem::setting(message, origin).hint("use gthread, or auto"));
    }
    if is_wsgi(class) && app.is_gateway {
        let message = format!("worker class {class} is for WSGI apps, and {} is an ASGI app", app.text);
        findings.problem(Problem::setting(message, origin).hint("remove it, or use auto"));
    }
    if class == ASGI && version.is_some_and(|version| version < GUNICORN_ASGI) {
        let message = format!("this gunicorn has no worker class {class}; it was added in {GUNICORN_ASGI}");
        findings.problem(Problem::setting(message, origin).hint(install(python, "-U gunicorn")));
    }
    let package = match class {
        class if class.starts_with("uvicorn_worker.") => "uvicorn-worker",
        class if class.starts_with("uvicorn.") => "uvicorn",
        _ => return,
    };
    if python.interpreter.is_some() && !python.packages.contains_key(package) {
        let message = format!("worker class {class} needs {package}, which is not installed");
        findings.problem(Problem::setting(message, origin).hint(install(python, package)));
    }
}

/// Uvicorn's workers go on with the old code, because they do not look at what Gunicorn's reloader sets.
pub(super) fn reload_in_vain(class: &str, dev_mode: bool, host: &Host, findings: &mut Findings) {
    if dev_mode && is_uvicorn(class) {
        findings.warn(format!(
            "dev mode: worker class {class} does not reload when the code changes; use --worker-class {ASGI} ({}), or \
             --server granian",
            install(&host.python, "-U gunicorn")
        ));
    }
}

fn is_uvicorn(class: &str) -> bool {
    class.starts_with("uvicorn_worker.") || class.starts_with("uvicorn.")
}

/// Whether the class is known to serve ASGI apps.
fn is_asgi(class: &str) -> bool {
    is_uvicorn(class) || is_own_asgi(class)
}

/// What has to be so in order that the guard can accept for a worker of this class.
pub(super) fn condition_to_deal(class: Option<&str>) -> Option<String> {
    match class {
        Some(class) if is_asgi(class) => None,
        Some(class) => {
            Some(format!("if {class} accepts as Uvicorn's workers or Gunicorn's asgi do; else its log says so"))
        }
        None => Some("if the worker class is Uvicorn's or Gunicorn's asgi, or derived from them".to_owned()),
    }
}

/// Whether it is Gunicorn's own for ASGI apps.
pub(super) fn is_own_asgi(class: &str) -> bool {
    [ASGI, "gunicorn.workers.gasgi.ASGIWorker"].contains(&class)
}

/// Whether Gunicorn's class serves WSGI apps.
pub(super) fn is_wsgi(class: &str) -> bool {
    const MODULES: [&str; 5] = ["sync", "gthread", "geventlet", "ggevent", "gtornado"];
    match class.strip_prefix("gunicorn.workers.") {
        Some(rest) => MODULES.iter().any(|module| rest.split('.').next() == Some(module)),
        None => ["sync", "gthread", "gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado"].contains(&class),
    }
}
