//! Files as public projects have them, rewritten, and what becomes of them.

use std::collections::BTreeMap;

use super::*;
use crate::settings::{FlagLayer, Resolution, resolve};

/// What mcp-launch reads in a file that was made; files that it names are empty.
fn resolved(made: &str) -> Resolution {
    let flags = FlagLayer { config: Some("mcp-launch.toml".into()), ..FlagLayer::default() };
    let is_made = |path: &std::path::Path| path == std::path::Path::new("mcp-launch.toml");
    resolve(&flags, &BTreeMap::new(), &|path| Ok(if is_made(path) { made.into() } else { Vec::new() }))
}

/// The file that is made of it, without its comments; it must be read without problems and warnings.
#[track_caller]
fn settings(name: &str, text: &str) -> String {
    let made = toml(name, &import(name, text.as_bytes(), None).unwrap());
    let resolution = resolved(&made);
    assert_eq!((&resolution.problems, &resolution.warnings), (&vec![], &vec![]), "{made}");
    let lines = made.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn left(name: &str, text: &str) -> Vec<String> {
    import(name, text.as_bytes(), None).unwrap().left.into_iter().map(|left| left.what).collect()
}

#[track_caller]
fn refusal(name: &str, bytes: &[u8]) -> String {
    import(name, bytes, None).unwrap_err().to_string()
}

const SUPERVISOR: &str = "\
[supervisord]
nodaemon=true

[program:web]
command=/srv/shop/venv/bin/gunicorn shop.wsgi:application
    --bind 127.0.0.1:8001 --workers 3 -k gthread --threads 4 --name shop --timeout 120 ; the site
directory=/srv/shop
environment=LANG=C.UTF-8,SECRET_KEY=\"very, secret\",GUNICORN_BACKPRESSURE=\"64\"
user=shop
autostart=true
autorestart=true
stopwaitsecs=30
stdout_logfile=/var/log/shop.log

[program:worker]
command=/srv/shop/venv/bin/celery -A shop worker
";

#[test]
fn a_supervisord_section_with_a_second_program_that_is_no_server() {
    let expected = "\
http_server = \"gunicorn\"
app_module = \"shop.wsgi:application\"
app_root = \"/srv/shop\"
virtual_env = \"/srv/shop/venv\"
host = \"127.0.0.1\"
port = 8001
[launcher]
restart = \"always\"
stop_timeout = 30
[gunicorn]
workers = 3
worker_class = \"gthread\"
timeout = 120
backpressure = 64
threads = 4";
    assert_eq!(settings("supervisord.conf", SUPERVISOR), expected);
    let left = left("supervisord.conf", SUPERVISOR);
    assert!(left.contains(&"the variable SECRET_KEY".into()) && left.contains(&"user=shop".into()), "{left:?}");
    let made = toml("x", &import("x", SUPERVISOR.as_bytes(), None).unwrap());
    assert!(
        !made.contains("very") && made.contains("# Not an option here; start it with: mcp-launch -- --name shop")
    );
}

#[test]
fn a_systemd_unit_with_a_socket_and_continued_lines() {
    let unit = "\
[Unit]
Description=the site
[Service]
Type=notify
User=www-data
WorkingDirectory=/srv/site
EnvironmentFile=-/etc/default/site
ExecStartPre=/srv/site/venv/bin/python manage.py migrate
ExecStart=/srv/site/venv/bin/gunicorn \\
          --access-logfile - \\
          --bind unix:/run/site/gunicorn.sock \\
          site.wsgi:application
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStopSec=5
Restart=on-failure
[Install]
WantedBy=multi-user.target
";
    let expected = "\
http_server = \"gunicorn\"
app_module = \"site.wsgi:application\"
app_root = \"/srv/site\"
virtual_env = \"/srv/site/venv\"
disable_access_log = false
[launcher]
env_file = \"/etc/default/site\"
pre_start = \"/srv/site/venv/bin/python manage.py migrate\"
uds = \"/run/site/gunicorn.sock\"
restart = \"on-failure\"
stop_timeout = 5";
    let found = settings("site.service", unit);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&found), sorted(expected));
    assert_eq!(left("site.service", unit), ["User=www-data", "ExecReload", "one worker"]);
}

#[test]
fn a_procfile_with_a_release_and_variables() {
    let text = "release: python manage.py migrate\n\
                web: gunicorn app.main:app -k uvicorn.workers.UvicornWorker -w ${WEB_CONCURRENCY:-4} -b 0.0.0.0:$PORT\n";
    let expected = "http_server = \"gunicorn\"\napp_module = \"app.main:app\"\nweb_concurrency = 4\n\
                    host = \"0.0.0.0\"\n[gunicorn]\nworker_class = \"uvicorn.workers.UvicornWorker\"";
    let found = settings("Procfile", text);
    for line in expected.lines().filter(|line| !line.starts_with("web_concurrency")) {
        assert!(found.contains(line), "{line} in {found}");
    }
    assert!(found.contains("web_concurrency = 4"), "{found}");
    let other = "web: uvicorn app:app --host=0.0.0.0 --port=${PORT:-5000} --limit-concurrency 100 --no-access-log\n";
    let found = settings("deploy/Procfile", other);
    assert!(found.contains("port = 5000") && found.contains("backpressure = 100"), "{found}");
}

