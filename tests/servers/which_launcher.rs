//! Several launchers on one machine, and sockets and locks that belong to other users.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::ask::Answer;
use crate::harness::{Launch, PROGRAM, Running, free_port, is_root, skipped};

/// The user `nobody` on most systems.
const STRANGER: u32 = 65534;

fn launch(directory: &Path, host: &str, port: u16) -> Launch {
    Launch::fake("gunicorn", "serve", &[])
        .env("XDG_RUNTIME_DIR", directory)
        .env("HOST", host)
        .env("PORT", port.to_string())
}

fn ready(directory: &Path, host: &str, port: u16) -> Running {
    let mut running = launch(directory, host, port).start();
    running.wait_log("ready generation=");
    running
}

/// A command from a shell whose environment contains only the directory of the sockets.
fn command(directory: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("XDG_RUNTIME_DIR", directory).output().unwrap().into()
}

/// The output of `check` for what [`launch`] would run.
fn check(directory: &Path, host: &str, port: u16) -> i32 {
    let launch = launch(directory, host, port);
    let mut command = Command::new(PROGRAM);
    command.arg("check").args(launch.command.get_args()).env_clear();
    command.envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap().status.code().unwrap()
}

/// A world-writable directory, like `/tmp`.
fn shared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    directory
}

/// A process of another user; killed at the end.
struct Stranger(Child);

impl Stranger {
    fn start(script: &str, path: &Path) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.uid(STRANGER).gid(STRANGER).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers every request with every possible answer of a launcher.
const EVIL: &str = r"
import json, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
print('there', flush=True)
answers = {
    'reload': {'reloaded': {'generation': 666, 'server': 'evil', 'workers': 1}},
    'ready': {'ready': {'ready': True, 'phase': 'evil'}},
    'live': {'preparing': {'phase': 'evil'}},
}
while True:
    client, _ = listener.accept()
    try:
        line = client.makefile().readline()
        answer = answers.get(json.loads(line)['request']) if line else None
        if answer:
            client.sendall(json.dumps(answer).encode() + b'\n')
    except OSError:
        pass
    client.close()
";

#[test]
fn a_strangers_socket_is_not_believed() {
    if !is_root() {
        skipped("only root can be two users");
        return;
    }
    let (directory, port) = (shared(), free_port());
    let path = directory.path().join(format!("mcp-launch-127.0.0.1-{port}.sock"));
    let _stranger = Stranger::start(EVIL, &path);
    let port_text = port.to_string();
    let named = ["--socket", path.to_str().unwrap()];
    for arguments in [["health", "--ready"], ["health", "--live"], ["reload", "--timeout=5"], ["status", "--json"]] {
        for way in [&["--port", &port_text][..], &["--host", "127.0.0.1", "--port", &port_text], &[], &named] {
            let answer = command(directory.path(), &[&arguments[..], way].concat());
            assert_eq!(answer.code, Some(3), "{arguments:?} {way:?}: {answer:?}");
            assert!(!answer.out.contains("evil") && answer.problem.contains("user 65534"), "{answer:?}");
        }
    }
    // Ours is found all the same, wherever its socket is.
    let mut own = ready(directory.path(), "127.0.0.1", port);
    let status = command(directory.path(), &["status", "--json", "--port", &port_text]).json();
    assert_eq!(status["launcher"]["pid"], own.pid().as_raw());
    assert_eq!(own.stop(), 0);
}

#[test]
fn a_strangers_link_to_a_socket_of_ours_is_not_followed() {
    let (directory, port) = (shared(), free_port());
    let target = directory.path().join("somebody.sock");
    let listener = UnixListener::bind(&target).unwrap();
    listener.set_nonblocking(true).unwrap();
    symlink(&target, directory.path().join(format!("mcp-launch-127.0.0.1-{port}.sock"))).unwrap();
    assert_eq!(command(directory.path(), &["reload", "--port", &port.to_string()]).code, Some(3));
    assert!(listener.accept().is_err(), "another program was asked to reload");
}

#[test]
fn what_is_named_is_meant_and_nothing_else() {
    let directory = shared();
    let port = free_port();
    let mut other = ready(directory.path(), "127.0.0.1", port);
    let nobody = free_port().to_string();
    for arguments in [["health", "--port"], ["status", "--port"], ["reload", "--port"]] {
        let answer = command(directory.path(), &[&arguments[..], &[&nobody]].concat());
        assert_eq!(answer.code, Some(3), "{answer:?}");
        assert!(answer.problem.contains(&format!("127.0.0.1:{port}")), "{answer:?}");
    }
    let uds = directory.path().join("app.sock");
    assert_eq!(command(directory.path(), &["health", "--uds", uds.to_str().unwrap()]).code, Some(3));
    assert_eq!(command(directory.path(), &["health", "--socket", uds.to_str().unwrap()]).code, Some(3));
    assert_eq!(other.stop(), 0);
}

/// The commands find this launcher in a directory with this Gunicorn configuration file.
#[track_caller]
fn assert_meant(meant: &Running, directory: &Path, env: &[(&str, &str)], file: &str) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("gunicorn.conf.py"), file).unwrap();
    for arguments in [&["status", "--json"][..], &["health"], &["reload", "--timeout=20"]] {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().env("XDG_RUNTIME_DIR", directory).current_dir(home.path());
        let answer = Answer::from(command.envs(env.iter().copied()).output().unwrap());
        assert_eq!(answer.code, Some(0), "{arguments:?} {env:?} {file:?}: {answer:?}");
        if arguments[0] == "status" {
            assert_eq!(answer.json()["launcher"]["pid"], meant.pid().as_raw(), "{env:?} {file:?}");
        }
    }
}

