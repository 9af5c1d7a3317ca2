//! Where a server can be reached: where it was told to listen, and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::harness::http::get;
use crate::harness::{Launch, Running, tests_directory, venv};

const WSGI: &str = "def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

/// The inodes of the sockets that the server's processes have.
fn sockets(running: &Running) -> BTreeSet<u64> {
    let links = |pid: &nix::unistd::Pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
    };
    let links = running.descendants().iter().flat_map(links).collect::<Vec<_>>();
    let inode = |link: &std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.iter().filter_map(inode).collect()
}

/// Where the server's processes listen: `port NUMBER`, or what a Unix socket is called.
fn places(running: &Running) -> BTreeSet<String> {
    let own = sockets(running);
    let rows = |table: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        text.lines().skip(1).map(|line| line.split_ascii_whitespace().map(str::to_owned).collect()).collect()
    };
    let is_own = |inode: &str| inode.parse().is_ok_and(|inode| own.contains(&inode));
    let tcp = ["tcp", "tcp6"].into_iter().flat_map(rows).filter(|row| row[3] == "0A" && is_own(&row[9]));
    let port = |row: Vec<String>| {
        let (_, port) = row[1].rsplit_once(':').unwrap();
        format!("port {}", u16::from_str_radix(port, 16).unwrap())
    };
    // Flags: it accepts connections.
    let unix = rows("unix").into_iter().filter(|row| row[3] == "00010000" && is_own(&row[6]));
    tcp.map(port).chain(unix.map(|row| row.get(7).cloned().unwrap_or_default())).collect()
}

/// Those of them where somebody else could connect.
fn reachable(running: &Running) -> BTreeSet<String> {
    let can_connect =
        |place: &String| place.starts_with("port ") || place.starts_with('@') || UnixStream::connect(place).is_ok();
    places(running).into_iter().filter(can_connect).collect()
}

fn launch(arguments: &[&str]) -> Option<Launch> {
    Some(Launch::app(&venv()?, "gunicorn", &[&["--workers", "2"], arguments].concat()))
}

#[test]
fn with_the_guard_gunicorn_listens_where_clients_go_and_has_no_other_socket() {
    for class in ["auto", "asgi"] {
        let Some(launch) = launch(&["--worker-class", class]) else { return };
        let mut running = launch.start();
        running.wait_log("ready generation=1");
        let public = BTreeSet::from([format!("port {}", running.port)]);
        assert_eq!(places(&running), public, "{class}");
        running.signal(Signal::SIGHUP);
        running.wait_log("gone generation=1");
        assert_eq!(places(&running), public, "{class}, after a reload");
        assert_eq!(get(running.port, "/health").unwrap().status, 200);
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn the_socket_for_probes_cannot_be_reached_by_others() {
    for (class, guard) in [("auto", "off"), ("asgi", "off"), ("sync", "on"), ("gthread", "on")] {
        let Some(launch) = launch(&["--worker-class", class]) else { return };
        let launch = if guard == "on" {
            fs::write(launch.directory.path().join("wsgi_app.py"), WSGI).unwrap();
            launch.replacing_argument("hello:app", "wsgi_app:app")
        } else {
            launch
        };
        let mut running = launch.env("MCP_LAUNCH_GUARD", guard).start();
        running.wait_log("ready generation=1");
        let public = BTreeSet::from([format!("port {}", running.port)]);
        assert_eq!(reachable(&running), public, "{class}: {:?}", places(&running));
        running.signal(Signal::SIGHUP);
        running.wait_log("gone generation=1");
        assert_eq!(reachable(&running), public, "{class}: {:?}", places(&running));
        assert_eq!(get(running.port, "/health").unwrap().status, 200);
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn a_unix_socket_in_a_private_directory_is_the_only_way_to_gunicorn() {
    for guard in ["on", "off"] {
        let Some(launch) = launch(&[]) else { return };
        let path = launch.directory.path().join("app.sock");
        let mut running = launch.env("MCP_LAUNCH_UDS", &path).env("MCP_LAUNCH_GUARD", guard).start();
        running.wait_log("ready generation=1");
        let public = BTreeSet::from([path.to_str().unwrap().to_owned()]);
        assert_eq!(reachable(&running), public, "guard {guard}: {:?}", places(&running));
        running.signal(Signal::SIGHUP);
        running.wait_log("gone generation=1");
        UnixStream::connect(&path).unwrap();
        assert!(places(&running).iter().all(|place| !place.starts_with("port ")), "{:?}", places(&running));
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

/// Without the guard, a request tells whether the new generation works: it must not be answered by the old one.
#[test]
fn without_the_guard_a_release_whose_health_path_fails_does_not_take_over() {
    let Some(venv) = venv() else { return };
    // One worker: a second one of the first generation may import the app when its file has been changed already.
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "1", "--startup-timeout", "3s"]);
    let app = launch.directory.path().join("release.py");
    let original = fs::read_to_string(tests_directory("apps").join("hello.py")).unwrap();
    fs::write(&app, &original).unwrap();
    let mut launch = launch.replacing_argument("hello:app", "release:app").env("MCP_LAUNCH_GUARD", "off");
    launch.command.env("PYTHONPATH", launch.directory.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut running = launch.start();
    running.wait_log("ready generation=1");
    fs::write(&app, original.replace("\"status\": 200", "\"status\": 500")).unwrap();
    running.signal(Signal::SIGHUP);
    running.wait_log("reload failed, the old generation was kept");
    // Until it has ended, it accepts clients from the same socket.
    running.wait_log("gone generation=2");
    assert_eq!(get(running.port, "/health").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The access log and everything else that is written from a start to a reload and a request after it.
fn logged_until_after_a_reload(launch: Launch) -> String {
    let mut running = launch.env("DISABLE_ACCESS_LOG", "false").start();
    running.wait_log("ready generation=1");
    running.signal(Signal::SIGHUP);
    running.wait_log("gone generation=1");
    get(running.port, "/asked").unwrap();
    let both = |running: &Running| running.log() + &running.out();
    crate::harness::wait_until("the access log", || both(&running).contains("/asked"));
    let text = both(&running);
    assert_eq!(running.stop(), 0, "{}", running.log());
    text
}

#[test]
fn no_request_of_ours_is_in_the_access_log() {
    for (server, more) in [("gunicorn", "auto"), ("gunicorn", "asgi"), ("granian", "auto")] {
        let Some(venv) = venv() else { return };
        let launch = Launch::app(&venv, server, &["--workers", "2"]).env("GUNICORN_WORKER_CLASS", more);
        let text = logged_until_after_a_reload(launch);
        assert!(!text.contains("/health"), "{server}: {text}");
    }
}

/// Granian's public address is asked only if no other generation can answer there.
#[test]
fn without_the_guard_granian_gets_one_request_at_a_start_and_none_at_a_reload() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "granian", &["--workers", "2"]).env("MCP_LAUNCH_GUARD", "off");
    let text = logged_until_after_a_reload(launch);
    assert_eq!(text.matches("GET /health").count(), 1, "{text}");
}
