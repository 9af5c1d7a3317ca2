//! TLS and HTTP/2 under Gunicorn.
//!
//! Gunicorn has no flag for the oldest TLS version that is accepted, and uvicorn's workers create a context themselves.
//! So the generated configuration creates one for all (`tls.py`), from what Gunicorn has resolved.

use std::sync::Arc;

use super::super::flags::gunicorn_has;
use super::super::server::install;
use super::super::{Credentials, Findings, Launch, tls};
use super::directive::{Directive, Python};
use super::{text, worker_class};
use crate::host::{Host, Version};
use crate::problem::Problem;
use crate::settings::Resolution;
use crate::settings::value::{ClientVerify, Http};
use crate::tls::Pair;

/// The first release of the package h2 that Gunicorn uses.
const H2: Version = Version(4, 1, 0);

/// The files, which it inherits as descriptors, and what clients must present.
pub(super) fn tls(launch: &mut Launch, pair: Option<&Arc<Pair>>, resolution: &Resolution) -> Vec<Directive> {
    let settings = &resolution.settings;
    let (true, Some(pair)) = (settings.ssl.value, pair) else { return Vec::new() };
    let (file, authority) = tls::descriptors(launch, pair, resolution);
    launch.credentials = Some(Credentials { pair: Arc::clone(pair), directory: None });
    let mut directives = vec![
        Directive::explicit("certfile", "--certfile", text(&file)),
        Directive::explicit("keyfile", "--keyfile", text(&file)),
    ];
    directives.extend(authority.map(|file| Directive::explicit("ca_certs", "--ca-certs", text(file))));
    // The numbers of Python's ssl.VerifyMode.
    let verify = &settings.ssl_client_verify;
    let mode = match verify.value {
        ClientVerify::None => verify.is_explicit().then_some(0),
        ClientVerify::Optional => Some(1),
        ClientVerify::Required => Some(2),
    };
    directives.extend(mode.map(|mode| Directive::explicit("cert_reqs", "--cert-reqs", Python::Int(mode))));
    if let Some(ciphers) = &settings.ssl_ciphers.value {
        directives.push(Directive::explicit("ciphers", "--ciphers", text(ciphers)));
    }
    directives
}

/// HTTP/2, by the setting that Granian has too. Without it, Gunicorn offers HTTP/1.
pub(super) fn http(
    resolution: &Resolution,
    host: &Host,
    version: Option<Version>,
    class: Option<&str>,
    findings: &mut Findings,
) -> Option<Directive> {
    const FLAG: &str = "--http-protocols";
    let settings = &resolution.settings;
    let (http, python) = (&settings.granian_http, &host.python);
    if !http.is_explicit() || http.value == Http::V1 {
        return None;
    }
    let h2 = python.packages.get("h2");
    let is_missing = python.interpreter.is_some() && h2.is_none_or(|version| *version < H2);
    let (why, hint) = if !settings.ssl.value {
        ("TLS".to_owned(), "set SSL=true".to_owned())
    } else if !class.is_some_and(worker_class::is_own_asgi) {
        let class = class.unwrap_or("the one in the configuration file");
        (
            format!("Gunicorn's own worker class {} instead of {class}", worker_class::ASGI),
            "set GUNICORN_WORKER_CLASS=asgi".into(),
        )
    } else if !gunicorn_has(FLAG, version) {
        ("a newer Gunicorn: it came with 25.0".into(), install(python, "-U 'gunicorn[http2]'"))
    } else if is_missing {
        ("the package h2, which is not installed".into(), install(python, "'gunicorn[http2]'"))
    } else {
        let protocols = if http.value == Http::V2 { "h2" } else { "h2,h1" };
        findings.decide("http", protocols, http.origin.to_string());
        return Some(Directive::explicit("http_protocols", FLAG, text(protocols)));
    };
    if http.value == Http::Auto {
        findings.decide("http", "1", format!("{}: HTTP/2 needs {why}", http.origin));
        return None;
    }
    let message = format!("http = 2 under Gunicorn needs {why}");
    findings.problem(Problem::setting(message, &http.origin).hint(format!("{hint}, or use --server granian")));
    None
}
