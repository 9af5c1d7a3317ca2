use std::ffi::OsStr;

use crate::host::{Host, Version};
use crate::plan::RequestLimit;
use crate::plan::plan;
use crate::plan::tests::{argv, certificates, flags, installed_host, planned, problems, resolution};

const GRANIAN: (&str, &str) = ("HTTP_SERVER", "granian");

fn flags_of(env: &[(&str, &str)], host: &Host) -> Vec<String> {
    let env: Vec<_> = [GRANIAN].iter().chain(env).copied().collect();
    flags(&planned(&env, host))
}

fn problems_of(env: &[(&str, &str)], host: &Host) -> String {
    let env: Vec<_> = [GRANIAN].iter().chain(env).copied().collect();
    problems(&env, host).join("; ")
}

fn version(major: u32, minor: u32, patch: u32) -> Host {
    let mut host = installed_host();
    host.python.packages.insert("granian".into(), Version(major, minor, patch));
    host
}

/// Without the guard, the arguments of the old script, except for the task implementation and the limit on how long a
/// worker may take.
#[test]
fn the_gateway_gets_what_the_old_script_passed() {
    let wanted = [
        "--backlog 2048",
        "--backpressure 512",
        "--blocking-threads 1",
        "--host 0.0.0.0",
        "--http auto",
        "--http1-buffer-size 524288",
        "--http1-pipeline-flush",
        "--interface asgi",
        "--log-level info",
        "--loop uvloop",
        "--no-access-log",
        "--port 4444",
        "--process-name mcpgateway",
        "--respawn-failed-workers",
        "--runtime-mode st",
        "--runtime-threads 1",
        "--task-impl asyncio",
        "--workers 3",
        "--workers-kill-timeout 23",
        "--ws",
        "mcpgateway.main:app",
    ];
    assert_eq!(flags_of(&[("GRANIAN_WORKERS", "3"), ("MCP_LAUNCH_GUARD", "off")], &installed_host()), wanted);
}

#[test]
fn what_is_asked_for_is_passed() {
    let env = [
        ("GRANIAN_WORKERS", "9"),
        ("GRANIAN_WORKERS_LIFETIME", "2h"),
        ("GRANIAN_WORKERS_MAX_RSS", "1G"),
        ("GRANIAN_HTTP1_BUFFER_SIZE", "512K"),
        ("GRANIAN_HTTP1_PIPELINE_FLUSH", "off"),
        ("GRANIAN_RESPAWN_FAILED", "false"),
        ("GRANIAN_DEV_MODE", "false"),
        ("DISABLE_ACCESS_LOG", "false"),
        ("SSL", "true"),
        ("SSL_CA_FILE", "ca.pem"),
        ("SSL_CLIENT_VERIFY", "required"),
        ("SSL_MIN_VERSION", "1.3"),
        ("HOST", "[::]"),
    ];
    let flags = flags_of(&env, &installed_host());
    for flag in [
        "--runtime-mode mt",
        "--workers-lifetime 7200",
        "--workers-max-rss 1024",
        "--http1-buffer-size 524288",
        "--access-log",
        "--ssl-certificate /dev/shm/mcp-launch-GENERATION/pair.pem",
        "--ssl-keyfile /dev/shm/mcp-launch-GENERATION/pair.pem",
        "--ssl-protocol-min tls1.3",
        "--ssl-ca /dev/shm/mcp-launch-GENERATION/ca.pem",
        "--ssl-client-verify",
        "--host ::",
    ] {
        assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
    }
    for gone in ["--http1-pipeline-flush", "--respawn-failed-workers", "--no-access-log", "--reload"] {
        assert!(flags.iter().all(|found| !found.starts_with(gone)), "{gone} in {flags:?}");
    }
}

