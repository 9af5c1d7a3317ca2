//! What is special about the MCP Gateway, which is the default application.
//!
//! Its image had an entrypoint that prepared the environment; that is done here.

use std::ffi::OsStr;

use super::Findings;
use crate::host::Environment;
use crate::problem::Problem;
use crate::settings::value::{App, Value};
use crate::settings::{EnvFiles, Settings};

/// The name in process lists.
pub(super) const PROCESS_NAME: &str = "mcpgateway";

/// Paths that are answered even by a worker that is full: the chart's probes and the metrics.
pub(super) const EXEMPT: [&str; 2] = ["/ready", "/metrics"];

/// Whether this application is the gateway.
pub(super) fn is(app: &App) -> bool {
    app.module == "mcpgateway.main"
}

/// Variables that compose files pass on although they are empty, with the value that the entrypoint gave them. The
/// gateway rejects an empty text where it expects a boolean. None: it is removed.
const EMPTY: &[(&str, Option<&str>)] = &[
    ("RUST_MCP_MODE", Some("off")),
    ("RUST_MCP_LOG", Some("warn")),
    ("RUST_MCP_SESSION_AUTH_REUSE", None),
    (RUNTIME_ENABLED, Some("false")),
    (RUNTIME_MANAGED, Some("true")),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_URL", Some("http://127.0.0.1:8787")),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_UDS", None),
    ("EXPERIMENTAL_RUST_MCP_RUNTIME_TIMEOUT_SECONDS", None),
    ("EXPERIMENTAL_RUST_MCP_SESSION_CORE_ENABLED", Some("false")),
    ("EXPERIMENTAL_RUST_MCP_EVENT_STORE_ENABLED", Some("false")),
    ("EXPERIMENTAL_RUST_MCP_RESUME_CORE_ENABLED", Some("false")),
    ("EXPERIMENTAL_RUST_MCP_LIVE_STREAM_CORE_ENABLED", Some("false")),
    ("EXPERIMENTAL_RUST_MCP_AFFINITY_CORE_ENABLED", Some("false")),
    (SESSION_AUTH_REUSE_ENABLED, Some("false")),
    ("CONTEXTFORGE_ENABLE_RUST_BUILD", Some("false")),
    ("CONTEXTFORGE_ENABLE_RUST_MCP_RMCP_BUILD", Some("false")),
    ("MCP_RUST_LISTEN_HTTP", Some("127.0.0.1:8787")),
    ("MCP_RUST_LISTEN_UDS", None),
    ("MCP_RUST_PUBLIC_LISTEN_HTTP", None),
    ("MCP_RUST_LOG", Some("warn")),
    ("MCP_RUST_USE_RMCP_UPSTREAM_CLIENT", Some("false")),
    ("MCP_RUST_SESSION_CORE_ENABLED", Some("false")),
    ("MCP_RUST_EVENT_STORE_ENABLED", Some("false")),
    ("MCP_RUST_RESUME_CORE_ENABLED", Some("false")),
    ("MCP_RUST_LIVE_STREAM_CORE_ENABLED", Some("false")),
    ("MCP_RUST_AFFINITY_CORE_ENABLED", Some("false")),
    ("MCP_RUST_SESSION_AUTH_REUSE_ENABLED", Some("false")),
    ("MCP_RUST_SESSION_AUTH_REUSE_TTL_SECONDS", Some("30")),
];

const MODE: &str = "RUST_MCP_MODE";
const RUNTIME_ENABLED: &str = "EXPERIMENTAL_RUST_MCP_RUNTIME_ENABLED";
const RUNTIME_MANAGED: &str = "EXPERIMENTAL_RUST_MCP_RUNTIME_MANAGED";
const SESSION_AUTH_REUSE_ENABLED: &str = "EXPERIMENTAL_RUST_MCP_SESSION_AUTH_REUSE_ENABLED";

