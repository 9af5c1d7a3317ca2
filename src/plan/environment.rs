//! The server's environment: ours, with resolved settings under the names by which they were given, and without
//! variables that are not meant for the server.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::app::AppTarget;
use super::{Bind, Findings, gateway, request_limit};
use crate::host::{Environment, Host};
use crate::settings::value::{Lifetime, MebiSize, Mode, Server, Value};
use crate::settings::{OPTIONS, Resolution, Settings};

/// What the environment depends on.
pub(super) struct Inputs<'a> {
    pub resolution: &'a Resolution,
    pub host: &'a Host,
    pub server: Server,
    pub app: &'a AppTarget,
    pub bind: &'a Bind,
    /// The count of each server, in the order of [`Server::ALL`].
    pub counts: [u32; 2],
}

/// Variables with which a supervisor above us communicates with us, not with the server: `sd_notify(3)`,
/// `sd_watchdog_enabled(3)`, `sd_listen_fds(3)`.
const SUPERVISORS: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
];

/// What one Gunicorn passes to the next when it replaces itself. If it is set by mistake, Gunicorn looks for something
/// that does not exist.
const GUNICORN_HANDOVER: &[&str] = &["GUNICORN_PID", "GUNICORN_FD"];

/// Makes the environment, except for what starting the server itself requires.
pub(super) fn environment(inputs: &Inputs, findings: &mut Findings) -> Environment {
    let Inputs { resolution, host, .. } = inputs;
    let settings = &resolution.settings;
    let mut env = resolution.env.clone();
    let supervisors = if settings.mode.value == Mode::Supervise { SUPERVISORS } else { &[] };
    let secrets = OPTIONS.iter().filter(|opt| opt.secret).flat_map(|opt| opt.env);
    let withheld = resolution.withheld.iter().map(|withheld| withheld.name.as_str());
    for name in withheld.chain([GUNICORN_HANDOVER, supervisors].concat()).chain(secrets.copied()) {
        env.remove(OsStr::new(name));
    }

    for Export { name, value, always } in exports(inputs) {
        match value {
            Some(value) if always || env.contains_key(OsStr::new(name)) => _ = env.insert(name.into(), value.into()),
            Some(_) => {}
            None => _ = env.remove(OsStr::new(name)),
        }
    }
    if let Some(venv) = host.python.interpreter.as_ref().and_then(|interpreter| interpreter.venv.as_ref()) {
        activate(venv, &mut env);
    }
    if host.arch == "s390x" {
        // The C implementation assumes the opposite byte order.
        env.insert("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION".into(), "python".into());
    }
    gateway::prepare(&mut env, &resolution.env_files, findings);
    env
}

/// A setting as it is exported.
struct Export {
    name: &'static str,
    /// In the syntax of the programs that read it: plain numbers, seconds, bytes, MiB. None means unset.
    value: Option<String>,
    /// Whether it is set even if the user did not give it.
    always: bool,
}