#[test]
fn granians_own_variables_beat_our_defaults() {
    let env = [
        ("GRANIAN_INTERFACE", "rsgi"),
        ("GRANIAN_WEBSOCKETS", "false"),
        ("GRANIAN_PROCESS_NAME", "mine"),
        ("GRANIAN_LOG_ACCESS_ENABLED", "true"),
        ("GRANIAN_RESPAWN_FAILED_WORKERS", "false"),
        ("GRANIAN_WORKERS_KILL_TIMEOUT", "5"),
        ("GRANIAN_PORT", "9000"),
    ];
    let flags = flags_of(&env, &installed_host());
    let ours = [
        "--interface",
        "--ws",
        "--process-name",
        "--no-access-log",
        "--respawn-failed-workers",
        "--workers-kill-timeout",
    ];
    for flag in ours {
        assert!(flags.iter().all(|found| found.split(' ').next() != Some(flag)), "{flag} in {flags:?}");
    }
    assert!(flags.contains(&"--port 9000".to_owned()));
    let explicit = flags_of(&[env[3], ("DISABLE_ACCESS_LOG", "true")], &installed_host());
    assert!(explicit.iter().any(|flag| flag.starts_with("--no-access-log")), "{explicit:?}");
}

#[test]
fn server_arguments_come_last_and_replace_our_defaults() {
    let mut resolution = resolution(&[GRANIAN]);
    resolution.server_args = ["--no-ws", "--static-path-mount", "/srv"].map(Into::into).into();
    let words = argv(&plan(&resolution, &installed_host(), &crate::tls::Findings::default()).unwrap());
    assert!(!words.contains(&"--ws".to_owned()), "{words:?}");
    assert_eq!(words[words.len() - 4..], ["/mcp_launch_guard:app", "--no-ws", "--static-path-mount", "/srv"]);
}

#[test]
fn a_missing_event_loop_falls_back_unless_it_was_asked_for() {
    let mut host = installed_host();
    host.python.packages.remove("uvloop");
    let plan = planned(&[GRANIAN], &host);
    assert!(flags(&plan).contains(&"--loop asyncio".to_owned()));
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("pip install 'granian[uvloop]'")),
        "{:?}",
        plan.warnings
    );
    let problem = problems_of(&[("GRANIAN_LOOP", "uvloop")], &host);
    assert!(problem.contains("/venv/bin/python -m pip install 'granian[uvloop]'"), "{problem}");
    assert!(problems_of(&[("GRANIAN_LOOP", "rloop")], &installed_host()).contains("granian[rloop]"));
    assert!(flags_of(&[("GRANIAN_LOOP", "AUTO")], &host).contains(&"--loop auto".to_owned()));
}

#[test]
fn the_rust_tasks_are_warned_about_and_not_for_newer_pythons() {
    let rust = [GRANIAN, ("GRANIAN_TASK_IMPL", "rust")];
    let plan = planned(&rust, &installed_host());
    assert!(flags(&plan).contains(&"--task-impl rust".to_owned()));
    assert!(plan.warnings.iter().any(|warning| warning.contains("FastAPI")), "{:?}", plan.warnings);
    let mut newer = installed_host();
    newer.python.interpreter.as_mut().unwrap().version = Some((3, 12));
    let plan = planned(&rust, &newer);
    assert!(flags(&plan).contains(&"--task-impl asyncio".to_owned()));
    assert!(plan.warnings.iter().any(|warning| warning.contains("3.12")), "{:?}", plan.warnings);
}

#[test]
fn development_needs_the_reloader() {
    let dev = [("GRANIAN_DEV_MODE", "true"), ("GRANIAN_WORKERS", "4")];
    let flags = flags_of(&dev, &installed_host());
    assert!(flags.iter().any(|flag| flag.starts_with("--reload")) && flags.contains(&"--workers 2".to_owned()));
    let mut host = installed_host();
    host.python.packages.remove("watchfiles");
    assert!(problems_of(&dev, &host).contains("pip install 'granian[reload]'"));
}

