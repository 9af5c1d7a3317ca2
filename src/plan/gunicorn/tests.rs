use std::ffi::OsStr;

use crate::host::{Host, Version};
use crate::plan::RequestLimit;
use crate::plan::tests::{argv, flags, installed_host, planned, problems};
use crate::plan::{Inherited, Plan};

fn host_with(config: &str) -> Host {
    Host { gunicorn_config: Some(config.into()), ..installed_host() }
}

const OTHER_APP: (&str, &str) = ("APP_MODULE", "my.app:app");

fn module(plan: &Plan) -> Option<&str> {
    plan.descriptors.iter().find_map(|descriptor| match &descriptor.what {
        Inherited::Modules(modules) => modules.first().map(|module| module.source.as_str()),
        _ => None,
    })
}

/// Without the guard, the arguments of the old script, except for intended differences: the worker count, the lock and
/// the trust in every proxy are gone; grace, keep-alive and backlog are honoured; the access log is off instead of
/// written to /dev/null.
#[test]
fn the_gateway_gets_what_the_old_script_passed() {
    let env = [("GUNICORN_WORKERS", "3"), ("MCP_LAUNCH_MODE", "exec"), ("MCP_LAUNCH_GUARD", "off")];
    let plan = planned(&env, &installed_host());
    assert_eq!(plan.program, std::path::PathBuf::from("/venv/bin/gunicorn"));
    let wanted = [
        "--backlog 2048",
        "--bind 0.0.0.0:4444",
        "--error-logfile -",
        "--graceful-timeout 23",
        "--keep-alive 2",
        "--log-level info",
        "--max-requests 100000",
        "--max-requests-jitter 100",
        "--no-control-socket",
        "--preload",
        "--timeout 600",
        "--worker-class uvicorn_worker.UvicornWorker",
        "--workers 3",
        "-c python:mcp_launch_gunicorn_config",
        "mcpgateway.main:app",
    ];
    assert_eq!(flags(&plan), wanted);
    assert!(module(&plan).unwrap().contains("engine.dispose(close=False)"));
    assert_eq!(plan.capabilities.boot_statuses, [3, 4, 1]);
}