#[test]
fn a_uwsgi_file() {
    let text = "[uwsgi]\nmodule = shop.wsgi:application\nhttp-socket = :9000\nmaster = true\nprocesses = 4\nchdir = /srv/shop\n\
                vacuum = true\nharakiri = 60\nreload-on-rss = 400\nmax-requests = 5000\nharakiri-verbose = true\n";
    let found = settings("shop.ini", text);
    for line in ["host = \"0.0.0.0\"", "port = 9000", "workers = 4", "request_timeout = 60", "workers_max_rss = 400"]
    {
        assert!(found.contains(line), "{line} in {found}");
    }
    assert_eq!(left("shop.ini", text), ["harakiri-verbose=true"]);
    let socket = "[uwsgi]\nwsgi-file = site/wsgi.py\ncallable = app\nhome = %(base)/env\nsocket = /run/site.sock\n";
    assert!(settings("x.ini", socket).contains("app_module = \"site.wsgi:app\""));
    assert_eq!(left("x.ini", socket), ["home \"%(base)/env\"", "socket=/run/site.sock"]);
}

#[test]
fn a_script_that_migrates_and_then_executes_the_server() {
    let text = "#!/bin/sh\nset -e\nexport A=1\n\
                cd /app && alembic upgrade head && exec granian --interface asgi --host 0.0.0.0 --port 8000 \\\n  \
                --workers 2 --backpressure 128 --no-ws main:app\n";
    let facts = import("start.sh", text.as_bytes(), None).unwrap();
    assert_eq!(facts.server_args, ["--interface", "asgi", "--no-ws"]);
    let found = settings("start.sh", text);
    for line in [
        "http_server = \"granian\"",
        "app_root = \"/app\"",
        "pre_start = \"alembic upgrade head\"",
        "[granian]\nworkers = 2\nbackpressure = 128",
    ] {
        assert!(found.contains(line), "{line} in {found}");
    }
    let script = "#!/bin/bash\r\nset -e\r\nexport A=1\r\npython manage.py migrate --noinput\r\n\
                  exec gunicorn --log-file=- --capture-output --workers=2 shop.wsgi -k gevent\r\n";
    assert_eq!(left("start.sh", script), ["the variable A", "the command python manage.py migrate --noinput"]);
    assert!(settings("start.sh", script).contains("app_module = \"shop.wsgi\""));
    let shell = "sh -c 'python -m uvicorn --factory app:make --workers 2'";
    assert!(settings("command", shell).contains("port = 8000"), "uvicorn's own default");
    let unknown = import("command", b"uvicorn app:app --h11-max-incomplete-event-size 1024", None).unwrap();
    assert_eq!(
        (unknown.server_args.len(), unknown.left[0].what.as_str()),
        (0, "--h11-max-incomplete-event-size 1024")
    );
}

const COMPOSE: &str = "\
x-common: &common
  env_file: [.env, {path: local.env}]
  environment: &environment
    DATABASE_URL: postgres://db/shop
    GUNICORN_BACKPRESSURE: 32
  restart: unless-stopped