#[test]
fn the_address_is_named_by_all_that_names_it_for_run() {
    let directory = shared();
    let (port, uds) = (free_port(), directory.path().join("app.sock"));
    let mut tcp = ready(directory.path(), "127.0.0.1", port);
    let mut unix = launch(directory.path(), "127.0.0.1", port).env("MCP_LAUNCH_UDS", &uds).start();
    unix.wait_log("ready generation=");
    let mut other = ready(directory.path(), "127.0.0.1", free_port());

    let (address, uds) = (format!("127.0.0.1:{port}"), format!("unix:{}", uds.display()));
    let port = port.to_string();
    let granian = [("HTTP_SERVER", "granian"), ("GRANIAN_HOST", "127.0.0.1"), ("GRANIAN_PORT", &port)];
    assert_meant(&tcp, directory.path(), &granian, "");
    let file = |bind: &str| format!("workers = 2\nbind = {bind:?}\n");
    let elsewhere = file("127.0.0.1:1");
    for (launcher, bind) in [(&tcp, &address), (&unix, &uds)] {
        let arguments = format!("--workers 2 --bind {bind}");
        assert_meant(launcher, directory.path(), &[("GUNICORN_CMD_ARGS", &arguments)], &elsewhere);
        assert_meant(launcher, directory.path(), &[], &file(bind));
    }
    assert_meant(&tcp, directory.path(), &[("PORT", &port)], &elsewhere);
    assert_eq!((tcp.stop(), unix.stop(), other.stop()), (0, 0, 0));
}