/// Prepares the environment as the gateway's entrypoint did, for every application: it may be a user's own module
/// around the gateway, and no other application has variables with these names.
pub(super) fn prepare(env: &mut Environment, files: &EnvFiles, findings: &mut Findings) {
    sidecar(env, files, findings);
    if let (None, Some(reuse)) = (text(env, SESSION_AUTH_REUSE_ENABLED), text(env, "RUST_MCP_SESSION_AUTH_REUSE")) {
        env.insert(SESSION_AUTH_REUSE_ENABLED.into(), reuse.into());
    }
    for (name, value) in EMPTY {
        if env.get(OsStr::new(name)).is_some_and(|value| value.is_empty()) {
            match value {
                Some(value) => env.insert(name.into(), value.into()),
                None => env.remove(OsStr::new(name)),
            };
        }
    }
}

/// The entrypoint could start a sidecar in Rust next to the gateway. Here it would not be supervised. A sidecar that
/// runs elsewhere does not matter here.
fn sidecar(env: &Environment, files: &EnvFiles, findings: &mut Findings) {
    const HINT: &str = "set it to off, or run the sidecar in its own container and set \
                        EXPERIMENTAL_RUST_MCP_RUNTIME_ENABLED=true, EXPERIMENTAL_RUST_MCP_RUNTIME_MANAGED=false \
                        and EXPERIMENTAL_RUST_MCP_RUNTIME_URL";
    let mut refuse = |name: &str, value: &str| {
        let message = format!("{name} = {value:?} asks for a sidecar, which is not managed here");
        findings.problem(Problem::setting(message, &files.origin_of(name)).hint(HINT));
    };
    if let Some(mode) = text(env, MODE).filter(|mode| !mode.eq_ignore_ascii_case("off")) {
        refuse(MODE, &mode);
    }
    let is_external = || text(env, RUNTIME_MANAGED).is_some_and(|managed| bool::parse(&managed) == Ok(false));
    if let Some(enabled) = text(env, RUNTIME_ENABLED).filter(|enabled| is_true(enabled) && !is_external()) {
        refuse(RUNTIME_ENABLED, &enabled);
    }
}

/// Warnings about the gateway's own settings that do not fit this plan.
pub(super) fn warn(settings: &Settings, env: &Environment, workers: u32, findings: &mut Findings) {
    findings.warnings.extend(sessions(env, workers));
    if !settings.guard_exempt.is_explicit() {
        findings.decide("guard-exempt", EXEMPT.join(", "), "the app is the gateway");
    }
}

/// A stateful session exists in the worker that opened it. The others find it through Redis, if there is one.
fn sessions(env: &Environment, workers: u32) -> Option<String> {
    const STATEFUL: &str = "USE_STATEFUL_SESSIONS";
    const AFFINITY: &str = "MCPGATEWAY_SESSION_AFFINITY_ENABLED";
    let is_on = |name: &str| text(env, name).is_some_and(|value| is_true(&value));
    let has_redis = text(env, "CACHE_TYPE").is_some_and(|cache| cache.eq_ignore_ascii_case("redis"));
    if workers < 2 || !is_on(STATEFUL) || (has_redis && is_on(AFFINITY)) {
        return None;
    }
    let missing = match (has_redis, is_on(AFFINITY)) {
        (true, _) => format!("{AFFINITY}=true"),
        (false, true) => "CACHE_TYPE=redis and REDIS_URL".to_owned(),
        (false, false) => format!("CACHE_TYPE=redis, REDIS_URL and {AFFINITY}=true"),
    };
    Some(format!(
        "{STATEFUL} is on with {workers} workers: a session is known only to the worker that opened it, and the others \
         answer 404; set {missing}, or use one worker, or sessions without state"
    ))
}

/// The value of a variable that is set and not empty.
fn text(env: &Environment, name: &str) -> Option<String> {
    let value = env.get(OsStr::new(name))?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// The value as the gateway reads it.
fn is_true(text: &str) -> bool {
    ["1", "true", "t", "yes", "y", "on"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
