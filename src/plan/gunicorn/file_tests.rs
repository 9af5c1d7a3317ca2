//! The user's configuration file, and the resulting plan.

use std::time::Duration;

use crate::host::{AppFacts, Assignments, Host};
use crate::plan::RequestLimit;
use crate::plan::tests::{argv, flags, installed_host, planned, problems};
use crate::plan::{Inherited, Plan};

const OTHER_APP: (&str, &str) = ("APP_MODULE", "my.app:app");

fn host(source: &str) -> Host {
    Host {
        gunicorn_config: Some("/srv/gunicorn.conf.py".into()),
        gunicorn_settings: Some(Assignments::read(source)),
        ..installed_host()
    }
}

fn plan(source: &str, env: &[(&str, &str)]) -> Plan {
    planned(&[env, &[OTHER_APP]].concat(), &host(source))
}

fn has_warning(plan: &Plan, parts: &[&str]) -> bool {
    plan.warnings.iter().any(|warning| parts.iter().all(|part| warning.contains(part)))
}

fn reason<'a>(plan: &'a Plan, topic: &str) -> (&'a str, &'a str) {
    let reason = plan.reasons.iter().find(|reason| reason.topic == topic).unwrap_or_else(|| panic!("{topic}"));
    (&reason.decision, &reason.because)
}

#[test]
fn an_address_in_the_file_comes_before_our_default() {
    for (source, wanted) in [
        ("bind = '127.0.0.1:8765'", "127.0.0.1:8765"),
        ("bind = ':8765'", "0.0.0.0:8765"),
        ("bind = ['[::1]:8765']", "[::1]:8765"),
        ("bind = 'unix:/run/app.sock'", "unix:/run/app.sock"),
        ("bind = None", "0.0.0.0:4444"),
        ("bind = []", "0.0.0.0:4444"),
        ("", "0.0.0.0:4444"),
    ] {
        let plan = plan(source, &[]);
        assert_eq!(plan.bind.to_string(), wanted, "{source}");
        assert!(argv(&plan).join(" ").contains(&format!("--bind {wanted}")), "{source}: {:?}", plan.argv);
        assert!(plan.warnings.is_empty(), "{source}: {:?}", plan.warnings);
    }
    let plan = plan("\n\nbind = '127.0.0.1:8765'", &[]);
    assert_eq!(reason(&plan, "bind"), ("127.0.0.1:8765", "file /srv/gunicorn.conf.py key bind, line 3"));
    assert_eq!(plan.env[std::ffi::OsStr::new("PORT")], "8765");
}

#[test]
fn what_is_set_for_us_comes_before_the_file_and_arguments_in_between() {
    let file = "bind = '127.0.0.1:8765'";
    for (env, wanted) in [
        (&[("PORT", "9000")][..], "127.0.0.1:9000"),
        (&[("HOST", "::1")], "[::1]:8765"),
        (&[("HOST", "::1"), ("PORT", "9000")], "[::1]:9000"),
        (&[("MCP_LAUNCH_UDS", "/run/a.sock")], "unix:/run/a.sock"),
    ] {
        let plan = plan(file, env);
        assert_eq!(plan.bind.to_string(), wanted, "{env:?}");
        assert!(has_warning(&plan, &["bind", "127.0.0.1:8765", "gunicorn.conf.py", "line 1"]), "{:?}", plan.warnings);
    }
    let arguments = ("GUNICORN_CMD_ARGS", "-b 127.0.0.2:1");
    assert_eq!(plan(file, &[arguments]).bind.to_string(), "127.0.0.2:1");
    assert_eq!(plan(file, &[arguments, ("PORT", "9000")]).bind.to_string(), "127.0.0.2:9000");
    let socket = plan("bind = 'unix:/run/a.sock'", &[("PORT", "9000")]);
    assert_eq!(socket.bind.to_string(), "0.0.0.0:9000");
    assert!(has_warning(&socket, &["unix:/run/a.sock", "PORT"]), "{:?}", socket.warnings);
}

#[test]
fn an_address_that_is_computed_is_a_warning_unless_ours_is_set() {
    let computed = "import os\nbind = '127.0.0.1:' + os.environ['X']";
    let plan_of = |env| plan(computed, env);
    assert!(has_warning(&plan_of(&[]), &["bind", "line 2", "computed", "0.0.0.0:4444"]));
    assert_eq!(plan_of(&[]).bind.to_string(), "0.0.0.0:4444");
}

#[test]
fn an_address_that_cannot_be_served_is_a_problem_with_its_line() {
    let found = problems(&[OTHER_APP], &host("x = 1\nbind = 'example.com:80'"));
    assert!(found[0].contains("example.com") && found[0].contains("key bind, line 2"), "{found:?}");
    assert!(problems(&[OTHER_APP], &host("bind = 'fd://5'"))[0].contains("LISTEN_FDS"));
    for source in ["bind = 8000", "bind = True", "bind = [\"127.0.0.1:80\", 8000]"] {
        let found = problems(&[OTHER_APP], &host(source));
        assert!(found[0].contains(source) && found[0].contains("is not an address"), "{found:?}");
    }
}

