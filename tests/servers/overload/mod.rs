//! The guard inside real servers: no more concurrent requests than there is capacity for, and an immediate 503 for the
//! others; whatever form the app has, and however requests end.

mod adaptive;
mod apps;
mod limits;
mod streams;
mod workers;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::http::Connection;
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, tests_directory, venv};
use mcp_launch::guard::scoreboard::{MAGIC, SLOT};

/// Requests that a worker may have in flight, in these tests.
const LIMIT: u32 = 4;

/// A launch of `tests/apps/overload.py`, its gate, and how it is started by a server: `gunicorn`, `granian`, or
/// `asgi`, which is Gunicorn with its own worker class.
pub fn launch(server: &str, app: &str, arguments: &[&str]) -> Option<(Launch, PathBuf)> {
    let venv = venv()?;
    let mut launch = Launch::new(arguments);
    let gate = launch.directory.path().join("gate");
    let (server, class) = server_and_class(server);
    launch
        .command
        .args(["--server", server])
        .args((class != "auto").then(|| format!("--worker-class={class}")))
        .arg(app)
        .env("VIRTUAL_ENV", venv)
        .env("PYTHONPATH", tests_directory("apps"))
        .env("MCP_LAUNCH_CPUS", "2")
        .env("GATE", &gate)
        .env("GUNICORN_BACKPRESSURE", LIMIT.to_string())
        .env("GRANIAN_BACKPRESSURE", LIMIT.to_string());
    Some((launch, gate))
}

/// Has Granian spawn its workers and not fork them, as it does from Python 3.14 on.
pub fn spawn_workers(launch: &mut Launch) {
    let spawn = "import multiprocessing as m\nif m.parent_process() is None: m.set_start_method('spawn')\n";
    let directory = launch.directory.path();
    std::fs::write(directory.join("sitecustomize.py"), spawn).unwrap();
    let path = format!("{}:{}", directory.display(), tests_directory("apps").display());
    launch.command.env("PYTHONPATH", path);
}

/// Starts it and waits until it is ready.
pub fn start(server: &str, arguments: &[&str]) -> Option<(Running, PathBuf)> {
    let (launch, gate) = launch(server, "overload:app", arguments)?;
    let mut running = launch.start();
    running.wait_log(" ready ");
    Some((running, gate))
}

/// Requests that are sent together, each on a connection of its own.
pub struct Volley {
    answers: Arc<Mutex<Vec<(u16, Duration)>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Volley {
    pub fn fire(port: u16, path: &str, count: u32) -> Self {
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
    pub fn count(&self, status: u16) -> usize {
        self.answers.lock().unwrap().iter().filter(|answer| answer.0 == status).count()
    }

    /// All answers.
    pub fn finish(self) -> Vec<(u16, Duration)> {
        for client in self.clients {
            client.join().unwrap();
        }
        Arc::into_inner(self.answers).unwrap().into_inner().unwrap()
    }
}

/// The report of a worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub pid: u32,
    pub in_flight: u32,
    pub high_water: u32,
    pub streams: u32,
    pub rejected: u64,
}

/// The slots that were ever taken, as the launcher can read them.
pub fn board(running: &Running) -> Vec<Slot> {
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