#[test]
fn older_versions_get_the_older_names() {
    let flags = flags_of(&[], &version(1, 6, 4));
    for flag in ["--threading-mode workers", "--threads 1", "--no-opt"] {
        assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
    }
    for gone in ["--runtime-mode", "--runtime-threads", "--task-impl", "--workers-kill-timeout"] {
        assert!(flags.iter().all(|found| !found.starts_with(gone)), "{gone} in {flags:?}");
    }
    let flags = flags_of(&[("GRANIAN_RUNTIME_MODE", "mt"), ("GRANIAN_THREADS", "3")], &version(1, 7, 6));
    assert!(flags.contains(&"--threading-mode runtime".to_owned()), "{flags:?}");
    assert!(flags.iter().all(|flag| !flag.starts_with("--threads")), "{flags:?}");
}

#[test]
fn what_an_older_version_lacks_is_a_warning_or_where_it_protects_a_problem() {
    let plan =
        planned(&[GRANIAN, ("MCP_LAUNCH_MODE", "exec"), ("GRANIAN_WORKERS_MAX_RSS", "300")], &version(2, 4, 2));
    assert!(!argv(&plan).contains(&"--workers-max-rss".to_owned()));
    assert!(plan.warnings.iter().any(|warning| warning.contains("granian 2.4.2 has no --workers-max-rss")));
    assert!(problems_of(&[("GRANIAN_UDS", "/run/a.sock")], &version(2, 4, 2)).contains("--uds"));
    let minimum = [("SSL", "1"), ("SSL_MIN_VERSION", "1.3")];
    assert!(problems_of(&minimum, &version(2, 5, 7)).contains("--ssl-protocol-min"));
}

#[test]
fn a_passphrase_never_is_an_argument() {
    let plan = planned(&[GRANIAN, ("SSL", "1"), ("KEY_FILE_PASSWORD", "hunter2")], &installed_host());
    assert!(!argv(&plan).join(" ").contains("hunter2"));
    assert!(!plan.env.contains_key(OsStr::new("KEY_FILE_PASSWORD")));
    let env = [("GRANIAN_SSL_KEYFILE_PASSWORD", "hunter2"), GRANIAN, ("SSL", "1")];
    assert!(!format!("{:?}", planned(&env, &installed_host()).env).contains("hunter2"));
    assert!(!format!("{:?}", plan.reasons).contains("hunter2"));
}

#[test]
fn a_factory_is_announced() {
    let env = [("APP_MODULE", "my.app:make()"), ("MCP_LAUNCH_GUARD", "off")];
    let flags = flags_of(&env, &installed_host());
    assert!(flags.contains(&"--factory".to_owned()) && flags.contains(&"my.app:make".to_owned()), "{flags:?}");
    assert!(flags.iter().all(|flag| !flag.starts_with("--process-name")), "only for the gateway: {flags:?}");
}

#[test]
fn limits_of_workers_are_ours_to_keep_unless_granian_would_end_with_the_worker() {
    let limits = [GRANIAN, ("GRANIAN_WORKERS_MAX_RSS", "1G"), ("GRANIAN_WORKERS_LIFETIME", "20")];
    let ours = planned(&limits, &installed_host());
    assert!(!argv(&ours).join(" ").contains("--workers-max-rss"));
    assert!(!ours.env.contains_key(OsStr::new("GRANIAN_WORKERS_LIFETIME")), "Granian reads it, and refuses it");
    let policy = |plan: &crate::plan::Plan| (plan.policy.workers_max_rss, plan.policy.workers_lifetime);
    assert_eq!(policy(&ours), (Some(1 << 30), Some(std::time::Duration::from_secs(20))));
    for its_own in [("MCP_LAUNCH_MODE", "exec"), ("GRANIAN_RESPAWN_FAILED", "false")] {
        let plan = planned(&[&limits[..], &[its_own]].concat(), &installed_host());
        assert!(argv(&plan).join(" ").contains("--workers-lifetime 60 --workers-max-rss 1024"), "{its_own:?}");
        assert_eq!(policy(&plan), (None, None));
        assert!(plan.warnings.iter().any(|warning| warning.contains("at least 60 s")), "{:?}", plan.warnings);
    }
}