#[test]
fn several_addresses_are_all_served_and_the_first_is_named() {
    let plan = plan("bind = ['127.0.0.1:1', 'unix:/run/a.sock', '[::1]:3']", &[]);
    assert_eq!(plan.bind.to_string(), "127.0.0.1:1");
    let further: Vec<String> = plan.further_binds.iter().map(ToString::to_string).collect();
    assert_eq!(further, ["unix:/run/a.sock", "[::1]:3"]);
    assert_eq!(plan.env[std::ffi::OsStr::new("LISTEN_FDS")], "3");
    let sockets = plan.descriptors.iter().filter(|found| matches!(found.what, Inherited::FurtherListener(_)));
    assert_eq!(sockets.map(|found| found.number).collect::<Vec<_>>(), [4, 5]);
    let repeated = super::file_tests::plan("", &[("GUNICORN_CMD_ARGS", "-b :1 -b :2")]);
    assert_eq!((repeated.bind.to_string(), repeated.further_binds.len()), ("0.0.0.0:1".to_owned(), 1));
}

#[test]
fn the_worker_count_of_the_file_counts_except_for_the_gateway() {
    assert_eq!(plan("workers = 7", &[]).workers, 7);
    assert_eq!(plan("workers = 7", &[("WEB_CONCURRENCY", "3")]).workers, 7, "as Gunicorn has it");
    assert_eq!(plan("workers = 7", &[("GUNICORN_WORKERS", "3")]).workers, 3);
    assert_eq!(plan("workers = 7", &[("GUNICORN_CMD_ARGS", "-w 4")]).workers, 4);
    let gateway = planned(&[], &host("workers = 7"));
    assert_eq!(gateway.workers, 2);
    assert!(has_warning(&gateway, &["workers = 7", "key workers, line 1"]), "{:?}", gateway.warnings);
    let computed = plan("workers = count()", &[]);
    assert!(has_warning(&computed, &["workers", "line 1", "computed"]), "{:?}", computed.warnings);
    assert!(problems(&[OTHER_APP], &host("workers = 'many'"))[0].contains("key workers, line 1"));
}

#[test]
fn a_certificate_in_the_file_means_tls() {
    assert!(plan("certfile = '/c.pem'\nkeyfile = '/k.pem'", &[]).tls);
    assert!(plan("keyfile = '/k.pem'", &[]).tls);
    assert!(!plan("certfile = None", &[]).tls);
    assert!(plan("", &[("GUNICORN_CMD_ARGS", "--certfile c.pem")]).tls);
}

#[test]
fn the_class_of_the_file_is_named_and_decides_about_the_guard() {
    let sync = plan("worker_class = 'sync'", &[("GUNICORN_BACKPRESSURE", "5")]);
    assert_eq!(reason(&sync, "worker-class"), ("sync", "file /srv/gunicorn.conf.py key worker_class, line 1"));
    assert_eq!((reason(&sync, "guard").0, sync.limit), ("limit 1", Some(RequestLimit::Fixed(1))));
    assert!(reason(&sync, "guard").1.contains("wait in the listen queue"));
    let threads = plan("worker_class = 'gthread'\nthreads = 8", &[("GUNICORN_BACKPRESSURE", "5")]);
    assert_eq!((reason(&threads, "threads").0, threads.limit), ("8", Some(RequestLimit::Fixed(5))));
    let few = plan("worker_class = 'sync'\nthreads = 6", &[("GUNICORN_BACKPRESSURE", "5")]);
    assert_eq!(few.limit, Some(RequestLimit::Fixed(6)), "all threads serve");
    assert!(has_warning(&few, &["6 threads", "threads, line 2", "leave no two"]), "{:?}", few.warnings);
    let asgi = plan("worker_class = 'uvicorn.workers.UvicornWorker'", &[("GUNICORN_BACKPRESSURE", "5")]);
    assert_eq!((reason(&asgi, "guard").0, asgi.limit), ("limit 5", Some(RequestLimit::Fixed(5))));
    let explicit = plan("worker_class = 'sync'", &[("GUNICORN_WORKER_CLASS", "auto")]);
    assert_eq!(reason(&explicit, "worker-class").0, "uvicorn_worker.UvicornWorker");
    let computed = plan("worker_class = pick()", &[("GUNICORN_BACKPRESSURE", "5")]);
    assert_eq!((reason(&computed, "worker-class").0, computed.limit), ("computed", None));
    assert!(problems(&[], &host("worker_class = 'sync'"))[0].contains("line 1"));
}

