//! The guard inside real servers: no more requests at a time than there is capacity for, and a 503 at once for the
//! others; whatever form the app has, and however requests end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::http::{Connection, UPGRADE, get, open_stream};
use crate::harness::{
    self, Launch, Running, children, is_alive, take_turn, tests_directory, venv, wait_for, wait_until,
};
use mcp_launch::guard::scoreboard::{MAGIC, SLOT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Requests that a worker may have in flight, in these tests.
const LIMIT: u32 = 4;

/// A launch of `tests/apps/overload.py`, its gate, and how it is started by a server: `gunicorn`, `granian`, or
/// `asgi`, which is Gunicorn with its own worker class.
pub fn launch(server: &str, app: &str, arguments: &[&str]) -> Option<(Launch, PathBuf)> {
    let venv = venv()?;
    let mut launch = Launch::new(arguments);
    let gate = launch.directory.path().join("gate");
    let class: &[&str] = if server == "asgi" { &["--worker-class", "asgi"] } else { &[] };
    let server = if server == "asgi" { "gunicorn" } else { server };
    launch
        .command
        .args(["--server", server])
        .args(class)
        .arg(app)
        .env("VIRTUAL_ENV", venv)
        .env("PYTHONPATH", tests_directory("apps"))
        .env("MCP_LAUNCH_CPUS", "2")
        .env("GATE", &gate)
        .env("GUNICORN_BACKPRESSURE", LIMIT.to_string())
        .env("GRANIAN_BACKPRESSURE", LIMIT.to_string());
    Some((launch, gate))
}

/// One that is ready.
pub fn start(server: &str, arguments: &[&str]) -> Option<(Running, PathBuf)> {
    let (launch, gate) = launch(server, "overload:app", arguments)?;
    let mut running = launch.start();
    running.wait_log(" ready ");
    Some((running, gate))
}

/// Requests that are sent together, each on a connection of its own.
struct Volley {
    answers: Arc<Mutex<Vec<(u16, Duration)>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Volley {
    fn fire(port: u16, path: &str, count: u32) -> Self {
        let answers = Arc::<Mutex<Vec<_>>>::default();
        let clients = (0..count).map(|_| {
            let (answers, path) = (Arc::clone(&answers), path.to_owned());
            std::thread::spawn(move || {
                let mut connection = Connection::open(port).unwrap();
                let start = Instant::now();
                let answer = connection.get(&path, "Connection: close\r\n").unwrap();
                if answer.status == 503 {
                    assert_eq!((answer.header("retry-after"), answer.body.lines().count()), (Some("1"), 1));
                }
                answers.lock().unwrap().push((answer.status, start.elapsed()));
            })
        });
        Self { clients: clients.collect(), answers }
    }

    /// How many have this answer so far.
    fn count(&self, status: u16) -> usize {
        self.answers.lock().unwrap().iter().filter(|answer| answer.0 == status).count()
    }

    /// All answers.
    fn finish(self) -> Vec<(u16, Duration)> {
        for client in self.clients {
            client.join().unwrap();
        }
        Arc::into_inner(self.answers).unwrap().into_inner().unwrap()
    }
}

/// What a worker says of itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Slot {
    pid: u32,
    in_flight: u32,
    high_water: u32,
    streams: u32,
    rejected: u64,
}

/// The slots that were ever taken, as the launcher can read them.
fn board(running: &Running) -> Vec<Slot> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().flatten();
    let is_board =
        |path: &PathBuf| std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("scoreboard"));
    let path = entries.map(|entry| entry.path()).find(is_board).expect("the launcher has a scoreboard");
    let file = std::fs::File::open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..8], MAGIC);
    let slots = u32::from_ne_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let slot = |line: &[u8]| {
        let word = |at: usize| u32::from_ne_bytes(line[at..at + 4].try_into().unwrap());
        let rejected = u64::from_ne_bytes(line[40..48].try_into().unwrap());
        Slot { pid: word(0), in_flight: word(24), high_water: word(28), streams: word(56), rejected }
    };
    bytes[SLOT..SLOT * (slots + 1)].chunks(SLOT).map(slot).filter(|slot| slot.pid != 0).collect()
}

pub fn in_flight(running: &Running) -> u32 {
    board(running).iter().map(|slot| slot.in_flight).sum()
}

pub fn streams(running: &Running) -> u32 {
    board(running).iter().map(|slot| slot.streams).sum()
}