/// Every setting whose variable other programs also read. Only we read `MCP_LAUNCH_*`, so those are left as they are.
fn exports(inputs: &Inputs) -> Vec<Export> {
    let Inputs { resolution, server, app, bind, .. } = inputs;
    let s = &resolution.settings;
    let (gunicorn, granian) = (*server == Server::Gunicorn, *server == Server::Granian);
    let (workers, [gunicorn_workers, granian_workers]) = (inputs.counts[*server as usize], inputs.counts);
    let given = |name, value: String| Export { name, value: Some(value), always: false };
    let always = |name, value: String, always| Export { name, value: Some(value), always };
    let perhaps = |name, value: Option<String>| Export { name, value, always: false };
    let seconds = |value: &Option<Lifetime>| value.map(|seconds| seconds.0.to_string());
    let mebibytes = |value: &Option<MebiSize>| value.map(|size| size.mebibytes().to_string());
    let port = match bind {
        Bind::Tcp(address) => address.port().into(),
        Bind::Unix(_) => s.port.value.0,
    };
    let host = match bind {
        Bind::Tcp(address) => address.ip().to_string(),
        Bind::Unix(_) => s.host.value.show(),
    };
    let socket = match bind {
        Bind::Tcp(_) => None,
        Bind::Unix(path) => Some(path.show()),
    };
    vec![
        always("HTTP_SERVER", server.word().into(), true),
        given("APP_MODULE", app.text.clone()),
        always("HOST", host, true),
        always("PORT", port.to_string(), true),
        // Granian would listen there.
        perhaps("GRANIAN_UDS", socket),
        Export {
            name: "GRANIAN_UDS_PERMISSIONS",
            value: s.uds_permissions.map(|mode| format!("{:o}", mode.0)),
            always: true,
        },
        // Gunicorn reads this during import, and crashes if it is not a number.
        perhaps("WEB_CONCURRENCY", web_concurrency(s, workers)),
        given("MAX_WORKERS", s.max_workers.0.to_string()),
        given("FORCE_START", s.force_start.to_string()),
        perhaps("FORWARDED_ALLOW_IPS", s.forwarded_allow_ips.value.clone()),
        given("DISABLE_ACCESS_LOG", s.disable_access_log.to_string()),
        given("SSL", s.ssl.to_string()),
        given("CERT_FILE", s.cert_file.value.show()),
        given("KEY_FILE", s.key_file.value.show()),
        perhaps("SSL_CA_FILE", s.ssl_ca_file.as_ref().map(Value::show)),
        given("SSL_CLIENT_VERIFY", s.ssl_client_verify.value.show()),
        given("SSL_MIN_VERSION", s.ssl_min_version.value.show()),
        perhaps("SSL_CIPHERS", s.ssl_ciphers.value.clone()),
        always("GUNICORN_WORKERS", gunicorn_workers.to_string(), gunicorn),
        given("GUNICORN_WORKER_CLASS", s.gunicorn_worker_class.value.clone()),
        given("GUNICORN_TIMEOUT", s.gunicorn_timeout.0.to_string()),
        perhaps("GUNICORN_GRACEFUL_TIMEOUT", s.gunicorn_graceful_timeout.map(|seconds| seconds.0.to_string())),
        given("GUNICORN_KEEP_ALIVE", s.gunicorn_keep_alive.0.to_string()),
        given("GUNICORN_BACKLOG", s.gunicorn_backlog.0.to_string()),
        given("GUNICORN_MAX_REQUESTS", s.gunicorn_max_requests.0.to_string()),
        given("GUNICORN_MAX_REQUESTS_JITTER", s.gunicorn_max_requests_jitter.0.to_string()),
        given("GUNICORN_PRELOAD_APP", s.gunicorn_preload_app.value.show()),
        given("GUNICORN_DEV_MODE", s.gunicorn_dev_mode.to_string()),
        given("GUNICORN_LOG_LEVEL", s.gunicorn_log_level.word().into()),
        perhaps("GUNICORN_CONFIG", s.gunicorn_config.as_ref().map(Value::show)),
        perhaps("GUNICORN_BACKPRESSURE", s.gunicorn_backpressure.map(request_limit::exported)),
        perhaps("GUNICORN_WORKERS_MAX_RSS", mebibytes(&s.gunicorn_workers_max_rss.value)),
        perhaps("GUNICORN_WORKERS_LIFETIME", seconds(&s.gunicorn_workers_lifetime.value)),
        always("GRANIAN_WORKERS", granian_workers.to_string(), granian),
        given("GRANIAN_RUNTIME_MODE", s.granian_runtime_mode.word().into()),
        given("GRANIAN_RUNTIME_THREADS", s.granian_runtime_threads.0.to_string()),
        given("GRANIAN_BLOCKING_THREADS", s.granian_blocking_threads.0.to_string()),
        given("GRANIAN_HTTP", s.granian_http.word().into()),
        given("GRANIAN_LOOP", s.granian_loop.word().into()),
        given("GRANIAN_TASK_IMPL", s.granian_task_impl.word().into()),
        given("GRANIAN_BACKLOG", s.granian_backlog.0.to_string()),
        given("GRANIAN_BACKPRESSURE", request_limit::exported(s.granian_backpressure.value)),
        given("GRANIAN_HTTP1_BUFFER_SIZE", s.granian_http1_buffer_size.0.to_string()),
        given("GRANIAN_HTTP1_PIPELINE_FLUSH", s.granian_http1_pipeline_flush.to_string()),
        given("GRANIAN_RESPAWN_FAILED", s.granian_respawn_failed.to_string()),
        perhaps("GRANIAN_WORKERS_MAX_RSS", mebibytes(&s.granian_workers_max_rss.value)),
        perhaps("GRANIAN_WORKERS_LIFETIME", seconds(&s.granian_workers_lifetime.value)),
        given("GRANIAN_DEV_MODE", s.granian_dev_mode.to_string()),
        given("GRANIAN_LOG_LEVEL", s.granian_log_level.word().into()),
    ]
}

/// The resolved count, if one was given under this name.
fn web_concurrency(settings: &Settings, workers: u32) -> Option<String> {
    use crate::settings::value::Workers;
    let given = settings.web_concurrency.value.as_ref().is_some_and(|wanted| *wanted != Workers::Auto);
    given.then(|| workers.to_string())
}

/// What the `activate` script of a virtual environment does.
fn activate(venv: &Path, env: &mut Environment) {
    env.insert("VIRTUAL_ENV".into(), venv.into());
    env.remove(OsStr::new("PYTHONHOME"));
    let bin = venv.join("bin");
    let path = env.get(OsStr::new("PATH")).filter(|path| !path.is_empty());
    if path.is_some_and(|path| std::env::split_paths(path).next().as_deref() == Some(&bin)) {
        return;
    }
    let mut prefixed = OsString::from(bin);
    if let Some(path) = path {
        prefixed.push(":");
        prefixed.push(path);
    }
    env.insert("PATH".into(), prefixed);
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
