//! The user's Gunicorn configuration file, with the real Gunicorn.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::harness::ask::ask;
use crate::harness::http::get;
use crate::harness::{Launch, Running, free_port, venv, wait_until};
use nix::sys::signal::{Signal, kill};

const READY: &str = "ready generation=1";

/// With this file where Gunicorn finds it. Address and port are not set, so that those in the file apply.
fn launch(file: &str, arguments: &[&str]) -> Option<Launch> {
    let launch = Launch::app(&venv()?, "gunicorn", arguments).without("HOST").without("PORT");
    write(&launch, "gunicorn.conf.py", file);
    Some(launch.env("MCP_LAUNCH_CPUS", "1"))
}

fn write(launch: &Launch, name: &str, text: &str) {
    std::fs::write(launch.directory.path().join(name), text).unwrap();
}

fn ready(launch: Launch) -> Running {
    let mut running = launch.start();
    running.wait_log(READY);
    running
}

fn ask_unix(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_address_in_the_file_is_served() {
    let port = free_port();
    let Some(launch) = launch(&format!("bind = '127.0.0.1:{port}'\n"), &[]) else { return };
    let mut running = ready(launch);
    assert_eq!(get(port, "/health").unwrap().status, 200);
    assert!(running.log().contains(&format!("address=127.0.0.1:{port}")), "{}", running.log());
    assert!(std::net::TcpStream::connect(("127.0.0.1", 4444)).is_err(), "the default address was not requested");
    assert_eq!(running.stop(), 0);
}

#[test]
fn no_reload_changes_the_address() {
    let (port, other) = (free_port(), free_port());
    let file = |port: u16| format!("bind = '127.0.0.1:{port}'\n");
    let Some(launch) = launch(&file(port), &[]) else { return };
    let mut running = ready(launch);
    let socket = running.directory.path().join(format!("mcp-launch-127.0.0.1-{port}.sock"));
    let reload = |server: &str| {
        let arguments = ["reload", "--socket", socket.to_str().unwrap(), "--server", server];
        let answer = ask(&running, &arguments);
        assert_eq!(answer.code, Some(0), "{answer:?}\n{}", running.log());
        assert_eq!(get(port, "/health").unwrap().status, 200);
    };
    // Granian does not read Gunicorn's file.
    reload("granian");
    std::fs::write(running.directory.path().join("gunicorn.conf.py"), file(other)).unwrap();
    reload("gunicorn");
    assert!(std::net::TcpStream::connect(("127.0.0.1", other)).is_err());
    let warning = format!("127.0.0.1:{other} is not served: a reload keeps the address, 127.0.0.1:{port}");
    assert!(running.log().contains(&warning), "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn several_addresses_are_all_served_before_and_after_a_reload() {
    let (one, other) = (free_port(), free_port());
    let file = format!("bind = ['127.0.0.1:{one}', '127.0.0.1:{other}', 'unix:further.sock']\n");
    let Some(launch) = launch(&file, &[]) else { return };
    let socket = launch.directory.path().join("further.sock");
    let mut running = ready(launch);
    for generation in 1..=2 {
        for port in [one, other, one, other] {
            assert_eq!(get(port, "/health").unwrap().status, 200, "generation {generation}");
        }
        assert!(ask_unix(&socket).starts_with("HTTP/1.1 200"));
        if generation == 1 {
            running.signal(nix::sys::signal::Signal::SIGHUP);
            running.wait_log("ready generation=2");
        }
    }
    assert_eq!(running.stop(), 0);
    assert!(!socket.exists());
}

#[test]
fn what_hooks_and_log_see_is_the_public_address() {
    let port = free_port();
    let file = format!(
        "bind = '127.0.0.1:{port}'\n\
         def say(where, server):\n    print('SEEN', where, server.address, server.cfg.bind, flush=True)\n    \
         print('FORMATTED', '{{}}:{{}}'.format(*server.address[0]), flush=True)\n\
         def on_starting(server):\n    say('on_starting', server)\n\
         def when_ready(server):\n    say('when_ready', server)\n    \
         print('LISTENERS', [str(one) for one in server.LISTENERS], flush=True)\n\
         def post_fork(server, worker):\n    print('SOCKETS', [str(one) for one in worker.sockets], flush=True)\n"
    );
    for guard in ["on", "off"] {
        let Some(launch) = launch(&file, &[]) else { return };
        let mut running = ready(launch.env("MCP_LAUNCH_GUARD", guard));
        let (out, log) = (running.out(), running.log());
        for hook in ["on_starting", "when_ready"] {
            let wanted = format!("SEEN {hook} [('127.0.0.1', {port})] ['127.0.0.1:{port}']");
            assert!(out.contains(&wanted), "{wanted} in {out}\n{log}");
        }
        for wanted in ["FORMATTED 127.0.0.1:", "LISTENERS ['http://127.0.0.1:", "SOCKETS ['http://127.0.0.1:"] {
            assert!(out.contains(&format!("{wanted}{port}")), "{wanted} in {out}");
        }
        assert!(!out.contains("', 'http://"), "{out}");
        assert!(log.contains(&format!("Listening at: http://127.0.0.1:{port} (")), "{log}");
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn a_certificate_in_the_file_is_served_and_ready() {
    for certfile in ["'c.pem'", "'c' + '.pem'"] {
        let port = free_port();
        let file = format!("bind = '127.0.0.1:{port}'\ncertfile = {certfile}\nkeyfile = 'k.pem'\n");
        let Some(launch) = launch(&file, &[]) else { return };
        let key = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout k.pem -out c.pem";
        let made = std::process::Command::new("openssl")
            .args(key.split(' '))
            .current_dir(launch.directory.path())
            .output()
            .unwrap();
        assert!(made.status.success());
        let mut running = ready(launch.env("MCP_LAUNCH_STARTUP_TIMEOUT", "15"));
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn a_unix_socket_has_the_mode_that_gunicorn_would_give_it() {
    for (file, wanted) in [("", 0o777), ("umask = 0o007\n", 0o770), ("umask = int('27', 8)\n", 0o750)] {
        let file = format!("bind = 'unix:app.sock'\n{file}");
        let Some(launch) = launch(&file, &[]) else { return };
        let socket = launch.directory.path().join("app.sock");
        let mut running = ready(launch);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{file}: {mode:o}");
        assert!(ask_unix(&socket).starts_with("HTTP/1.1 200"));
        running.signal(nix::sys::signal::Signal::SIGHUP);
        running.wait_log("ready generation=2");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "after a reload, {file}: {mode:o}");
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn the_mode_of_a_unix_socket_can_be_set_in_either_mode() {
    for mode in ["supervise", "exec"] {
        let Some(launch) = launch("bind = 'unix:app.sock'\numask = 0o077\n", &[]) else { return };
        let socket = launch.directory.path().join("app.sock");
        let mut running = launch.env("MCP_LAUNCH_UDS_PERMISSIONS", "0660").env("MCP_LAUNCH_MODE", mode).start();
        running.wait_log("Booting worker");
        wait_until("the mode", || {
            std::fs::metadata(&socket).is_ok_and(|found| found.permissions().mode() & 0o777 == 0o660)
        });
        running.stop();
    }
}

#[test]
fn repeated_addresses_of_the_command_line_are_all_served() {
    let (one, other) = (free_port(), free_port());
    let arguments = [format!("127.0.0.1:{one}"), format!("127.0.0.1:{other}")];
    let Some(launch) = launch("", &["-b", &arguments[0], "--bind", &arguments[1]]) else { return };
    let mut running = ready(launch);
    for port in [one, other] {
        assert_eq!(get(port, "/health").unwrap().status, 200);
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn the_gateway_preloaded_with_a_file_of_its_own_gets_the_renewals_that_it_lacks() {
    let port = free_port();
    let file = format!(
        "bind = '127.0.0.1:{port}'\nworkers = 3\npreload_app = True\nreuse_port = True\n\
         def post_fork(server, worker):\n    server.log.info('renewals of the file')\n"
    );
    let Some(venv) = venv() else { return };
    let launch = Launch::new(&[]).without("HOST").without("PORT").env("VIRTUAL_ENV", &venv);
    write(&launch, "gunicorn.config.py", &file);
    let database = format!("sqlite:///{}/mcp.db", launch.directory.path().display());
    let secret = "a-key-of-32-characters-for-tests-0123456789";
    let env = [("JWT_SECRET_KEY", secret), ("AUTH_ENCRYPTION_SECRET", secret), ("DATABASE_URL", &database)];
    let launch = env.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
    let mut running = ready(launch.env("OBSERVABILITY_ENABLED", "true").env("MCP_LAUNCH_CPUS", "1"));
    let log = running.log();
    for wanted in [
        "renewals of the file",
        "database pool, Redis client, worker ids, instance ids, span writer",
        "workers = 3 (from file ",
        "key reuse_port, line 4) is ignored",
    ] {
        assert!(log.contains(wanted), "{wanted} in {log}");
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_reload_is_distinguished_from_a_start() {
    let port = free_port();
    let file = format!(
        "bind = '127.0.0.1:{port}'\n\
         def on_starting(server):\n    print('STARTING', flush=True)\n\
         def on_reload(server):\n    print('RELOADING', flush=True)\n"
    );
    let Some(launch) = launch(&file, &[]) else { return };
    let mut running = ready(launch);
    assert_eq!(running.out().lines().collect::<Vec<_>>(), ["STARTING"]);
    running.signal(nix::sys::signal::Signal::SIGHUP);
    running.wait_log("ready generation=2");
    assert_eq!(running.out().lines().collect::<Vec<_>>(), ["STARTING", "RELOADING", "STARTING"]);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_variable_that_the_file_reads_is_no_mistake() {
    let file = "import os\nworkers = int(os.environ.get('GUNICORN_PROCESSES', '1'))\n";
    let Some(launch) = launch(file, &["check"]) else { return };
    let checked = launch.env("GUNICORN_PROCESSES", "2").env("GUNICORN_OTHER", "2").finish();
    let said = format!("{}{}", checked.out, checked.log);
    assert!(!said.contains("GUNICORN_PROCESSES is set") && said.contains("GUNICORN_OTHER is set"), "{said}");
}

#[test]
fn the_app_and_its_directory_are_those_of_the_file() {
    let port = free_port();
    let file = format!("bind = '127.0.0.1:{port}'\nwsgi_app = 'site_of_mine'\nchdir = 'backend'\n");
    let Some(venv) = venv() else { return };
    let launch =
        Launch::new(&[]).without("HOST").without("PORT").env("VIRTUAL_ENV", &venv).env("MCP_LAUNCH_CPUS", "1");
    write(&launch, "gunicorn.conf.py", &file);
    std::fs::create_dir(launch.directory.path().join("backend")).unwrap();
    let answer = |text: &str| {
        format!(
            "async def {text}(scope, receive, send):\n    \
             await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n    \
             await send({{'type': 'http.response.body', 'body': b'{text}'}})\n"
        )
    };
    write(&launch, "backend/site_of_mine.py", &format!("{}{}", answer("app"), answer("application")));
    let mut running = ready(launch);
    assert_eq!(get(port, "/").unwrap().body, "application");
    let log = running.log();
    assert!(log.contains("has both application and app") && !log.contains("was not found"), "{log}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_computed_grace_is_reduced_with_a_message() {
    let port = free_port();
    let file = format!("bind = '127.0.0.1:{port}'\ngraceful_timeout = 60 * 2\npreload_app = reload = bool(1)\n");
    let Some(launch) = launch(&file, &[]) else { return };
    let mut running = ready(launch);
    let log = running.log();
    assert!(log.contains("graceful_timeout = 120 in the configuration file exceeds the stop budget"), "{log}");
    assert_eq!(running.stop(), 0);
}

/// A metrics server in the main process, as in many projects: a second generation cannot have its port.
fn hook_that_binds(port: u16) -> String {
    format!(
        "import socket\ndef when_ready(server):\n    global kept\n    kept = socket.socket()\n    \
         kept.bind(('127.0.0.1', {port}))\n    kept.listen()\n"
    )
}

#[test]
fn workers_that_serve_are_kept_although_no_successor_of_their_main_process_can_start() {
    let Some(launch) = launch(&hook_that_binds(free_port()), &["--restart-limit", "2", "--backoff-max", "500ms"])
    else {
        return;
    };
    let port = launch.port;
    let mut running = ready(launch.env("HOST", "127.0.0.1").env("PORT", port.to_string()));
    running.signal(Signal::SIGHUP);
    running.wait_log("the old generation was kept");
    assert_eq!(get(port, "/health").unwrap().status, 200);
    // The workers have inherited the socket of the hook, too.
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    running.wait_log("its workers keep serving");
    running.wait_log_count("server exit", 5);
    assert_eq!(get(port, "/health").unwrap().status, 200, "{}", running.log());
    running.stop();
    running.assert_nothing_left();
}

#[test]
fn a_release_whose_workers_die_soon_after_they_are_ready_is_a_failed_reload() {
    let Some(launch) = launch("", &[]) else { return };
    let port = launch.port;
    let mut running = ready(launch.env("HOST", "127.0.0.1").env("PORT", port.to_string()));
    // The launcher watches a new release for a second after it is ready, and Gunicorn needs some of it to end.
    let file = "import os, threading\ndef post_worker_init(worker):\n    \
                threading.Timer(0.2, os._exit, [4]).start()\n";
    std::fs::write(running.directory.path().join("gunicorn.conf.py"), file).unwrap();
    let answer = ask(&running, &["reload"]);
    assert_eq!(answer.code, Some(1), "{answer:?}\n{}", running.log());
    for _ in 0..20 {
        assert_eq!(get(port, "/health").unwrap().status, 200, "{}", running.log());
    }
    assert_eq!(running.stop(), 0);
}