#[test]
fn what_granian_cannot_do_about_tls_is_a_problem_and_never_less() {
    let host = installed_host();
    let required = [("SSL", "1"), ("SSL_CA_FILE", "ca.pem"), ("SSL_CLIENT_VERIFY", "optional")];
    assert!(problems_of(&required, &host).contains("use required or none, or --server gunicorn"));
    assert!(problems_of(&[("SSL", "1"), ("SSL_CIPHERS", "HIGH")], &host).contains("no setting for ciphers"));
}

#[test]
fn without_a_file_system_in_memory_granian_reads_the_files_themselves_if_it_can() {
    let host = Host { memory_directory: None, ..installed_host() };
    let on_disk = "--ssl-keyfile certs/key.pem".to_owned();
    assert!(flags_of(&[("SSL", "1")], &host).contains(&on_disk));
    assert!(flags_of(&[("SSL", "1"), ("MCP_LAUNCH_MODE", "exec")], &installed_host()).contains(&on_disk));
    let resolution = resolution(&[GRANIAN, ("SSL", "1")]);
    let mut found = certificates(&resolution);
    let mut pair = std::sync::Arc::into_inner(found.pair.take().unwrap()).unwrap();
    pair.key.form = crate::tls::Form::Encrypted;
    found.pair = Some(std::sync::Arc::new(pair));
    let problems = plan(&resolution, &host, &found).unwrap_err();
    assert!(problems[0].to_string().contains("mount a tmpfs on /dev/shm"), "{problems:?}");
    assert!(plan(&resolution, &installed_host(), &found).is_ok());
}

#[test]
fn while_granian_reloads_when_the_code_changes_nobody_keeps_limits() {
    let env = [GRANIAN, ("GRANIAN_DEV_MODE", "true"), ("GRANIAN_WORKERS_LIFETIME", "60")];
    let plan = planned(&env, &installed_host());
    assert_eq!(plan.policy.workers_lifetime, None);
    assert!(plan.warnings.iter().any(|it| it.contains("workers_lifetime has no effect")), "{:?}", plan.warnings);
}

#[test]
fn blocking_threads_are_for_wsgi_apps() {
    let threads = ("GRANIAN_BLOCKING_THREADS", "2");
    assert!(problems(&[threads], &installed_host()).is_empty(), "Gunicorn runs");
    assert_eq!(problems(&[GRANIAN, threads], &installed_host()).len(), 1);
    let wsgi = ("GRANIAN_INTERFACE", "wsgi");
    assert!(problems(&[GRANIAN, threads, wsgi, ("APP_MODULE", "my.app:app")], &installed_host()).is_empty());
}

#[test]
fn what_granian_does_not_honour_is_reported() {
    let warned = |env: &[(&str, &str)], part: &str| {
        let plan = planned(&[&[GRANIAN], env].concat(), &installed_host());
        (plan.warnings.iter().any(|warning| warning.contains(part)), plan.env)
    };
    let pid_file = ("GRANIAN_PID_FILE", "/run/granian.pid");
    let (said, env) = warned(&[pid_file], "GRANIAN_PID_FILE is ignored");
    assert!(said && !env.contains_key(std::ffi::OsStr::new("GRANIAN_PID_FILE")));
    let (said, env) = warned(&[pid_file, ("MCP_LAUNCH_MODE", "exec")], "GRANIAN_PID_FILE");
    assert!(!said && env.contains_key(std::ffi::OsStr::new("GRANIAN_PID_FILE")));
    assert!(warned(&[("FORWARDED_ALLOW_IPS", "*")], "forwarded_allow_ips = * (from environment").0);
    assert!(!warned(&[], "forwarded_allow_ips").0);
}

