//! Sockets from systemd: all generations serve them, and they are left as they are.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::harness::ask::ask;
use crate::harness::fake::make_venv;
use crate::harness::http::{Load, answer, get, request};
use crate::harness::{Launch, free_port, has, venv, wait_until};

/// What systemd executes, with the whole environment of the launch.
fn through_systemd(launch: Launch, listen: &[&str]) -> Launch {
    let mut wrapper = vec!["systemd-socket-activate".to_owned()];
    wrapper.extend(listen.iter().flat_map(|address| ["--listen".to_owned(), (*address).to_owned()]));
    let set = launch.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    wrapper.extend(set.flat_map(|(name, value)| ["--setenv".to_owned(), format!("{}={}", text(name), text(value))]));
    launch.through(&wrapper.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_systemd_listens_on_is_served_through_reloads_without_a_lost_request() {
    for class in ["auto", "asgi"] {
        let Some(venv) = venv().filter(|_| has("systemd-socket-activate")) else { return };
        let launch = Launch::app(&venv, "gunicorn", &["--workers", "2", "--worker-class", class]);
        let other = free_port();
        let places = [launch.port, other].map(|port| format!("127.0.0.1:{port}"));
        let mut running = through_systemd(launch, &[&places[0], &places[1]]).start();
        running.wait_log("Listening on");
        // The first client starts it, and waits.
        assert_eq!(get(running.port, "/").unwrap().status, 200, "{}", running.log());
        running.wait_log("ready generation=1");
        assert!(running.log().matches(&format!("address={}", places[0])).count() == 2, "{}", running.log());
        assert_eq!(get(other, "/").unwrap().status, 200);
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            let seen = get(running.port, &format!("/env?name={name}")).unwrap().body;
            assert_eq!(seen, "{\"value\": null}", "{name}");
        }
        assert_eq!(ask(&running, &["status", "--json"]).json()["address"], places[0], "{}", running.log());
        assert_eq!(ask(&running, &["health", "--ready"]).code, Some(0));
        let loads = [running.port, other].map(|port| Load::start(port, "/", 4));
        for generation in ["2", "3"] {
            let reload = ask(&running, &["reload"]);
            assert_eq!(reload.code, Some(0), "{reload:?} {}", running.log());
            running.wait_log(&format!("ready generation={generation}"));
        }
        running.wait_log("gone generation=2");
        loads.into_iter().for_each(Load::assert_nothing_lost);
        let switch = ask(&running, &["reload", "--server", "granian"]);
        assert!(switch.code == Some(1) && switch.problem.contains("Granian cannot serve"), "{switch:?}");
        assert_eq!(running.stop(), 0, "{}", running.log());
        running.assert_nothing_left();
    }
}

/// A socket that the test has as well, as systemd does.
enum Held {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Held {
    fn tcp(port: u16) -> Self {
        Self::Tcp(TcpListener::bind(("127.0.0.1", port)).unwrap())
    }

    fn unix(directory: &Path) -> Self {
        let path = directory.join("app.sock");
        let socket = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o624)).unwrap();
        Self::Unix(socket, path)
    }

    fn copy(&self) -> OwnedFd {
        match self {
            Self::Tcp(socket) => socket.try_clone().unwrap().into(),
            Self::Unix(socket, _) => socket.try_clone().unwrap().into(),
        }
    }

    /// A client that has sent its request; returns how it gets the response.
    fn client(&self) -> Box<dyn FnOnce() -> std::io::Result<String>> {
        match self {
            Self::Tcp(socket) => {
                let mut client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
                request(&mut client, "/");
                Box::new(move || answer(client))
            }
            Self::Unix(_, path) => {
                let mut client = UnixStream::connect(path).unwrap();
                request(&mut client, "/");
                Box::new(move || answer(client))
            }
        }
    }

    fn assert_untouched(&self) {
        if let Self::Unix(_, path) = self {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o624);
        }
    }
}

/// Starts it with a socket as descriptor 3.
fn with_socket(launch: Launch, socket: OwnedFd) -> Launch {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 0</dev/null";
    let mut launch = launch.through(&["sh", "-c", script, "sh"]);
    launch.command.stdin(socket);
    launch
}

#[test]
fn clients_that_come_while_it_is_not_running_wait_in_systemds_socket_for_the_next_one() {
    for (mode, kind) in [("supervise", "tcp"), ("supervise", "unix"), ("exec", "tcp"), ("exec", "unix")] {
        let Some(venv) = venv() else { return };
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let held = if kind == "tcp" { Held::tcp(port) } else { Held::unix(directory.path()) };
        let launch = || {
            let launch = Launch::app(&venv, "gunicorn", &["--workers", "1", "--mode", mode]);
            let launch = launch.env("PORT", port.to_string());
            with_socket(if kind == "tcp" { launch } else { launch.without("HOST").without("PORT") }, held.copy())
        };
        for turn in 0..2 {
            let client = held.client();
            let mut running = launch().start();
            assert_eq!(client().unwrap(), "{}", "{mode} {kind} {turn}: {}", running.log());
            if mode == "supervise" {
                running.wait_log("ready generation=1");
            }
            assert_eq!(running.stop(), 0, "{mode} {kind}: {}", running.log());
            wait_until("all its processes to end", || running.leftovers().is_empty());
            held.assert_untouched();
        }
    }
}

#[test]
fn check_does_not_call_a_socket_that_was_passed_taken() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    for mode in ["supervise", "exec"] {
        let launch = Launch::new(&["check", "--server", "gunicorn", "--mode", mode, "fake:app"]);
        let venv = launch.directory.path().join("venv");
        make_venv(&venv);
        let launch = launch.env("VIRTUAL_ENV", venv).env("PORT", port.to_string());
        let checked = with_socket(launch, held.try_clone().unwrap().into()).finish();
        assert_eq!(checked.code, 0, "{}", checked.log);
        assert!(checked.out.contains(&format!("on 127.0.0.1:{port}")), "{}", checked.out);
    }
}