#[test]
fn tls_logs_and_proxies_are_passed_when_asked_for() {
    let env = [
        ("SSL", "true"),
        ("CA_CERTS", "ca.pem"),
        ("CERT_REQS", "2"),
        ("SSL_CIPHERS", "HIGH"),
        ("DISABLE_ACCESS_LOG", "false"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("GUNICORN_PRELOAD_APP", "false"),
    ];
    let plan = planned(&env, &installed_host());
    let flags = flags(&plan);
    for flag in [
        "--certfile /proc/self/fd/4",
        "--keyfile /proc/self/fd/4",
        "--ca-certs /proc/self/fd/5",
        "--cert-reqs 2",
        "--access-logfile -",
        "--forwarded-allow-ips *",
    ] {
        assert!(flags.iter().any(|found| found == flag), "{flag} in {flags:?}");
    }
    assert!(flags.iter().all(|flag| !flag.starts_with("--preload")), "{flags:?}");
    assert!(plan.tls && plan.credentials.is_some());
    let inherited = |number| plan.descriptors.iter().find(|found| found.number == number).map(|found| &found.what);
    assert_eq!((inherited(4), inherited(5)), (Some(&Inherited::Pair), Some(&Inherited::Authority)));
    assert!(module(&plan).unwrap().contains("_serve_tls(globals(), \"TLSv1_2\")\n"));
}

#[test]
fn development_reloads_and_does_not_preload() {
    let plan =
        planned(&[("GUNICORN_DEV_MODE", "1"), ("GUNICORN_WORKERS", "8")], &host_with("/srv/gunicorn.config.py"));
    let flags = flags(&plan);
    assert!(flags.contains(&"--reload-extra-file /srv/gunicorn.config.py".to_owned()), "{flags:?}");
    assert!(flags.contains(&"--reload".to_owned()) && flags.contains(&"--workers 2".to_owned()), "{flags:?}");
    assert!(module(&plan).unwrap().contains("\npreload_app = False\n"));
}

#[test]
fn with_a_users_file_defaults_go_into_the_module_and_explicit_settings_stay_flags() {
    let plan = planned(&[OTHER_APP, ("GUNICORN_TIMEOUT", "30")], &host_with("/srv/gunicorn.conf.py"));
    let words = argv(&plan);
    assert_eq!(words[..2], ["-c", "python:mcp_launch_gunicorn_config"]);
    assert!(words.contains(&"--timeout".to_owned()) && !words.contains(&"--max-requests".to_owned()), "{words:?}");
    let source = module(&plan).unwrap();
    assert!(source.contains("max_requests = 0") && !source.contains("timeout = 600"), "{source}");
}

#[test]
fn the_users_file_is_the_setting_else_the_argument_else_the_one_found() {
    let host = host_with("/found.py");
    let file = |env: &[(&str, &str)]| module(&planned(env, &host)).map(str::to_owned).unwrap_or_default();
    assert!(file(&[]).contains("_settings_of(\"/found.py\")"));
    let argument = ("GUNICORN_CMD_ARGS", "-c /argument.py");
    assert!(file(&[argument]).contains("_settings_of(\"/argument.py\")"));
    assert!(file(&[argument, ("GUNICORN_CONFIG", "set.py")]).contains("_settings_of(\"set.py\")"));
    let none = file(&[OTHER_APP, ("GUNICORN_CONFIG", "none")]);
    assert!(none.contains("daemon = False") && !none.contains("_settings_of"), "{none}");
}

#[test]
fn without_any_file_and_guard_an_app_that_is_not_the_gateway_needs_no_module() {
    let exec = ("MCP_LAUNCH_MODE", "exec");
    let plan = planned(&[OTHER_APP, exec, ("MCP_LAUNCH_GUARD", "off")], &installed_host());
    assert!(module(&plan).is_none() && !argv(&plan).contains(&"-c".to_owned()));
    assert!(!plan.env.contains_key(std::ffi::OsStr::new("PYTHONPATH")));
}

#[test]
fn arguments_for_gunicorn_beat_our_defaults_but_not_explicit_settings() {
    let args =
        ("GUNICORN_CMD_ARGS", "--timeout 5 -k uvicorn.workers.UvicornWorker --preload -w 7 --access-logfile x");
    let plan = planned(&[OTHER_APP, args], &installed_host());
    let words = argv(&plan);
    for flag in ["--timeout", "--worker-class", "--preload", "--access-logfile"] {
        assert!(!words.contains(&flag.to_owned()), "{flag} in {words:?}");
    }
    assert_eq!(plan.workers, 7);
    assert_eq!(plan.env[std::ffi::OsStr::new("GUNICORN_CMD_ARGS")], args.1);

    let explicit =
        [OTHER_APP, args, ("GUNICORN_TIMEOUT", "9"), ("GUNICORN_PRELOAD_APP", "no"), ("GUNICORN_WORKERS", "2")];
    let plan = planned(&explicit, &installed_host());
    assert!(flags(&plan).contains(&"--timeout 9".to_owned()));
    assert_eq!(plan.workers, 2);
    let rewritten = plan.env[std::ffi::OsStr::new("GUNICORN_CMD_ARGS")].to_string_lossy().into_owned();
    assert!(!rewritten.contains("--preload") && rewritten.contains("--timeout 5"), "{rewritten}");
    assert!(plan.warnings.iter().any(|warning| warning.starts_with("--preload in GUNICORN_CMD_ARGS")));
}

/// Only where a request must tell whether a generation is ready.
#[test]
fn a_socket_for_probes_comes_last_and_only_where_the_guard_cannot_tell() {
    let probed = |env: &[(&str, &str)]| planned(&[&[OTHER_APP], env].concat(), &installed_host()).is_probed();
    let off = ("MCP_LAUNCH_GUARD", "off");
    assert!(!probed(&[]) && !probed(&[("GUNICORN_WORKER_CLASS", "asgi")]));
    assert!(!probed(&[("GUNICORN_WORKER_CLASS", "gthread")]));
    assert!(!probed(&[off, ("MCP_LAUNCH_MODE", "exec")]));
    for env in [off, ("GUNICORN_WORKER_CLASS", "my.Worker")] {
        assert!(probed(&[env]), "{env:?}");
    }
    assert!(!probed(&[("GUNICORN_WORKER_CLASS", "asgi"), ("GUNICORN_CMD_ARGS", "--asgi-lifespan off")]));
    let plan = planned(&[OTHER_APP, off, ("GUNICORN_CMD_ARGS", "-b :1 -b :2")], &installed_host());
    assert_eq!(plan.env[std::ffi::OsStr::new("LISTEN_FDS")], "3");
    assert_eq!(plan.descriptors[2].what, Inherited::ProbeListener);
    assert!(module(&plan).unwrap().contains("_tend_sockets(globals(), 2, None, False)"));
}

#[test]
fn sockets_are_inherited_when_we_stay() {
    let numbers = |plan: &Plan| plan.descriptors.iter().map(|descriptor| descriptor.number).collect::<Vec<_>>();
    let plan = planned(&[], &installed_host());
    let words = argv(&plan).join(" ");
    assert!(words.contains("--bind 0.0.0.0:4444 ") && plan.listen_pid, "{words}");
    assert_eq!(numbers(&plan), [3, 4, 5, 6, 7, 8]);
    assert_eq!(plan.env[std::ffi::OsStr::new("PYTHONPATH")], "/proc/self/fd/8");

    let plan = planned(&[("MCP_LAUNCH_UDS", "/run/app.sock"), ("PYTHONPATH", "/srv/lib")], &installed_host());
    assert!(argv(&plan).join(" ").contains("--bind unix:/run/app.sock") && plan.listen_pid);
    assert_eq!(plan.env[std::ffi::OsStr::new("LISTEN_FDS")], "1");
    assert_eq!(plan.env[std::ffi::OsStr::new("PYTHONPATH")], "/proc/self/fd/8:/srv/lib");

    let plan = planned(&[("MCP_LAUNCH_MODE", "exec"), ("HOST", "::")], &installed_host());
    assert!(argv(&plan).join(" ").contains("--bind [::]:4444"));
    assert_eq!(numbers(&plan), [64]);
}

#[test]
fn the_worker_class_is_the_best_that_is_installed() {
    let class = |packages: &[&str], version: Version| {
        let mut host = installed_host();
        for package in packages {
            host.python.packages.remove(*package);
        }
        host.python.packages.insert("gunicorn".into(), version);
        let problems = problems(&[OTHER_APP], &host);
        if problems.is_empty() { flags(&planned(&[OTHER_APP], &host)).join("; ") } else { problems.join("; ") }
    };
    let newest = Version(27, 0, 0);
    assert!(class(&[], newest).contains("--worker-class uvicorn_worker.UvicornWorker"));
    assert!(class(&["uvicorn-worker"], newest).contains("--worker-class uvicorn.workers.UvicornWorker"));
    assert!(class(&["uvicorn-worker", "uvicorn"], newest).contains("--worker-class asgi"));
    let none = class(&["uvicorn-worker", "uvicorn"], Version(23, 0, 0));
    assert!(none.contains("/venv/bin/python -m pip install uvicorn-worker"), "{none}");
}

#[test]
fn a_wsgi_class_is_for_other_apps_than_the_gateway() {
    let sync = ("GUNICORN_WORKER_CLASS", "sync");
    assert!(problems(&[sync], &installed_host())[0].contains("mcpgateway.main:app is an ASGI app"));
    assert!(problems(&[("GUNICORN_CMD_ARGS", "-k gthread")], &installed_host())[0].contains("gthread"));
    assert!(flags(&planned(&[OTHER_APP, sync], &installed_host())).contains(&"--worker-class sync".to_owned()));
    let mut host = installed_host();
    host.python.packages.remove("uvicorn-worker");
    let class = ("GUNICORN_WORKER_CLASS", "uvicorn_worker.UvicornWorker");
    assert!(problems(&[class], &host)[0].contains("pip install uvicorn-worker"));
}

#[test]
fn older_versions_get_only_what_they_know() {
    let mut host = installed_host();
    host.python.packages.insert("gunicorn".into(), Version(23, 0, 0));
    assert!(!argv(&planned(&[], &host)).contains(&"--no-control-socket".to_owned()));
    assert!(problems(&[("FORWARDED_ALLOW_IPS", "10.0.0.0/8")], &host)[0].contains("24.1"));
}

#[test]
fn a_writable_dev_shm_takes_the_heartbeat_files_by_default() {
    let mut host = installed_host();
    assert!(!argv(&planned(&[OTHER_APP], &host)).contains(&"--worker-tmp-dir".to_owned()));
    host.limits.dev_shm_writable = true;
    assert!(flags(&planned(&[OTHER_APP], &host)).contains(&"--worker-tmp-dir /dev/shm".to_owned()));
    let told = ("GUNICORN_CMD_ARGS", "--worker-tmp-dir /tmp");
    assert!(!argv(&planned(&[OTHER_APP, told], &host)).contains(&"--worker-tmp-dir".to_owned()));
}

#[test]
fn a_grace_that_is_too_long_is_fitted_to_the_stop_budget_and_contradicts_only_an_explicit_one() {
    let host = installed_host();
    let grace = ("GUNICORN_GRACEFUL_TIMEOUT", "60");
    let plan = planned(&[grace], &host);
    assert!(argv(&plan).join(" ").contains("--graceful-timeout 23"), "{:?}", argv(&plan));
    let warning = plan.warnings.iter().find(|warning| warning.contains("graceful_timeout = 60s")).unwrap();
    assert!(warning.contains("(from environment GUNICORN_GRACEFUL_TIMEOUT); 23s is used"), "{warning}");
    assert_eq!(plan.env.get(OsStr::new("GUNICORN_GRACEFUL_TIMEOUT")).unwrap(), "23");
    let stop = ("MCP_LAUNCH_STOP_TIMEOUT", "30");
    assert_eq!(
        problems(&[grace, stop, ("MCP_LAUNCH_STOP_DELAY", "5")], &host),
        ["graceful_timeout = 60s exceeds the available 23s, which is stop_timeout 30s less stop_delay 5s less 2s \
          (from environment GUNICORN_GRACEFUL_TIMEOUT); lower it, or raise stop_timeout"]
    );
    assert!(problems(&[("GUNICORN_GRACEFUL_TIMEOUT", "28"), stop], &host).is_empty());
    assert!(problems(&[grace, stop, ("HTTP_SERVER", "granian")], &host).is_empty());
    let exec = planned(&[grace, ("MCP_LAUNCH_MODE", "exec")], &host);
    assert!(argv(&exec).join(" ").contains("--graceful-timeout 60"));
}

fn host_of(app: crate::host::Interface) -> Host {
    Host { interfaces: [("app".to_owned(), app)].into(), ..installed_host() }
}

#[test]
fn a_wsgi_app_gets_threads_and_the_guard() {
    let host = host_of(crate::host::Interface::Wsgi);
    let plan = planned(&[OTHER_APP], &host);
    let line = argv(&plan).join(" ");
    assert!(line.contains("--worker-class gthread") && line.contains("--threads 4"), "{line}");
    assert_eq!((&*plan.target, plan.limit), ("mcp_launch_guard:app", None));
    let limited = planned(&[OTHER_APP, ("GUNICORN_BACKPRESSURE", "8")], &host);
    assert!(argv(&limited).join(" ").contains("--threads 10"));
    assert_eq!(limited.limit, Some(RequestLimit::Fixed(8)));
    let explicit = planned(&[OTHER_APP, ("GUNICORN_BACKPRESSURE", "8"), ("GUNICORN_THREADS", "8")], &host);
    assert!(argv(&explicit).join(" ").contains("--threads 8"));
    assert!(explicit.warnings.iter().any(|warning| warning.contains("leave no two")), "{:?}", explicit.warnings);
    let own_threads = planned(&[OTHER_APP, ("GUNICORN_CMD_ARGS", "--threads 9")], &host);
    assert!(!argv(&own_threads).join(" ").contains("--threads 4"));
    let wrong = problems(&[OTHER_APP, ("GUNICORN_WORKER_CLASS", "uvicorn.workers.UvicornWorker")], &host);
    assert!(wrong[0].contains("is for ASGI apps, and my.app:app is a WSGI app"), "{wrong:?}");
    let asgi = host_of(crate::host::Interface::Asgi);
    let wrong = problems(&[OTHER_APP, ("GUNICORN_WORKER_CLASS", "gthread")], &asgi);
    assert!(wrong[0].contains("is for WSGI apps, and my.app:app is an ASGI app"), "{wrong:?}");
    let asgi = planned(&[OTHER_APP], &asgi);
    assert!(argv(&asgi).join(" ").contains("uvicorn_worker.UvicornWorker"));
    let django = planned(&[("APP_MODULE", "site.wsgi:application")], &installed_host());
    assert!(argv(&django).join(" ").contains("gthread"));
    let named_only = [("APP_MODULE", "my.wsgi:app"), ("GUNICORN_WORKER_CLASS", "uvicorn_worker.UvicornWorker")];
    assert!(problems(&named_only, &installed_host()).is_empty(), "the name of a module proves nothing");
}

#[test]
fn greenlets_that_are_not_installed_are_a_problem_with_the_command_that_installs_them() {
    let mut host = host_of(crate::host::Interface::Wsgi);
    let env = [OTHER_APP, ("GUNICORN_WORKER_CLASS", "gevent"), ("GUNICORN_BACKPRESSURE", "8")];
    assert_eq!(planned(&env, &host).limit, Some(RequestLimit::Fixed(8)));
    host.python.packages.remove("gevent");
    let problem = &problems(&env, &host)[0];
    assert!(problem.contains("needs gevent") && problem.contains("install 'gunicorn[gevent]'"), "{problem}");
    let eventlet = [OTHER_APP, ("GUNICORN_WORKER_CLASS", "eventlet")];
    host.python.packages.insert("gunicorn".into(), Version(25, 3, 0));
    assert!(problems(&eventlet, &host)[0].contains("install 'gunicorn[eventlet]'"));
    host.python.packages.insert("gunicorn".into(), Version(26, 0, 0));
    assert!(problems(&eventlet, &host)[0].contains("26.0.0 removed it"), "{:?}", problems(&eventlet, &host));
}

#[test]
fn dev_mode_takes_a_class_that_reloads_and_warns_about_others() {
    let dev = ("GUNICORN_DEV_MODE", "true");
    let plan = planned(&[OTHER_APP, dev], &installed_host());
    let line = argv(&plan).join(" ");
    assert!(line.contains("--worker-class asgi") && line.contains("--reload"), "{line}");
    let warned = |env: &[(&str, &str)], host: &Host| {
        planned(&[&[OTHER_APP], env].concat(), host)
            .warnings
            .iter()
            .any(|warning| warning.contains("does not reload"))
    };
    let uvicorn = ("GUNICORN_WORKER_CLASS", "uvicorn.workers.UvicornWorker");
    assert!(!warned(&[dev], &installed_host()) && !warned(&[uvicorn], &installed_host()));
    let mut host = installed_host();
    host.python.packages.insert("uvicorn".into(), Version(0, 54, 0));
    assert!(warned(&[dev, uvicorn], &host));
    host.python.packages.insert("gunicorn".into(), Version(23, 0, 0));
    assert!(warned(&[dev], &host));
}

/// What `explain` says about distributing clients, and whether the guard's text has the code for it.
#[test]
fn clients_are_distributed_where_possible_and_explain_shows_it() {
    let balance = |env: &[(&str, &str)]| {
        let plan = planned(env, &installed_host());
        let reason = plan.reasons.iter().find(|reason| reason.topic == "balance").unwrap();
        let modules = plan.descriptors.iter().filter_map(|descriptor| match &descriptor.what {
            Inherited::Modules(modules) => Some(modules),
            _ => None,
        });
        let deals = modules.flatten().any(|module| module.source.contains("\nDEALS = True"));
        (reason.decision.clone(), reason.because.clone(), deals)
    };
    let (decision, because, deals) = balance(&[OTHER_APP]);
    assert_eq!((&*decision, deals), ("even", true));
    assert!(because.contains("fewer connections accept first"), "{because}");
    let (decision, _, deals) = balance(&[OTHER_APP, ("GUNICORN_WORKER_CLASS", "my.Worker")]);
    assert!(decision.starts_with("even if my.Worker accepts") && deals, "{decision}");
    for (env, why) in [
        (("MCP_LAUNCH_BALANCE", "off"), "MCP_LAUNCH_BALANCE"),
        (("MCP_LAUNCH_MODE", "exec"), "exec mode"),
        (("MCP_LAUNCH_GUARD", "off"), "guard"),
    ] {
        let (decision, because, deals) = balance(&[OTHER_APP, env]);
        assert_eq!((&*decision, deals), ("off", false), "{env:?}");
        assert!(because.contains(why), "{env:?}: {because}");
    }
}
