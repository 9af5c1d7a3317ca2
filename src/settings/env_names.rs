//! Environment variables that have a meaning although they are not our settings.

use super::value::Server;

/// Granian's own variables: `GRANIAN_` and the name of the option, from releases 1.6 to 2.8, including those that
/// have been removed since because an image may still set them. Four differ from their flag: `--ws` is `WEBSOCKETS`,
/// `--log` is `LOG_ENABLED`, `--access-log` is `LOG_ACCESS_ENABLED` and `--metrics` is `METRICS_ENABLED`.
const GRANIAN: &[&str] = &[
    "BACKLOG",
    "BACKPRESSURE",
    "BLOCKING_THREADS",
    "BLOCKING_THREADS_IDLE_TIMEOUT",
    "ENV_FILES",
    "FACTORY",
    "HOST",
    "HTTP",
    "HTTP1_BUFFER_SIZE",
    "HTTP1_HEADER_READ_TIMEOUT",
    "HTTP1_KEEP_ALIVE",
    "HTTP1_PIPELINE_FLUSH",
    "HTTP2_ADAPTIVE_WINDOW",
    "HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
    "HTTP2_INITIAL_STREAM_WINDOW_SIZE",
    "HTTP2_KEEP_ALIVE_INTERVAL",
    "HTTP2_KEEP_ALIVE_TIMEOUT",
    "HTTP2_MAX_CONCURRENT_STREAMS",
    "HTTP2_MAX_FRAME_SIZE",
    "HTTP2_MAX_HEADERS_SIZE",
    "HTTP2_MAX_SEND_BUFFER_SIZE",
    "INTERFACE",
    "LOG_ACCESS_ENABLED",
    "LOG_ACCESS_FMT",
    "LOG_CONFIG",
    "LOG_ENABLED",
    "LOG_LEVEL",
    "LOOP",
    "LOOP_OPT",
    "METRICS_ADDRESS",
    "METRICS_ENABLED",
    "METRICS_PORT",
    "METRICS_SCRAPE_INTERVAL",
    "PID_FILE",
    "PORT",
    "PROCESS_NAME",
    "RELOAD",
    "RELOAD_IGNORE_DIRS",
    "RELOAD_IGNORE_PATHS",
    "RELOAD_IGNORE_PATTERNS",
    "RELOAD_IGNORE_WORKER_FAILURE",
    "RELOAD_PATHS",
    "RELOAD_TICK",
    "RESPAWN_FAILED_WORKERS",
    "RESPAWN_INTERVAL",
    "RSS_SAMPLES",
    "RSS_SAMPLE_INTERVAL",
    "RUNTIME_BLOCKING_THREADS",
    "RUNTIME_MODE",
    "RUNTIME_THREADS",
    "SSL_CA",
    "SSL_CERTIFICATE",
    "SSL_CLIENT_VERIFY",
    "SSL_CRL",
    "SSL_KEYFILE",
    "SSL_KEYFILE_PASSWORD",
    "SSL_PROTOCOL_MIN",
    "STATIC_PATH_DIR_TO_FILE",
    "STATIC_PATH_EXPIRES",
    "STATIC_PATH_MOUNT",
    "STATIC_PATH_ROUTE",
    "TASK_IMPL",
    "THREADING_MODE",
    "THREADS",
    "UDS",
    "UDS_PERMISSIONS",
    "URL_PATH_PREFIX",
    "WEBSOCKETS",
    "WORKERS",
    "WORKERS_KILL_TIMEOUT",
    "WORKERS_LIFETIME",
    "WORKERS_MAX_RSS",
    "WORKING_DIR",
];

/// Gunicorn's own variables. All but the first are passed between its processes; the plan removes stray ones.
const GUNICORN: &[&str] = &["CMD_ARGS", "DIRTY_SOCKET", "FD", "PID"];

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "MCP_LAUNCH_CONFIG";

/// Granian's parser takes this for its `--version` flag: a release number, which an image may set, ends the server
/// with a usage error, and 1 makes it print its version and exit.
pub(super) const GRANIAN_VERSION: &str = "GRANIAN_VERSION";

/// Prefixes of our names and the servers' names. An unknown name with one of them is worth a warning.
const PREFIXES: [&str; 3] = ["MCP_LAUNCH_", "GUNICORN_", "GRANIAN_"];

/// Splits a name into its prefix and the rest, if it has one of these prefixes.
pub(super) fn split_prefix(name: &str) -> Option<(&'static str, &str)> {
    PREFIXES.into_iter().find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?)))
}

/// The server that reads this variable itself.
pub(super) fn reader(name: &str) -> Option<Server> {
    match split_prefix(name)? {
        ("GRANIAN_", rest) if GRANIAN.contains(&rest) => Some(Server::Granian),
        ("GUNICORN_", rest) if GUNICORN.contains(&rest) => Some(Server::Gunicorn),
        _ => None,
    }
}

/// The names that the servers read themselves.
pub(super) fn native_names() -> impl Iterator<Item = String> {
    let granian = GRANIAN.iter().map(|name| format!("GRANIAN_{name}"));
    granian.chain(GUNICORN.iter().map(|name| format!("GUNICORN_{name}")))
}

/// Whether this is a variable that Kubernetes sets for a service (`enableServiceLinks`), or Docker for a link:
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_WEB`, `NAME_PORT=tcp://10.0.0.1:80`,
/// `NAME_PORT_80_TCP`, and the latter with `_PROTO`, `_PORT` or `_ADDR`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let after =
        |marker: &str| name.find(marker).filter(|start| *start > 0).map(|start| &name[start + marker.len()..]);
    if after("_SERVICE_HOST") == Some("") {
        return true;
    }
    if after("_SERVICE_PORT").is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
        return true;
    }
    if name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)) {
        return true;
    }
    name.match_indices("_PORT_").any(|(start, marker)| {
        let mut parts = name[start + marker.len()..].split('_');
        start > 0
            && parts.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_distinguished_from_settings() {
        for (name, value) in [
            ("GRANIAN_SERVICE_HOST", "10.0.0.1"),
            ("GRANIAN_SERVICE_PORT", "80"),
            ("GRANIAN_SERVICE_PORT_HTTP_ALT", "80"),
            ("GRANIAN_PORT", "tcp://10.0.0.1:80"),
            ("GRANIAN_METRICS_PORT", "udp://[fd00::1]:80"),
            ("GRANIAN_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("MCP_LAUNCH_PORT_8080_UDP_PROTO", "udp"),
            ("GUNICORN_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("GUNICORN_PORT_80_TCP_PORT", "80"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("PORT", "tcp://10.0.0.1:80"),
            ("GRANIAN_PORT", "8000"),
            ("GRANIAN_METRICS_PORT", "9090"),
            ("MCP_LAUNCH_METRICS", "tcp://10.0.0.1:80"),
            ("GRANIAN_PORT_WEB_TCP", "x"),
            ("_PORT_80_TCP", "x"),
            ("_SERVICE_HOST", "x"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn native_names_are_known_with_their_server() {
        assert_eq!(reader("GRANIAN_LOG_ACCESS_ENABLED"), Some(Server::Granian));
        assert_eq!(reader("GRANIAN_THREADS"), Some(Server::Granian));
        assert_eq!(reader("GUNICORN_CMD_ARGS"), Some(Server::Gunicorn));
        assert_eq!(reader("GRANIAN_ACCESS_LOG"), None);
        assert_eq!(reader("GRANIAN_VERSION"), None);
    }
}