#[test]
fn two_addresses_of_one_port_are_two_instances() {
    let (directory, port) = (shared(), free_port());
    let text = port.to_string();
    let mut first = ready(directory.path(), "127.0.0.1", port);
    assert_eq!(check(directory.path(), "127.0.0.1", port), 0, "next to its own launcher");
    assert_eq!(check(directory.path(), "127.0.0.2", port), 0);
    assert_eq!(check(directory.path(), "0.0.0.0", port), 75);
    assert_eq!(launch(directory.path(), "0.0.0.0", port).finish().code, 75);
    let mut second = ready(directory.path(), "127.0.0.2", port);

    let both = command(directory.path(), &["status", "--json", "--port", &text]);
    assert_eq!(both.code, Some(3), "{both:?}");
    for address in ["127.0.0.1", "127.0.0.2"] {
        assert!(both.problem.contains(&format!("{address}:{port}")), "{both:?}");
    }
    for (running, host) in [(&first, "127.0.0.1"), (&second, "127.0.0.2")] {
        let status = command(directory.path(), &["status", "--json", "--port", &text, "--host", host]).json();
        assert_eq!(status["launcher"]["pid"], running.pid().as_raw());
    }
    assert_eq!(first.stop(), 0);
    let status = command(directory.path(), &["status", "--json", "--port", &text]).json();
    assert_eq!(status["launcher"]["pid"], second.pid().as_raw());
    assert_eq!(second.stop(), 0);

    let mut all = ready(directory.path(), "0.0.0.0", port);
    let finished = launch(directory.path(), "127.0.0.1", port).finish();
    assert_eq!(finished.code, 75, "{}", finished.log);
    assert!(
        finished.log.contains(&format!("process {}, which serves 0.0.0.0:{port},", all.pid())),
        "{}",
        finished.log
    );
    assert_eq!(check(directory.path(), "127.0.0.1", port), 75);
    let status = command(directory.path(), &["status", "--json", "--port", &text, "--host", "127.0.0.1"]).json();
    assert_eq!(status["launcher"]["pid"], all.pid().as_raw(), "it serves that address");
    assert_eq!(all.stop(), 0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn ipv6_and_ipv4_loopback_are_two_instances() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skipped("there is no IPv6 here");
        return;
    }
    let (directory, port) = (shared(), free_port());
    let mut four = ready(directory.path(), "127.0.0.1", port);
    let mut six = ready(directory.path(), "::1", port);
    assert_eq!((four.stop(), six.stop()), (0, 0));
}

/// Creates something at a path.
type Obstacle = fn(&Path) -> Option<Stranger>;

/// Holds a lock.
const HOLD: &str = "import fcntl, sys\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n\
    print('there', flush=True)\nsys.stdin.read()";

#[test]
fn what_strangers_put_in_the_way_of_the_lock_does_not_keep_us_from_starting() {
    let lock = |directory: &Path, port: u16| directory.join(format!("mcp-launch-127.0.0.1-{port}.lock"));
    let mut obstacles: Vec<(&str, Obstacle)> = vec![
        ("not a regular file", |path| fs::create_dir(path).map(|()| None).unwrap()),
        ("not a regular file", |path| symlink("/dev/null", path).map(|()| None).unwrap()),
    ];
    if is_root() {
        obstacles.push(("belongs to user 65534", |path| Some(Stranger::start(HOLD, path))));
    } else {
        skipped("only root can be two users");
    }
    for (why, obstacle) in obstacles {
        let (directory, port) = (shared(), free_port());
        let _stranger = obstacle(&lock(directory.path(), port));
        assert_eq!(check(directory.path(), "127.0.0.1", port), 0, "{why}");
        let mut running = ready(directory.path(), "127.0.0.1", port);
        assert!(running.log().contains(why), "{}", running.log());
        assert_eq!(running.stop(), 0);
        assert!(fs::symlink_metadata(lock(directory.path(), port)).is_ok(), "files of other users are not removed");
    }
}

#[test]
fn a_launcher_that_never_answers_is_not_waited_for() {
    let (directory, port) = (shared(), free_port());
    let _silent = UnixListener::bind(directory.path().join(format!("mcp-launch-127.0.0.1-{port}.sock"))).unwrap();
    let port = port.to_string();
    for (arguments, most) in [
        (&["health", "--timeout", "500ms"][..], 3),
        (&["reload"], 10),
        (&["status"], 10),
        (&["explain", "--running"], 10),
    ] {
        let start = Instant::now();
        let answer = command(directory.path(), &[arguments, &["--port", &port]].concat());
        assert!(start.elapsed() < Duration::from_secs(most), "{arguments:?} took {:?}", start.elapsed());
        assert!(answer.code == Some(1) && answer.problem.contains("in time"), "{answer:?}");
    }
}
