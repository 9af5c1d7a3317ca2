//! The class of Gunicorn's workers: it decides whether an ASGI app is served at all.

use super::super::Findings;
use super::super::app::{AppTarget, presumed_interface, shown_interface};
use super::super::balance::Dealing;
use super::super::flags::{GUNICORN_ASGI, GUNICORN_WITHOUT_EVENTLET};
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
    let (class, because) = if presumed_interface(app, host) == Some(Interface::Wsgi) {
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
    warn_if_not_reloading(class, dev_mode, host, findings);
    findings.decide("worker-class", class, because);
    Some(class)
}

/// Checks a class that was set explicitly.
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
    let wrong = match shown_interface(app, host) {
        Some(Interface::Wsgi) if is_asgi(class) => Some(("ASGI apps", "a WSGI app", "use gthread, or auto")),
        Some(Interface::Asgi) if is_wsgi(class) => Some(("WSGI apps", "an ASGI app", "remove it, or use auto")),
        _ => None,
    };
    if let Some((serves, is, hint)) = wrong {
        let message = format!("worker class {class} is for {serves}, and {} is {is}", app.text);
        findings.problem(Problem::setting(message, origin).hint(hint));
    }
    if class == ASGI && version.is_some_and(|version| version < GUNICORN_ASGI) {
        let message = format!("this gunicorn has no worker class {class}; it was added in {GUNICORN_ASGI}");
        findings.problem(Problem::setting(message, origin).hint(install(python, "-U gunicorn")));
    }
    if is_wsgi(class)
        && class.contains("eventlet")
        && let Some(version) = version.filter(|version| *version >= GUNICORN_WITHOUT_EVENTLET)
    {
        let message =
            format!("gunicorn {version} has no worker class {class}: {GUNICORN_WITHOUT_EVENTLET} removed it");
        findings.problem(Problem::setting(message, origin).hint("use gevent or gthread"));
        return;
    }
    let package = match class {
        class if class.starts_with("uvicorn_worker.") => "uvicorn-worker",
        class if class.starts_with("uvicorn.") => "uvicorn",
        class if is_wsgi(class) && class.contains("gevent") => "gevent",
        class if is_wsgi(class) && class.contains("eventlet") => "eventlet",
        _ => return,
    };
    if python.interpreter.is_some() && !python.packages.contains_key(package) {
        let message = format!("worker class {class} needs {package}, which is not installed");
        // Gunicorn names there what else it needs for them.
        let extra = if is_wsgi(class) { format!("'gunicorn[{package}]'") } else { package.to_owned() };
        findings.problem(Problem::setting(message, origin).hint(install(python, &extra)));
    }
}

/// Uvicorn's workers keep the old code because they ignore what Gunicorn's reloader sets.
pub(super) fn warn_if_not_reloading(class: &str, dev_mode: bool, host: &Host, findings: &mut Findings) {
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
pub(super) fn is_asgi(class: &str) -> bool {
    is_uvicorn(class) || is_own_asgi(class)
}

/// How clients are distributed among workers of this class.
pub(super) fn dealing(class: Option<&str>) -> Dealing {
    let condition = match class {
        Some(class) if is_wsgi(class) => {
            return Dealing::ByKernel("WSGI workers share the listening socket: the first one to wake up accepts");
        }
        Some(class) if is_asgi(class) => None,
        Some(class) => Some(format!(
            "if {class} accepts clients as Uvicorn's workers or Gunicorn's asgi do; otherwise the log says so"
        )),
        None => Some("if the worker class is Uvicorn's or Gunicorn's asgi, or derived from them".to_owned()),
    };
    Dealing::AmongWorkers { condition }
}

/// Whether it is Gunicorn's own for ASGI apps.
pub(super) fn is_own_asgi(class: &str) -> bool {
    [ASGI, "gunicorn.workers.gasgi.ASGIWorker"].contains(&class)
}

/// How a class handles requests, as far as threads are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One at a time.
    Sync,
    /// In threads.
    Threads,
    /// In an event loop or greenlets.
    Other,
    /// Nobody knows: it is the user's.
    Unknown,
}

/// How this class handles requests.
pub(super) fn kind(class: &str) -> Kind {
    match class {
        "sync" | "gunicorn.workers.sync.SyncWorker" => Kind::Sync,
        GTHREAD | "gunicorn.workers.gthread.ThreadWorker" => Kind::Threads,
        class if is_asgi(class) || is_wsgi(class) => Kind::Other,
        _ => Kind::Unknown,
    }
}

/// Whether the workers of this class serve WSGI apps, if the class is known.
pub(super) fn serves_wsgi(class: &str) -> Option<bool> {
    if is_wsgi(class) { Some(true) } else { is_asgi(class).then_some(false) }
}

/// Whether Gunicorn's class serves WSGI apps.
pub(super) fn is_wsgi(class: &str) -> bool {
    const MODULES: [&str; 5] = ["sync", "gthread", "geventlet", "ggevent", "gtornado"];
    match class.strip_prefix("gunicorn.workers.") {
        Some(rest) => MODULES.iter().any(|module| rest.split('.').next() == Some(module)),
        None => ["sync", "gthread", "gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado"].contains(&class),
    }
}