#[test]
fn the_task_implementation_auto_is_asyncio_with_a_warning() {
    let plan = planned(&[GRANIAN, ("GRANIAN_TASK_IMPL", "auto")], &installed_host());
    assert!(argv(&plan).join(" ").contains("--task-impl asyncio"));
    assert_eq!(plan.env.get(std::ffi::OsStr::new("GRANIAN_TASK_IMPL")).unwrap(), "asyncio");
    assert!(plan.warnings.iter().any(|warning| warning.contains("task_impl = auto")), "{:?}", plan.warnings);
}

#[test]
fn every_log_level_of_granians_is_taken() {
    for level in ["debug", "info", "warning", "warn", "error", "critical", "notset"] {
        let plan = planned(&[GRANIAN, ("GRANIAN_LOG_LEVEL", level)], &installed_host());
        let level = if level == "warn" { "warning" } else { level };
        assert!(argv(&plan).join(" ").contains(&format!("--log-level {level}")));
    }
}

#[test]
fn a_wsgi_app_is_served_as_one() {
    let interfaces = [("app".to_owned(), crate::host::Interface::Wsgi)].into();
    let host = Host { interfaces, ..installed_host() };
    let app = ("APP_MODULE", "my.app:app");
    let plan = planned(&[GRANIAN, app], &host);
    let line = argv(&plan).join(" ");
    assert!(line.contains("--interface wsgi") && line.contains("--blocking-threads 66"), "{line}");
    assert!(!line.contains("--ws"), "Granian has no WebSockets for WSGI: {line}");
    assert_eq!(plan.limit, Some(RequestLimit::Fixed(64)), "two threads are left to refuse");
    let plan = planned(&[GRANIAN, app, ("GRANIAN_BACKPRESSURE", "16")], &host);
    assert!(argv(&plan).join(" ").contains("--blocking-threads 18"));
    assert_eq!((plan.limit, plan.warnings), (Some(RequestLimit::Fixed(16)), vec![]));
    let plan = planned(&[GRANIAN, app, ("GRANIAN_BLOCKING_THREADS", "8")], &host);
    assert!(argv(&plan).join(" ").contains("--blocking-threads 8"));
    assert_eq!(plan.limit, Some(RequestLimit::Fixed(8)), "all of them serve");
    let reason = plan.reasons.iter().find(|reason| reason.topic == "guard").unwrap();
    assert!(reason.because.contains("further requests wait"), "{}", reason.because);
    let both = [GRANIAN, app, ("GRANIAN_BLOCKING_THREADS", "8"), ("GRANIAN_BACKPRESSURE", "7")];
    let plan = planned(&both, &host);
    assert!(plan.warnings.iter().any(|warning| warning.contains("leave no two")), "{:?}", plan.warnings);
}

#[test]
fn an_interface_that_is_not_the_apps_is_a_problem_that_names_the_flag() {
    use crate::host::Interface;
    for (is, interface, instead) in
        [(Interface::Wsgi, "asgi", "wsgi"), (Interface::Wsgi, "rsgi", "wsgi"), (Interface::Asgi, "wsgi", "asgi")]
    {
        let host = Host { interfaces: [("app".to_owned(), is)].into(), ..installed_host() };
        let env = [GRANIAN, ("APP_MODULE", "my.app:app"), ("GRANIAN_INTERFACE", interface)];
        let problem = &problems(&env, &host)[0];
        assert!(problem.contains(&format!("GRANIAN_INTERFACE={instead}")), "{problem}");
        assert!(problem.contains("environment GRANIAN_INTERFACE"), "{problem}");
    }
    let named_only = [GRANIAN, ("APP_MODULE", "my.wsgi:app"), ("GRANIAN_INTERFACE", "asgi")];
    assert!(problems(&named_only, &installed_host()).is_empty(), "the name of a module proves nothing");
    let gateway = problems(&[GRANIAN, ("GRANIAN_INTERFACE", "wsgi")], &installed_host());
    assert!(gateway[0].contains("mcpgateway.main:app, which is an ASGI app"), "{gateway:?}");
}
