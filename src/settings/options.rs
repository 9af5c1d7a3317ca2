//! The table of options: each with its file key, environment names, flag, type, default and help text.
//!
//! The command line, the environment, the file, `explain`, `--help`, the man page, the completions, the example
//! file and config/README.md all come from it. To add an option, add a row.

use std::path::PathBuf;

use super::layers::Layers;
pub use super::opt::{Entry, Heading, JoinList, Opt, Section};
use super::setting::Setting;
use super::value::{
    App, AutoBool, AutoPath, Backpressure, BindHost, ClientVerify, Cpus, FileMode, GranianLogLevel, GunicornLogLevel,
    Http, Int, Lifetime, ListenAddress, LogFormat, LogLevel, Loop, MebiSize, Mode, PathList, PathPrefixes,
    RequestTimeout, Restart, RuntimeMode, Seconds, Secret, ServerChoice, Size, Span, Spin, TaskImpl, TlsVersion,
    UrlPath, UrlPaths, Value, Workers,
};

/// The defaults of a row.
const ROW: Opt = Opt {
    id: "",
    help: "",
    section: Section::Top,
    key: "",
    env: &[],
    flag: None,
    short: None,
    heading: Heading::Launcher,
    default: "",
    default_note: "",
    since: "",
    secret: false,
    lenient: false,
    metavar: "",
    expected: String::new,
    choices: || &[],
    canonical: |_| Err(None),
    list: None,
};

/// The elements separated by commas, if none contains a comma.
fn comma_list(elements: &[String]) -> Option<String> {
    elements.iter().all(|element| !element.contains(',')).then(|| elements.join(","))
}

/// The words of a command, quoted for a shell where necessary.
fn command_line(words: &[String]) -> Option<String> {
    shlex::try_join(words.iter().map(String::as_str)).ok()
}