fn exactly_the_excess_is_refused_at_once_and_the_capacity_comes_back(server: &str) {
    const EXCESS: usize = 3;
    let Some((mut running, gate)) = start(server, &["--workers", "1"]) else { return };
    for _ in 0..2 {
        let volley = Volley::fire(running.port, "/wait", LIMIT + u32::try_from(EXCESS).unwrap());
        wait_until("the excess to be refused", || volley.count(503) == EXCESS);
        wait_until("the others to be inside", || in_flight(&running) == LIMIT);
        // While it is saturated, the answer is immediate.
        let refused = Volley::fire(running.port, "/", 5).finish();
        assert!(refused.iter().all(|(status, took)| *status == 503 && *took < Duration::from_secs(2)), "{refused:?}");
        std::fs::write(&gate, "").unwrap();
        let answers = volley.finish();
        assert_eq!(answers.iter().filter(|answer| answer.0 == 200).count(), LIMIT as usize, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.0 == 503).count(), EXCESS, "{answers:?}");
        wait_until("all to be outside", || in_flight(&running) == 0);
        std::fs::remove_file(&gate).unwrap();
    }
    let slot = board(&running)[0];
    assert_eq!((slot.high_water, slot.rejected), (LIMIT, 16));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn two_workers_never_have_more_in_flight_than_their_capacity(server: &str) {
    let Some((mut running, gate)) = start(server, &["--workers", "2"]) else { return };
    let volley = Volley::fire(running.port, "/wait", 4 * LIMIT);
    wait_until("everybody to be inside or refused", || {
        volley.count(503) + in_flight(&running) as usize == 4 * LIMIT as usize
    });
    assert_eq!(volley.count(503), 2 * LIMIT as usize);
    std::fs::write(&gate, "").unwrap();
    let answers = volley.finish();
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.0)), "{answers:?}");
    // One may have more than its own part, when clients are spread unevenly, and never more than twice that.
    assert!(board(&running).iter().all(|slot| slot.high_water <= 2 * LIMIT), "{:?}", board(&running));
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn idle_connections_keep_nobody_out(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "1"]) else { return };
    let mut idle: Vec<Connection> = (0..3 * LIMIT).map(|_| Connection::open(running.port).unwrap()).collect();
    for connection in &mut idle {
        assert_eq!(connection.get("/", "").unwrap().status, 200);
    }
    for path in ["/", "/health"] {
        assert_eq!(get(running.port, path).unwrap().status, 200, "{path}");
    }
    drop(idle);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn the_health_path_and_exempt_paths_are_answered_while_it_is_saturated(server: &str) {
    let arguments = ["--workers", "1", "--guard-exempt", "/free/,/wait/free", "--health-path", "/wait/healthy"];
    let Some((mut running, gate)) = start_gated(server, &arguments) else { return };
    let free = ["/wait/free", "/wait/healthy"].map(|path| Volley::fire(running.port, path, 2));
    let full = Volley::fire(running.port, "/wait", LIMIT);
    wait_until("it to be saturated", || in_flight(&running) == LIMIT);
    assert_eq!(get(running.port, "/").unwrap().status, 503);
    assert_eq!(get(running.port, "/free/lunch").unwrap().status, 200);
    std::fs::write(&gate, "").unwrap();
    for volley in free.into_iter().chain([full]) {
        assert!(volley.finish().iter().all(|answer| answer.0 == 200));
    }
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The gate is open until it is ready: it is asked on the health path.
fn start_gated(server: &str, arguments: &[&str]) -> Option<(Running, PathBuf)> {
    let (launch, gate) = launch(server, "overload:app", arguments)?;
    std::fs::write(&gate, "").unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    std::fs::remove_file(&gate).unwrap();
    Some((running, gate))
}

fn event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own(server: &str) {
    let arguments = ["--workers", "1", "--backpressure", "1", "--max-streams", "2"];
    let Some((mut running, _)) = start(server, &arguments) else { return };
    let events = open_stream(running.port, "/sse", "");
    wait_until("the stream to be counted", || streams(&running) == 1);
    let socket = open_stream(running.port, "/ws", UPGRADE);
    wait_until("both to be counted", || streams(&running) == 2 && in_flight(&running) == 0);
    assert_eq!(get(running.port, "/").unwrap().status, 200, "streams do not count as requests");
    assert_eq!(get(running.port, "/sse").unwrap().status, 503);
    let refused = Connection::open(running.port).unwrap().get("/ws", UPGRADE).unwrap();
    assert!([503, 403].contains(&refused.status), "{refused:?}");
    assert_eq!(board(&running)[0].rejected, 2);
    assert_eq!(streams(&running), 2);
    drop((events, socket));
    wait_until("the streams to be over", || streams(&running) == 0 && in_flight(&running) == 0);
    drop(open_stream(running.port, "/sse", ""));
    let log = running.log();
    assert!(!log.contains("Traceback"), "a refused stream is no error: {log}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Clients that leave at any moment: before and within the request, while it is waited for, within the answer.
fn ten_thousand_clients_that_leave_at_random_leave_nothing_behind(server: &str) {
    const CLIENTS: u32 = 10_000;
    const AT_A_TIME: u32 = 8;
    let _turn = take_turn();
    let Some((mut running, gate)) = start(server, &["--workers", "1"]) else { return };
    let port = running.port;
    let clients = (0..AT_A_TIME).map(|client| {
        std::thread::spawn(move || {
            (0..CLIENTS / AT_A_TIME).for_each(|round| leave_at_some_point(port, client, round));
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    // Not every server tells the app that the client has gone: those that wait are let go.
    std::fs::write(&gate, "").unwrap();
    wait_until("the counts to be zero", || in_flight(&running) == 0 && streams(&running) == 0);
    assert!(board(&running).iter().all(|slot| slot.high_water <= LIMIT));
    assert_eq!(get(port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn leave_at_some_point(port: u16, client: u32, round: u32) {
    let chance = client.wrapping_mul(2_654_435_761).wrapping_add(round.wrapping_mul(40_503)) >> 3;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let path = ["/", "/", "/sse", "/ws", "/wait"][chance as usize % if round.is_multiple_of(100) { 5 } else { 4 }];
    let headers = if path == "/ws" { UPGRADE } else { "Content-Length: 4\r\n" };
    let request = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\nbody").replace("POST /ws", "GET /ws");
    let sent = if chance.is_multiple_of(7) {
        &request.as_bytes()[..(chance as usize) % request.len()]
    } else {
        request.as_bytes()
    };
    let _ = stream.write_all(sent);
    if chance.is_multiple_of(3) {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = stream.read(&mut [0; 64]);
    }
    if chance.is_multiple_of(5) {
        // A reset instead of a polite end.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger);
    }
}

fn in_exec_mode_the_excess_is_refused_as_well(server: &str) {
    let Some((launch, gate)) = launch(server, "overload:app", &["--workers", "1", "--mode", "exec"]) else { return };
    let mut running = launch.start();
    wait_until("it to serve", || get(running.port, "/").is_ok());
    let volley = Volley::fire(running.port, "/wait", LIMIT + 2);
    wait_until("the excess to be refused", || volley.count(503) == 2);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    running.stop();
}

fn neither_app_nor_environment_shows_how_the_guard_came(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "1"]) else { return };
    let traces = get(running.port, "/traces").unwrap().body;
    let own = tests_directory("apps").display().to_string();
    let wanted = format!(r#"{{"path": [], "variable": "{own}", "in a child": "{own}", "finders": []}}"#);
    assert_eq!(traces, wanted);
    let shown: Vec<String> = harness::descendants(running.pid())
        .into_iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .collect();
    assert!(shown.iter().all(|title| title.contains("overload:app") && !title.contains("guard")), "{shown:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_both_servers!(
    two_workers_never_have_more_in_flight_than_their_capacity,
    idle_connections_keep_nobody_out,
    in_exec_mode_the_excess_is_refused_as_well,
    neither_app_nor_environment_shows_how_the_guard_came,
    exactly_the_excess_is_refused_at_once_and_the_capacity_comes_back,
    the_health_path_and_exempt_paths_are_answered_while_it_is_saturated,
    event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own,
    ten_thousand_clients_that_leave_at_random_leave_nothing_behind,
    workers_end_when_the_launcher_and_the_main_process_are_killed,
);

/// Gunicorn's own worker class has a server of its own.
mod asgi {
    #[test]
    fn exactly_the_excess_is_refused_at_once_and_the_capacity_comes_back() {
        super::exactly_the_excess_is_refused_at_once_and_the_capacity_comes_back("asgi");
    }

    #[test]
    fn event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own() {
        super::event_streams_and_websockets_leave_the_count_and_have_a_limit_of_their_own("asgi");
    }

    #[test]
    fn ten_thousand_clients_that_leave_at_random_leave_nothing_behind() {
        super::ten_thousand_clients_that_leave_at_random_leave_nothing_behind("asgi");
    }
}

fn workers_end_when_the_launcher_and_the_main_process_are_killed(server: &str) {
    let Some((mut running, _)) = start(server, &["--workers", "2"]) else { return };
    let main = running.children()[0];
    wait_until("two workers", || board(&running).len() == 2);
    let workers = children(main);
    assert_eq!(workers.len(), 2);
    // The kernel tells the main process when the launcher dies; one that is stopped cannot act on it.
    kill(main, Signal::SIGSTOP).unwrap();
    running.signal(Signal::SIGKILL);
    kill(main, Signal::SIGKILL).unwrap();
    running.wait();
    wait_until("the workers to end", || !workers.iter().any(|worker| is_alive(*worker)));
}

/// The guard imports what the server would, in whatever form it takes it.
#[test]
fn apps_of_every_form_are_served() {
    for (server, app) in [
        ("gunicorn", "overload:instance"),
        ("gunicorn", "overload:make()"),
        ("gunicorn", "overload:make(debug=True)"),
        ("gunicorn", "overload:make"),
        ("gunicorn", "overload:Callable"),
        ("gunicorn", "overload:double"),
        ("asgi", "overload:make()"),
        ("granian", "overload:instance"),
        ("granian", "overload:make()"),
        ("granian", "overload:Nested.app"),
    ] {
        let Some((launch, gate)) = launch(server, app, &["--workers", "1"]) else { return };
        let mut running = launch.start();
        running.wait_log(" ready ");
        let volley = Volley::fire(running.port, "/wait", LIMIT + 1);
        wait_until("the excess to be refused", || volley.count(503) == 1);
        std::fs::write(&gate, "").unwrap();
        assert_eq!(volley.finish().iter().filter(|answer| answer.0 == 200).count(), LIMIT as usize, "{server} {app}");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

#[test]
fn granian_can_be_told_that_it_is_a_factory_behind_the_dashes() {
    let Some((mut launch, _)) = launch("granian", "overload:make", &["--workers", "1"]) else { return };
    launch.command.args(["--", "--factory"]);
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// How a broken app ends the launcher, and that its traceback is there, with and without the guard.
#[test]
fn a_broken_app_fails_as_it_does_without_the_guard() {
    const BROKEN: &str = "import os\nif os.environ['HOW'] == 'raise':\n    raise RuntimeError('on purpose')\n\
                          async def app(scope, receive, send):\n    raise SystemExit(7)\n";
    for (server, app, how) in [
        ("gunicorn", "broken:app", "raise"),
        ("gunicorn", "broken:nothing", ""),
        ("gunicorn", "nowhere:app", ""),
        ("granian", "broken:app", "raise"),
        ("granian", "broken:nothing", ""),
        ("granian", "nowhere:app", ""),
    ] {
        for preload in ["true", "false"] {
            let outcome = |guard: &str| {
                let (mut launch, _) = launch(server, app, &["--workers", "1", "--restart", "no"])?;
                let directory = launch.directory.path().to_owned();
                std::fs::write(directory.join("broken.py"), BROKEN).unwrap();
                launch.command.env("PYTHONPATH", directory).env("HOW", how).env("MCP_LAUNCH_GUARD", guard);
                Some(launch.env("GUNICORN_PRELOAD_APP", preload).finish())
            };
            let (Some(with), Some(without)) = (outcome("on"), outcome("off")) else { return };
            let case = format!("{server} {app} {how} preload={preload}\n{}", with.log);
            assert_eq!(with.code, without.code, "{case}");
            assert_eq!(with.log.contains("Traceback"), without.log.contains("Traceback"), "{case}");
        }
    }
}

#[test]
fn workers_that_are_spawned_and_not_forked_have_the_guard_and_a_slot() {
    let Some((mut launch, gate)) = launch("granian", "overload:app", &["--workers", "2"]) else { return };
    let directory = launch.directory.path().to_owned();
    // What Granian does from Python 3.14 on.
    let spawn = "import multiprocessing as m\nif m.parent_process() is None: m.set_start_method('spawn')\n";
    std::fs::write(directory.join("sitecustomize.py"), spawn).unwrap();
    let path = format!("{}:{}", directory.display(), tests_directory("apps").display());
    launch.command.env("PYTHONPATH", path);
    let mut running = launch.start();
    running.wait_log(" ready ");
    wait_until("two workers", || board(&running).len() == 2);
    let volley = Volley::fire(running.port, "/wait", 3 * LIMIT);
    wait_until("some to be refused", || volley.count(503) >= LIMIT as usize);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_directory_that_is_a_package_does_not_keep_granian_from_finding_the_guard() {
    let Some((mut launch, _)) = launch("granian", "overload:app", &["--workers", "1"]) else { return };
    // Granian takes the app for a module of the package.
    let directory = launch.directory.path().join("package");
    std::fs::create_dir(&directory).unwrap();
    launch.command.current_dir(&directory);
    std::fs::write(directory.join("__init__.py"), "").unwrap();
    std::fs::copy(tests_directory("apps").join("overload.py"), directory.join("overload.py")).unwrap();
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn wsgi_workers_are_left_alone_whoever_names_the_class() {
    for by_file in [true, false] {
        let Some((mut launch, _)) = launch("gunicorn", "overload:wsgi", &["--workers", "1"]) else { return };
        if by_file {
            std::fs::write(launch.directory.path().join("gunicorn.conf.py"), "worker_class = 'sync'\n").unwrap();
        } else {
            launch.command.env("GUNICORN_WORKER_CLASS", "gthread");
        }
        let mut running = launch.start();
        running.wait_log(" ready ");
        assert_eq!(get(running.port, "/").unwrap().body, "wsgi");
        assert_eq!(running.stop(), 0, "{}", running.log());
    }
}

/// A worker that has changed its user can open nothing of its own below `/proc`.
#[test]
fn workers_of_another_user_have_the_guard_as_well() {
    let Some(venv) = venv() else { return };
    let readable = std::fs::canonicalize(venv.join("bin/python")).is_ok_and(|python| anyone_may_run(&python));
    if !harness::is_root() || !readable {
        eprintln!("SKIPPED: needs root, and an interpreter that others may run");
        return;
    }
    let Some((launch, gate)) = launch("asgi", "overload:app", &["--workers", "1"]) else { return };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(launch.directory.path(), open).unwrap();
    let launch = launch.env("GUNICORN_CMD_ARGS", "--user 65534 --group 65534").env("GUNICORN_PRELOAD_APP", "false");
    let mut running = launch.start();
    running.wait_log(" ready ");
    let volley = Volley::fire(running.port, "/wait", LIMIT + 1);
    wait_until("the excess to be refused", || volley.count(503) == 1);
    assert_eq!(in_flight(&running), LIMIT);
    std::fs::write(&gate, "").unwrap();
    volley.finish();
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn anyone_may_run(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    program.ancestors().all(|path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 1 != 0))
}

/// Workers of Gunicorn that come and go as fast as it lets them: each has a slot.
#[test]
fn a_hundred_workers_that_come_and_go_all_find_a_slot() {
    let Some((mut running, _)) = start("asgi", &["--workers", "4"]) else { return };
    let main = running.children()[0];
    let mut seen: Vec<Pid> = Vec::new();
    let deadline = Instant::now() + Duration::from_mins(1);
    while seen.len() < 100 && Instant::now() < deadline {
        let worker = wait_for("a new worker with a slot", || {
            let slots = board(&running);
            children(main)
                .into_iter()
                .find(|pid| !seen.contains(pid) && slots.iter().any(|slot| slot.pid == pid.as_raw().cast_unsigned()))
        });
        kill(worker, Signal::SIGKILL).unwrap();
        seen.push(worker);
    }
    assert!(!running.log().contains("scoreboard"), "{}", running.log());
    assert!(board(&running).len() <= 12, "slots are taken again: {}", board(&running).len());
    eprintln!("{} workers", seen.len());
    running.stop();
}

/// The text of one answer, up to where it stops for now.
#[test]
fn a_stream_that_is_refused_says_so_in_full() {
    let Some((mut running, _)) = start("granian", &["--workers", "1", "--max-streams", "1"]) else { return };
    let _open = open_stream(running.port, "/sse", "");
    wait_until("the stream to be counted", || streams(&running) == 1);
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", running.port)).unwrap());
    stream.get_mut().write_all(b"GET /sse HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        line.contains(" 503 ") && rest.contains("retry-after: 1") && rest.ends_with("in a moment.\n"),
        "{line}{rest}"
    );
    running.stop();
}