#[test]
fn preloading_is_for_the_gateway_and_on_request() {
    let preloads = |source: &str, env: &[(&str, &str)]| reason(&plan(source, env), "preload").0 == "on";
    assert_eq!(reason(&planned(&[], &installed_host()), "preload").0, "on");
    assert_eq!(reason(&planned(&[OTHER_APP], &installed_host()), "preload").0, "off");
    assert!(preloads("preload_app = True", &[]));
    assert!(!preloads("preload_app = True", &[("GUNICORN_PRELOAD_APP", "false")]));
    assert!(preloads("", &[("GUNICORN_PRELOAD_APP", "true")]));
    assert!(preloads("", &[("GUNICORN_CMD_ARGS", "--preload")]));
    assert!(!preloads("preload_app = True\nreload = True", &[]));
    let gevent = plan("worker_class = 'gevent'\npreload_app = True", &[]);
    assert_eq!(reason(&gevent, "preload").0, "on", "it is asked for");
    let gateway = planned(&[], &host("reload = True"));
    assert_eq!(reason(&gateway, "preload").0, "off");
    let asked = plan("reload = True", &[("GUNICORN_PRELOAD_APP", "true")]);
    assert!(has_warning(&asked, &["preload_app", "no effect", "reload = True"]), "{:?}", asked.warnings);
    assert!(!argv(&asked).contains(&"--preload".to_owned()));
}

#[test]
fn an_explicit_timeout_of_gunicorn_applies_and_is_shown() {
    let timeout = |source: &str, env: &[(&str, &str)]| plan(source, env).policy.worker_timeout.map(|it| it.as_secs());
    assert_eq!(timeout("", &[]), Some(30));
    assert_eq!(timeout("timeout = 90", &[]), Some(90));
    assert_eq!(timeout("timeout = 0", &[]), None);
    assert_eq!(timeout("timeout = 90", &[("GUNICORN_CMD_ARGS", "-t 80")]), Some(80));
    assert_eq!(timeout("timeout = 90", &[("GUNICORN_TIMEOUT", "600")]), Some(600));
    assert_eq!(timeout("timeout = 90", &[("MCP_LAUNCH_WORKER_TIMEOUT", "5")]), Some(5));
    assert_eq!(timeout("timeout = 90", &[("GUNICORN_DEV_MODE", "true")]), None);
    assert_eq!(timeout("reload = True", &[]), None);
    assert_eq!(timeout("", &[("GUNICORN_DEV_MODE", "1"), ("MCP_LAUNCH_WORKER_TIMEOUT", "5")]), Some(5));
    let both = plan("", &[("GUNICORN_TIMEOUT", "600"), ("MCP_LAUNCH_WORKER_TIMEOUT", "120")]);
    let wanted = "environment MCP_LAUNCH_WORKER_TIMEOUT; it takes precedence over timeout = 600 (from environment \
                  GUNICORN_TIMEOUT)";
    assert_eq!(reason(&both, "worker-timeout"), ("120 s", wanted));
    let computed = plan("timeout = f()", &[]);
    assert!(has_warning(&computed, &["timeout", "line 1", "MCP_LAUNCH_WORKER_TIMEOUT"]), "{:?}", computed.warnings);
    let granian = planned(&[("HTTP_SERVER", "granian"), ("GRANIAN_DEV_MODE", "1")], &installed_host());
    assert_eq!(granian.policy.worker_timeout, None);
    let granian = planned(&[("HTTP_SERVER", "granian"), ("GUNICORN_TIMEOUT", "9")], &host("timeout = 8"));
    assert_eq!(granian.policy.worker_timeout, Some(Duration::from_secs(30)));
}

#[test]
fn what_is_not_honoured_is_said_with_file_and_key() {
    let source = "daemon = True\npidfile = '/run/x'\nreuse_port = True\ngraceful_timeout = 120\n";
    let plan = plan(source, &[]);
    for (name, line) in [("daemon", 1), ("pidfile", 2), ("reuse_port", 3), ("graceful_timeout", 4)] {
        let key = format!("file /srv/gunicorn.conf.py key {name}, line {line}");
        assert!(has_warning(&plan, &[name, &key]), "{name}: {:?}", plan.warnings);
    }
    assert!(flags(&plan).contains(&"--graceful-timeout 23".to_owned()));
    let fine = super::file_tests::plan("daemon = False\npidfile = None\ngraceful_timeout = 20\n", &[]);
    assert!(fine.warnings.is_empty(), "{:?}", fine.warnings);
    assert!(!flags(&fine).iter().any(|flag| flag.starts_with("--graceful-timeout")));
    let computed = super::file_tests::plan("if x:\n    pidfile = 'x'\n", &[]);
    assert!(has_warning(&computed, &["pidfile", "computed", "line 2"]), "{:?}", computed.warnings);
}

#[test]
fn the_app_of_the_file_is_taken_where_none_is_named() {
    let mut host = host("wsgi_app = 'my.site'");
    host.app =
        AppFacts { file: Some("/srv/my/site.py".into()), attributes: vec!["application".into()], program: None };
    let plan = planned(&[], &host);
    assert_eq!(plan.app, "my.site:application");
    assert_eq!(planned(&[OTHER_APP], &host).app, "my.app:app");
    assert_eq!(planned(&[("HTTP_SERVER", "granian")], &host).app, "mcpgateway.main:app");
    let computed = problems(&[], &super::file_tests::host("wsgi_app = name()"));
    assert!(computed[0].contains("wsgi_app") && computed[0].contains("name the APP"), "{computed:?}");
}
