//! The class of Gunicorn's workers: it decides whether an ASGI app is served at all.

use super::super::Findings;
use super::super::app::Target;
use super::super::flags::GUNICORN_ASGI;
use super::super::server::install;
use crate::host::{Host, Version};
use crate::problem::Problem;
use crate::settings::Origin;

const UVICORN_WORKER: &str = "uvicorn_worker.UvicornWorker";
const UVICORN: &str = "uvicorn.workers.UvicornWorker";
/// Gunicorn's own.
pub(super) const ASGI: &str = "asgi";

/// The best class that is installed.
pub(super) fn best(host: &Host, version: Option<Version>, findings: &mut Findings) -> Option<&'static str> {
    let python = &host.python;
    let has = |package: &str| python.packages.contains_key(package);
    let (class, because) = if has("uvicorn-worker") {
        (UVICORN_WORKER, "auto: uvicorn-worker is installed")
    } else if has("uvicorn") {
        (UVICORN, "auto: uvicorn is installed, uvicorn-worker is not")
    } else if version.is_none_or(|version| version >= GUNICORN_ASGI) {
        (ASGI, "auto: gunicorn's own, as neither uvicorn-worker nor uvicorn is installed")
    } else {
        let message = "no worker class for an ASGI app: neither uvicorn-worker nor uvicorn is installed, and this \
                       gunicorn has none of its own before 24.0";
        findings.problem(Problem::setting(message, &Origin::Default).hint(install(python, "uvicorn-worker")));
        return None;
    };
    findings.decide("worker-class", class, because);
    Some(class)
}

/// Checks a class that somebody asked for.
pub(super) fn check(
    class: &str,
    origin: &Origin,
    app: &Target,
    host: &Host,
    version: Option<Version>,
    findings: &mut Findings,
) {
    let python = &host.python;
    findings.decide("worker-class", class, origin.to_string());
    if is_wsgi(class) && app.is_gateway {
        let message = format!("worker class {class} is for WSGI apps, and {} is an ASGI app", app.text);
        findings.problem(Problem::setting(message, origin).hint("leave it out, or use auto"));
    }
    if class == ASGI && version.is_some_and(|version| version < GUNICORN_ASGI) {
        let message = format!("this gunicorn has no worker class {class}; it came with {GUNICORN_ASGI}");
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