services:
  db:
    image: postgres:16
  web:
    <<: *common
    build: .
    working_dir: /srv/shop
    command: >
      sh -c \"python manage.py migrate &&
      exec gunicorn shop.asgi:application -k uvicorn.workers.UvicornWorker
      --bind 0.0.0.0:8000 --workers 3\"
    environment:
      <<: *environment
      SECRET_KEY: very-secret
    ports: [\"80:8000\"]
    stop_grace_period: 20s
    healthcheck: {test: [CMD, curl, localhost]}
  worker:
    <<: *common
    command: [\"celery\", \"-A\", \"shop\", \"worker\"]
";

#[test]
fn a_docker_compose_service_with_what_it_shares_with_others() {
    let found = settings("docker-compose.yml", COMPOSE);
    for line in [
        "app_module = \"shop.asgi:application\"",
        "app_root = \"/srv/shop\"",
        "port = 8000",
        "env_file = \".env,local.env\"",
        "pre_start = \"python manage.py migrate\"",
        "restart = \"always\"",
        "stop_timeout = \"20s\"",
        "workers = 3",
        "backpressure = 32",
    ] {
        assert!(found.lines().any(|found| found == line), "{line} in {found}");
    }
    let left = left("docker-compose.yml", COMPOSE);
    assert_eq!(left, ["build", "the variable SECRET_KEY", "the variable DATABASE_URL", "ports", "healthcheck"]);
    assert!(!toml("x", &import("x", COMPOSE.as_bytes(), None).unwrap()).contains("very-secret"));
}

#[test]
fn of_several_docker_compose_services_one_has_to_be_named() {
    let two = "services:\n  a:\n    command: [\"uvicorn\", \"a:app\", \"--port\", \"80\"]\n  b:\n    \
               entrypoint: granian\n    command: --port 81 b:app\n    environment: [\"GRANIAN_WORKERS=2\", HOME]\n    \
               restart: on-failure:3\n";
    assert!(refusal("x.yml", two.as_bytes()).contains("start a server: a, b"));
    let facts = import("x.yml", two.as_bytes(), Some("b")).unwrap();
    let value = |id: &str| facts.taken.iter().find(|taken| taken.id == id).map(|taken| taken.value.as_str());
    assert_eq!(
        [value("app_module"), value("port"), value("granian_workers")],
        [Some("b:app"), Some("81"), Some("2")]
    );
    assert_eq!([value("restart"), value("restart_limit")], [Some("on-failure"), Some("3")]);
}

#[test]
fn a_file_that_repeats_itself_without_end_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        bomb = format!("{bomb}a{level}: &a{level} [{before}]\n");
    }
    bomb.push_str("services:\n  web:\n    command: gunicorn a:a\n");
    assert!(refusal("x.yml", bomb.as_bytes()).contains("too large"));
    let deep = format!("services:\n  web: {}\n", "[".repeat(100_000));
    assert!(refusal("x.yml", deep.as_bytes()).contains("cannot be imported"));
    let own = "services:\n  web: &web\n    command: gunicorn a:a\n    deploy: *web\n";
    assert!(refusal("x.yml", own.as_bytes()).contains("cannot be imported"));
}

#[test]
fn what_cannot_be_imported_says_why() {
    for (name, bytes, part) in [
        ("x", &b"\x7fELF\x02\0"[..], "it is not text"),
        ("x", b"", "none of the kinds that are known"),
        ("x", &vec![b'a'; LONGEST + 1], "more than 1048576 bytes"),
        ("x.conf", b"[program:w]\ncommand=celery worker\n", "no [program:\u{2026}] section of it starts"),
        ("x.conf", b"[program:a]\ncommand=gunicorn a:a\n[program:b]\ncommand=gunicorn b:b\n", "start a server: a, b"),
        ("x.service", b"[Service]\nExecStart=gunicorn a:a\nExecStart=gunicorn b:b\n", "two different things"),
        ("x.service", b"[Service]\nExecStart=gunicorn 'a:a\n", "no ExecStart= of it starts"),
        ("compose.yml", b"services:\n  web:\n    command: [gunicorn, a:a\n", "begins something that is not closed"),
        ("compose.yml", b"services:\n  web:\n    image: nginx\n", "no command: of its services starts"),
        ("compose.yml", b"services:\n", "no command: of its services starts"),
        ("x", b"gunicorn --workers 2\n", "names no application"),
    ] {
        let said = refusal(name, bytes);
        assert!(said.contains(part), "{part} in {said}");
    }
    let two = b"[program:a]\ncommand=gunicorn a:a\n[program:b]\ncommand=gunicorn b:b\n";
    assert_eq!(import("x", two, Some("b")).unwrap().taken[1].value, "b:b");
    assert!(import("x", two, Some("c")).unwrap_err().to_string().ends_with("it has: a, b"));
}

#[test]
fn a_value_that_no_option_takes_is_left_with_what_it_takes() {
    let facts = import("x", b"gunicorn a:a --workers many --bind 0.0.0.0:99999", None).unwrap();
    let whats: Vec<&str> = facts.left.iter().map(|left| left.what.as_str()).collect();
    assert!(whats.contains(&"--workers \"many\"") && whats.contains(&"--bind \"99999\""), "{whats:?}");
}

proptest::proptest! {
    /// Whatever the text: no panic, and a file that is made is read without problems.
    #[test]
    fn any_text_is_imported_or_refused(text in "(\\[program:a\\]|\\[Service\\]|\\[uwsgi\\]|web:|services:\n  web:\n    command: )?[ -~\n=\"'$\\\\]{0,200}") {
        for name in ["Procfile", "x"] {
            if let Ok(facts) = import(name, text.as_bytes(), None) {
                let made = toml(name, &facts);
                let problems = resolved(&made).problems;
                proptest::prop_assert!(problems.iter().all(|problem| !problem.message.contains("TOML")), "{made} {problems:?}");
            }
        }
    }
}