macro_rules! options {
    ($(
        $(#[doc = $help:literal])+
        $id:ident: $type:ty = $default:literal, $section:ident $key:literal, [$($env:literal),*], $heading:ident
        $(, $attribute:ident: $value:expr)* ;
    )*) => {
        /// Every setting, resolved.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::doc_markdown, reason = "the text is also used by --help, which has no markdown")]
        pub struct Settings {
            $( $(#[doc = $help])+ pub $id: Setting<$type>, )*
        }

        /// The table.
        pub static OPTIONS: &[Opt] = &[
            $( Opt {
                id: stringify!($id),
                // The text of a doc comment begins with the space after its slashes.
                help: concat!($($help),+).trim_ascii_start(),
                section: Section::$section,
                key: $key,
                env: &[$($env),*],
                heading: Heading::$heading,
                default: $default,
                metavar: <$type as Value>::METAVAR,
                expected: <$type as Value>::expected,
                choices: <$type as Value>::choices,
                canonical: |text| <$type as Value>::parse(text).map(|value| value.show()),
                $( $attribute: $value, )*
                ..ROW
            } ),*
        ];

        impl Settings {
            /// Resolves every option. One that cannot be parsed becomes a problem in `layers` and keeps its default.
            pub(super) fn resolve(layers: &mut Layers) -> Self {
                let mut row = OPTIONS.iter();
                // The fields are in the order of the table because both come from the same rows.
                let mut next = || row.next().expect("a row for each field");
                Self { $( $id: layers.setting::<$type>(next()), )* }
            }

            /// Every option with its value as text, in the order of the table; secrets are redacted.
            #[must_use]
            pub fn entries(&self) -> Vec<Entry<'_>> {
                let values = [$( (self.$id.value.show(), &self.$id.origin, self.$id.shadowed.as_slice()) ),*];
                let row = |(opt, (value, origin, shadowed))| Entry { opt, value, origin, shadowed };
                OPTIONS.iter().zip(values).map(row).collect()
            }
        }
    };
}

options! {
    /// The server to run; auto picks Gunicorn if it is installed, else Granian.
    http_server: ServerChoice = "gunicorn", Top "http_server", ["HTTP_SERVER"], Launcher, flag: Some("server");
    /// The ASGI or WSGI application; the APP argument takes precedence.
    app_module: App = "mcpgateway.main:app", Top "app_module", ["APP_MODULE"], Launcher, flag: Some("app-module");
    /// The working directory; relative paths are resolved against it.
    app_root: Option<PathBuf> = "", Top "app_root", ["APP_ROOT"], Launcher, flag: Some("app-root");
    /// The virtual environment to use.
    virtual_env: Option<PathBuf> = "", Top "virtual_env", ["VIRTUAL_ENV"], Launcher, flag: Some("virtual-env"),
        default_note: "./.venv, $APP_ROOT/.venv, ~/.venv/mcpgateway, else PATH";
    /// The Python interpreter to use.
    python: Option<PathBuf> = "", Top "python", ["PYTHON"], Launcher, flag: Some("python"), default_note: "found";
    /// Supervise the server, or replace mcp-launch with it (exec).
    mode: Mode = "supervise", Launcher "mode", ["MCP_LAUNCH_MODE"], Launcher, flag: Some("mode");
    /// Number of workers for either server, unless its own setting is set.
    web_concurrency: Option<Workers> = "", Top "web_concurrency", ["WEB_CONCURRENCY"], Launcher,
        flag: Some("web-concurrency");
    /// Upper limit for a computed number of workers.
    max_workers: Int<1, 4096> = "16", Launcher "max_workers", ["MCP_LAUNCH_MAX_WORKERS", "MAX_WORKERS"], Launcher,
        flag: Some("max-workers");
    /// Number of cores to assume instead of the detected one: 2, 1.5 or 500m.
    cpus: Option<Cpus> = "", Launcher "cpus", ["MCP_LAUNCH_CPUS"], Launcher, flag: Some("cpus"),
        default_note: "detected";
    /// Memory that one worker needs: computed counts stay within 80 % of the memory limit; 0 disables this.
    worker_memory: Size<0> = "256M", Launcher "worker_memory", ["MCP_LAUNCH_WORKER_MEMORY"], Launcher,
        flag: Some("worker-memory");
    /// Files with KEY=VALUE lines, as docker --env-file reads them; they count as if set in the environment, but below it.
    env_file: PathList = "none", Launcher "env_file", ["MCP_LAUNCH_ENV_FILE"], Launcher, flag: Some("env-file"),
        list: Some(comma_list);
    /// Start even if another instance holds the lock.
    force_start: bool = "false", Top "force_start", ["FORCE_START"], Launcher, flag: Some("force-start");
    /// The lock file that prevents a second instance.
    lock: AutoPath = "auto", Launcher "lock", ["MCP_LAUNCH_LOCK"], Launcher, flag: Some("lock"),
        default_note: "mcp-launch-ADDRESS-PORT.lock next to the socket";
    /// A command to run before the first start, such as migrations; /bin/sh runs it if it has shell syntax.
    pre_start: Option<String> = "", Launcher "pre_start", ["MCP_LAUNCH_PRE_START"], Launcher, flag: Some("pre-start"),
        list: Some(command_line);
    /// Time limit for one run of a command before the first start.
    pre_start_timeout: Span<1, 86_400_000> = "5m", Launcher "pre_start_timeout", ["MCP_LAUNCH_PRE_START_TIMEOUT"],
        Launcher, flag: Some("pre-start-timeout");
    /// How often a failed command is retried, with the same backoff as a respawn.
    pre_start_retries: Int<0, 1000> = "0", Launcher "pre_start_retries", ["MCP_LAUNCH_PRE_START_RETRIES"], Launcher,
        flag: Some("pre-start-retries");
    /// Install the plugins' requirements with pip before the first start.
    reload_plugin_requirements_txt: bool = "false", Top "reload_plugin_requirements_txt",
        ["RELOAD_PLUGIN_REQUIREMENTS_TXT"], Launcher, flag: Some("reload-plugin-requirements-txt");
    /// The plugins' requirements file; it must be inside the working directory.
    plugin_requirements_txt_path: PathBuf = "plugins/requirements.txt", Top "plugin_requirements_txt_path",
        ["PLUGIN_REQUIREMENTS_TXT_PATH"], Launcher, flag: Some("plugin-requirements-txt-path");
    /// The delay before pip is retried; it gets 3 attempts.
    plugin_requirements_retry_delay_seconds: Span<0, 3_600_000> = "2s", Top "plugin_requirements_retry_delay_seconds",
        ["PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS"], Launcher, flag: Some("plugin-requirements-retry-delay-seconds"),
        lenient: true;

    /// The address to listen on.
    host: BindHost = "0.0.0.0", Top "host", ["HOST"], Bind, flag: Some("host");
    /// The port to listen on; 0 picks a free one.
    port: Int<0, 65535> = "4444", Top "port", ["PORT"], Bind, flag: Some("port");
    /// A Unix socket to listen on, instead of address and port.
    uds: Option<PathBuf> = "", Launcher "uds", ["MCP_LAUNCH_UDS", "GRANIAN_UDS"], Bind, flag: Some("uds");
    /// The permissions of the Unix socket, in octal.
    uds_permissions: Option<FileMode> = "", Launcher "uds_permissions",
        ["MCP_LAUNCH_UDS_PERMISSIONS", "GRANIAN_UDS_PERMISSIONS"], Bind, flag: Some("uds-permissions"),
        default_note: "as the server sets them";
    /// Proxies whose forwarding headers Gunicorn trusts.
    forwarded_allow_ips: Option<String> = "", Top "forwarded_allow_ips", ["FORWARDED_ALLOW_IPS"], Bind,
        flag: Some("forwarded-allow-ips"), default_note: "the server's own", list: Some(comma_list);

    /// Serve TLS.
    ssl: bool = "false", Tls "ssl", ["SSL"], Tls, flag: Some("ssl");
    /// The certificate chain, in PEM.
    cert_file: PathBuf = "certs/cert.pem", Tls "cert_file", ["CERT_FILE"], Tls, flag: Some("cert-file");
    /// The private key, in PEM.
    key_file: PathBuf = "certs/key.pem", Tls "key_file", ["KEY_FILE"], Tls, flag: Some("key-file");
    /// The passphrase of an encrypted key. It has no flag because the process list would show it.
    key_file_password: Option<Secret> = "", Tls "key_file_password", ["KEY_FILE_PASSWORD", "CERT_PASSPHRASE"], Tls,
        secret: true;
    /// A file that contains the passphrase.
    key_file_password_file: Option<PathBuf> = "", Tls "key_file_password_file",
        ["KEY_FILE_PASSWORD_FILE", "CERT_PASSPHRASE_FILE"], Tls, flag: Some("key-file-password-file");
    /// The CA certificates that client certificates are verified against, in PEM.
    ssl_ca_file: Option<PathBuf> = "", Tls "ssl_ca_file", ["SSL_CA_FILE", "CA_CERTS"], Tls, flag: Some("ssl-ca-file");
    /// Whether clients must present a certificate.
    ssl_client_verify: ClientVerify = "none", Tls "ssl_client_verify", ["SSL_CLIENT_VERIFY", "CERT_REQS"], Tls,
        flag: Some("ssl-client-verify");
    /// The oldest TLS version that is accepted.
    ssl_min_version: TlsVersion = "1.2", Tls "ssl_min_version", ["SSL_MIN_VERSION", "SSL_VERSION"], Tls,
        flag: Some("ssl-min-version");
    /// TLS 1.2 ciphers in OpenSSL's notation; Gunicorn only.
    ssl_ciphers: Option<String> = "", Tls "ssl_ciphers", ["SSL_CIPHERS"], Tls, flag: Some("ssl-ciphers");
    /// Reload when a certificate file has changed and the new files match, or when an env file has changed.
    watch_certs: bool = "false", Launcher "watch_certs", ["MCP_LAUNCH_WATCH_CERTS"], Tls, flag: Some("watch-certs");

    /// Number of Gunicorn workers.
    gunicorn_workers: Workers = "auto", Gunicorn "workers", ["GUNICORN_WORKERS"], Gunicorn, flag: Some("workers"),
        short: Some('w');
    /// The worker class; auto picks the best one that is installed.
    gunicorn_worker_class: String = "auto", Gunicorn "worker_class", ["GUNICORN_WORKER_CLASS"], Gunicorn,
        flag: Some("worker-class"), short: Some('k');
    /// Gunicorn kills a worker that is silent for this long; 0 disables this.
    gunicorn_timeout: Seconds<0, 604_800> = "600", Gunicorn "timeout", ["GUNICORN_TIMEOUT"], Gunicorn,
        flag: Some("timeout");
    /// How long a worker may take to finish its requests when it is stopped.
    gunicorn_graceful_timeout: Option<Seconds<1, 86_400>> = "", Gunicorn "graceful_timeout",
        ["GUNICORN_GRACEFUL_TIMEOUT"], Gunicorn, flag: Some("graceful-timeout"),
        default_note: "from the stop budget";
    /// How long an idle keep-alive connection stays open.
    gunicorn_keep_alive: Seconds<0, 86_400> = "2", Gunicorn "keep_alive", ["GUNICORN_KEEP_ALIVE"], Gunicorn,
        flag: Some("keep-alive");
    /// Connections that may wait to be accepted.
    gunicorn_backlog: Int<1, 65_535> = "2048", Gunicorn "backlog", ["GUNICORN_BACKLOG"], Gunicorn,
        flag: Some("backlog");
    /// Replace a worker after this many requests; 0 means never.
    gunicorn_max_requests: Int<0, 4_294_967_295> = "100000", Gunicorn "max_requests", ["GUNICORN_MAX_REQUESTS"],
        Gunicorn, flag: Some("max-requests");
    /// Random number of requests, at most this, added to max_requests so that workers are not all replaced at once.
    gunicorn_max_requests_jitter: Int<0, 4_294_967_295> = "100", Gunicorn "max_requests_jitter",
        ["GUNICORN_MAX_REQUESTS_JITTER"], Gunicorn, flag: Some("max-requests-jitter");
    /// Import the app once, before the workers are forked; auto does so for the gateway.
    gunicorn_preload_app: AutoBool = "auto", Gunicorn "preload_app", ["GUNICORN_PRELOAD_APP"], Gunicorn,
        flag: Some("preload-app");
    /// Reload when the code changes; no preloading, at most 2 workers.
    gunicorn_dev_mode: bool = "false", Gunicorn "dev_mode", ["GUNICORN_DEV_MODE"], Gunicorn, flag: Some("dev-mode");
    /// Gunicorn's log level.
    gunicorn_log_level: GunicornLogLevel = "info", Gunicorn "log_level", ["GUNICORN_LOG_LEVEL"], Gunicorn,
        flag: Some("gunicorn-log-level");
    /// Gunicorn's own configuration file, in Python.
    gunicorn_config: Option<PathBuf> = "", Gunicorn "config", ["GUNICORN_CONFIG"], Gunicorn,
        flag: Some("gunicorn-config"),
        default_note: "$APP_ROOT/gunicorn.config.py, ./gunicorn.config.py, ./gunicorn.conf.py, else built in for the gateway";
    /// Concurrent requests per worker; further ones are answered 503. auto finds the limit from latency and event loop
    /// lag, between 4 and 1024.
    gunicorn_backpressure: Option<Backpressure> = "", Gunicorn "backpressure", ["GUNICORN_BACKPRESSURE"],
        Gunicorn, flag: Some("backpressure");
    /// Threads per worker of class gthread; by default two more than backpressure (at most 66), or 4 without it.
    gunicorn_threads: Option<Int<1, 1024>> = "", Gunicorn "threads", ["GUNICORN_THREADS"], Gunicorn,
        flag: Some("threads");
    /// Replace a worker whose memory exceeds this; a plain number is MiB.
    gunicorn_workers_max_rss: Option<MebiSize> = "", Gunicorn "workers_max_rss", ["GUNICORN_WORKERS_MAX_RSS"],
        Gunicorn, flag: Some("workers-max-rss");
    /// Replace a worker that is older than this.
    gunicorn_workers_lifetime: Option<Lifetime> = "", Gunicorn "workers_lifetime",
        ["GUNICORN_WORKERS_LIFETIME"], Gunicorn, flag: Some("workers-lifetime");

    /// Replace a Granian worker after this many requests; 0 means never.
    granian_max_requests: Int<0, 4_294_967_295> = "0", Granian "max_requests", ["GRANIAN_MAX_REQUESTS"],
        Granian, flag: Some("max-requests");
    /// Random number of requests, at most this, added to max_requests so that workers are not all replaced at once.
    granian_max_requests_jitter: Int<0, 4_294_967_295> = "0", Granian "max_requests_jitter",
        ["GRANIAN_MAX_REQUESTS_JITTER"], Granian, flag: Some("max-requests-jitter");
    /// Number of Granian workers.
    granian_workers: Workers = "auto", Granian "workers", ["GRANIAN_WORKERS"], Granian, flag: Some("workers"),
        short: Some('w');
    /// The threading model; auto is mt with more than 8 workers, else st.
    granian_runtime_mode: RuntimeMode = "auto", Granian "runtime_mode", ["GRANIAN_RUNTIME_MODE"], Granian,
        flag: Some("runtime-mode");
    /// Runtime threads per worker.
    granian_runtime_threads: Int<1, 1024> = "1", Granian "runtime_threads", ["GRANIAN_RUNTIME_THREADS"], Granian,
        flag: Some("runtime-threads");
    /// Blocking threads per worker. An ASGI application needs 1; for WSGI the default is two more than backpressure (at
    /// most 66).
    granian_blocking_threads: Int<1, 1024> = "1", Granian "blocking_threads", ["GRANIAN_BLOCKING_THREADS"], Granian,
        flag: Some("blocking-threads");
    /// HTTP versions to offer. If this is set, Gunicorn's worker class asgi offers HTTP/2 over TLS.
    granian_http: Http = "auto", Granian "http", ["GRANIAN_HTTP"], Granian, flag: Some("http");
    /// The event loop; falls back to asyncio if it is not installed, unless it was set explicitly.
    granian_loop: Loop = "uvloop", Granian "loop", ["GRANIAN_LOOP"], Granian, flag: Some("loop");
    /// The task implementation; rust breaks FastAPI and does not work on Python 3.12 and later.
    granian_task_impl: TaskImpl = "asyncio", Granian "task_impl", ["GRANIAN_TASK_IMPL"], Granian,
        flag: Some("task-impl"), since: "1.7.1";
    /// Connections that may wait to be accepted.
    granian_backlog: Int<128, 65_535> = "2048", Granian "backlog", ["GRANIAN_BACKLOG"], Granian,
        flag: Some("backlog");
    /// Concurrent requests per worker; further ones are answered 503. auto finds the limit from latency and event loop
    /// lag, between 4 and 1024.
    granian_backpressure: Backpressure = "512", Granian "backpressure", ["GRANIAN_BACKPRESSURE"], Granian,
        flag: Some("backpressure");
    /// Buffer size of an HTTP/1 connection.
    granian_http1_buffer_size: Size<8192> = "524288", Granian "http1_buffer_size", ["GRANIAN_HTTP1_BUFFER_SIZE"],
        Granian, flag: Some("http1-buffer-size");
    /// Aggregate the responses to pipelined requests.
    granian_http1_pipeline_flush: bool = "true", Granian "http1_pipeline_flush", ["GRANIAN_HTTP1_PIPELINE_FLUSH"],
        Granian, flag: Some("http1-pipeline-flush");
    /// Replace a worker that has died.
    granian_respawn_failed: bool = "true", Granian "respawn_failed", ["GRANIAN_RESPAWN_FAILED"], Granian,
        flag: Some("respawn-failed");
    /// Replace a worker whose memory exceeds this; a plain number is MiB.
    granian_workers_max_rss: Option<MebiSize> = "", Granian "workers_max_rss", ["GRANIAN_WORKERS_MAX_RSS"], Granian,
        flag: Some("workers-max-rss");
    /// Replace a worker that is older than this.
    granian_workers_lifetime: Option<Lifetime> = "", Granian "workers_lifetime",
        ["GRANIAN_WORKERS_LIFETIME"], Granian, flag: Some("workers-lifetime");
    /// Reload when the code changes; at most 2 workers; needs granian[reload].
    granian_dev_mode: bool = "false", Granian "dev_mode", ["GRANIAN_DEV_MODE"], Granian, flag: Some("dev-mode");
    /// Granian's log level.
    granian_log_level: GranianLogLevel = "info", Granian "log_level", ["GRANIAN_LOG_LEVEL"], Granian,
        flag: Some("granian-log-level");

    /// When to restart a server that has ended.
    restart: Restart = "on-failure", Launcher "restart", ["MCP_LAUNCH_RESTART"], Supervision, flag: Some("restart");
    /// Give up after more failures than this within the window, or in a row without getting ready.
    restart_limit: Int<0, 1_000_000> = "5", Launcher "restart_limit", ["MCP_LAUNCH_RESTART_LIMIT"], Supervision,
        flag: Some("restart-limit");
    /// The period over which failures are counted.
    restart_window: Span<1000, 2_592_000_000> = "10m", Launcher "restart_window", ["MCP_LAUNCH_RESTART_WINDOW"],
        Supervision, flag: Some("restart-window");
    /// The delay before the second respawn in a row; the first is immediate.
    backoff_initial: Span<1, 3_600_000> = "0.5s", Launcher "backoff_initial", ["MCP_LAUNCH_BACKOFF_INITIAL"],
        Supervision, flag: Some("backoff-initial");
    /// The longest delay before a respawn.
    backoff_max: Span<1, 86_400_000> = "30s", Launcher "backoff_max", ["MCP_LAUNCH_BACKOFF_MAX"], Supervision,
        flag: Some("backoff-max");
    /// Keep serving for this long after SIGTERM, while readiness already fails.
    stop_delay: Span<0, 86_400_000> = "0", Launcher "stop_delay", ["MCP_LAUNCH_STOP_DELAY"], Supervision,
        flag: Some("stop-delay");
    /// Time limit from the stop signal until everything has ended, including the delay.
    stop_timeout: Span<100, 86_400_000> = "25s", Launcher "stop_timeout", ["MCP_LAUNCH_STOP_TIMEOUT"], Supervision,
        flag: Some("stop-timeout");
    /// A server that is not ready within this time has failed.
    startup_timeout: Span<100, 86_400_000> = "120s", Launcher "startup_timeout", ["MCP_LAUNCH_STARTUP_TIMEOUT"],
        Supervision, flag: Some("startup-timeout");
    /// Replace a worker whose event loop is silent for this long; 0 disables this.
    worker_timeout: Span<0, 604_800_000> = "30s", Launcher "worker_timeout", ["MCP_LAUNCH_WORKER_TIMEOUT"],
        Supervision, flag: Some("worker-timeout");
    /// How long a request may take, to the end of its response; then its stack is logged, and an ASGI app's request is
    /// cancelled. PREFIX=DURATION pairs set it for paths.
    request_timeout: RequestTimeout = "0", Launcher "request_timeout", ["MCP_LAUNCH_REQUEST_TIMEOUT"], Supervision,
        flag: Some("request-timeout"), list: Some(comma_list);
    /// What happens to a worker that uses a processor although it has nothing to do: it is reported with its stacks, and
    /// with replace also replaced.
    spin: Spin = "report", Launcher "spin", ["MCP_LAUNCH_SPIN"], Supervision, flag: Some("spin");
    /// After this time.
    spin_after: Span<1000, 86_400_000> = "60s", Launcher "spin_after", ["MCP_LAUNCH_SPIN_AFTER"], Supervision,
        flag: Some("spin-after");
    /// The guard inside each worker, which refuses excess requests and reveals hung workers.
    guard: bool = "on", Launcher "guard", ["MCP_LAUNCH_GUARD"], Supervision, flag: Some("guard");
    /// Distribute clients evenly, and only to workers that can take them; off leaves it to the kernel and the server.
    balance: bool = "on", Launcher "balance", ["MCP_LAUNCH_BALANCE"], Supervision, flag: Some("balance");
    /// Follow a CPU or memory limit that changes while running: a computed number of workers is computed again.
    follow_limits: bool = "true", Launcher "follow_limits", ["MCP_LAUNCH_FOLLOW_LIMITS"], Supervision,
        flag: Some("follow-limits");
    /// The path to probe when the guard does not know whether the application works.
    health_path: UrlPath = "/health", Launcher "health_path", ["MCP_LAUNCH_HEALTH_PATH"], Supervision,
        flag: Some("health-path");
    /// Paths to which the app must respond with a status below 500 in each new worker before the worker takes clients.
    warm_up: UrlPaths = "none", Launcher "warm_up", ["MCP_LAUNCH_WARM_UP"], Supervision, flag: Some("warm-up"),
        list: Some(comma_list);
    /// Open event streams and WebSockets per worker.
    max_streams: Option<Int<1, 1_000_000>> = "", Launcher "max_streams", ["MCP_LAUNCH_MAX_STREAMS"], Supervision,
        flag: Some("max-streams");
    /// Path prefixes that the guard never refuses.
    guard_exempt: PathPrefixes = "none", Launcher "guard_exempt", ["MCP_LAUNCH_GUARD_EXEMPT"], Supervision,
        flag: Some("guard-exempt"), default_note: "none; for the gateway /ready,/metrics", list: Some(comma_list);
    /// The control socket.
    socket: AutoPath = "auto", Launcher "socket", ["MCP_LAUNCH_SOCKET"], Supervision, flag: Some("socket"),
        default_note: "mcp-launch-ADDRESS-PORT.sock in $XDG_RUNTIME_DIR, /run or /tmp";
    /// The address on which to serve Prometheus metrics, and a status page for browsers.
    metrics: Option<ListenAddress> = "", Launcher "metrics", ["MCP_LAUNCH_METRICS"], Supervision,
        flag: Some("metrics");
    /// A file for the cause of the exit, in one line.
    termination_log: AutoPath = "auto", Launcher "termination_log", ["MCP_LAUNCH_TERMINATION_LOG"], Supervision,
        flag: Some("termination-log"), default_note: "/dev/termination-log if it exists";

    /// Disable the access log.
    disable_access_log: bool = "true", Top "disable_access_log", ["DISABLE_ACCESS_LOG"], Logging,
        flag: Some("disable-access-log");
    /// Log level of mcp-launch.
    log_level: LogLevel = "info", Launcher "log_level", ["MCP_LAUNCH_LOG_LEVEL"], Logging, flag: Some("log-level");
    /// Log format of mcp-launch.
    log_format: LogFormat = "text", Launcher "log_format", ["MCP_LAUNCH_LOG_FORMAT"], Logging,
        flag: Some("log-format");
}
