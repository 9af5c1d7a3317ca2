//! `config/gunicorn.conf.py` with the real gateway under `gunicorn --preload`: what it renews in every worker,
//! and that without it the workers would share it.
//!
//! Needs `MCP_LAUNCH_TEST_VENV`, a virtual environment with the gateway and Gunicorn, which `scripts/test` makes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{take_turn, venv};

/// The limit of every wait: the gateway needs 10 s to boot on a fresh database, more if the machine is busy.
const PATIENCE: Duration = Duration::from_mins(3);

#[test]
fn preloaded_workers_share_nothing_that_must_be_their_own() {
    let Some(venv) = venv() else { return };
    // It keeps a core busy for ten seconds.
    let _turn = take_turn();
    let gunicorn = Gunicorn::start(&venv, &project().join("config/gunicorn.conf.py"));
    let [one, other] = gunicorn.reports();

    for report in [&one, &other] {
        assert_eq!(report["shares_pool"], false, "{report}");
        assert_eq!(report["shares_redis"], false, "{report}");
        assert_eq!(report["span_writer_alive"], true, "{report}");
        assert_eq!(report["logged_pid"], report["pid"], "{report}");
        assert!(report["frozen"].as_u64() > Some(100_000), "{report}");
        assert!(report["worker_id"].as_str().unwrap().ends_with(&format!(":{}", report["pid"])), "{report}");
    }
    assert_ne!(one["worker_id"], other["worker_id"]);
    assert_ne!(one["instance_id"], other["instance_id"]);
    assert!(gunicorn.get("/health").starts_with("HTTP/1.1 200"), "{}", gunicorn.log());
    assert!(!gunicorn.log().contains("could not be renewed"), "{}", gunicorn.log());
}

/// The negative control. If it fails, a newer gateway does this itself and our file has less to do.
#[test]
fn without_the_file_preloaded_workers_share_it_all() {
    let Some(venv) = venv() else { return };
    // It keeps a core busy for ten seconds.
    let _turn = take_turn();
    let gunicorn = Gunicorn::start(&venv, Path::new("/dev/null"));
    let [one, other] = gunicorn.reports();

    for report in [&one, &other] {
        assert_eq!(report["shares_pool"], true, "{report}");
        assert_eq!(report["shares_redis"], true, "{report}");
        assert_eq!(report["span_writer_alive"], false, "{report}");
        assert_eq!(report["logged_pid"], report["main_pid"], "{report}");
        assert_eq!(report["frozen"], 0, "{report}");
    }
    assert_eq!(one["worker_id"], other["worker_id"]);
    assert_eq!(one["instance_id"], other["instance_id"]);
}

#[test]
fn an_app_without_the_gateway_is_left_alone() {
    let Some(venv) = venv() else { return };
    // It keeps a core busy for ten seconds.
    let _turn = take_turn();
    let gunicorn = Gunicorn::start_app(&venv, &project().join("config/gunicorn.conf.py"), "hello:app");

    assert!(gunicorn.get("/health").starts_with("HTTP/1.1 200"), "{}", gunicorn.log());
    assert!(!gunicorn.log().contains("after the fork"), "{}", gunicorn.log());
}

/// A running Gunicorn with two workers on a Unix socket; it ends when this is dropped.
struct Gunicorn {
    process: Child,
    directory: TempDir,
}

impl Gunicorn {
    /// With the gateway, and with the features that share something.
    fn start(venv: &Path, config: &Path) -> Self {
        Self::start_app(venv, config, "gateway_after_fork:app")
    }

    fn start_app(venv: &Path, config: &Path, app: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(venv.join("bin/gunicorn"))
            .args(["--preload", "--workers=2", "--worker-class=uvicorn.workers.UvicornWorker"])
            .arg(format!("--bind=unix:{}", directory.path().join("socket").display()))
            .arg("--config")
            .arg(config)
            .arg(app)
            .current_dir(directory.path())
            .env_clear()
            .env("PATH", venv.join("bin"))
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .env("PYTHONPATH", project().join("tests/apps"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("REPORT_DIR", directory.path())
            .env("DATABASE_URL", format!("sqlite:///{}", directory.path().join("gateway.db").display()))
            .env("JWT_SECRET_KEY", "0123456789abcdefghijklmnopqrstuvwxyz-for-tests")
            .env("MCPGATEWAY_SESSION_AFFINITY_ENABLED", "true")
            .env("OBSERVABILITY_ENABLED", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    /// What both workers wrote when they had started, with their pid added.
    fn reports(&self) -> [Value; 2] {
        self.wait_for("two workers to start", || {
            let paths = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
            let reports: Vec<Value> = paths
                .filter(|path| path.extension().is_some_and(|it| it == "json"))
                .map(|path| read(&path))
                .collect();
            reports.try_into().ok()
        })
    }

    /// The response to a GET request, as soon as there is one.
    fn get(&self, path: &str) -> String {
        self.wait_for("a response", || {
            let mut stream = UnixStream::connect(self.directory.path().join("socket")).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
            let mut response = String::new();
            stream.read_to_string(&mut response).ok().filter(|&length| length > 0)?;
            Some(response)
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "waited too long for {what}:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        let terminate = nix::sys::signal::Signal::SIGTERM;
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, terminate);
        let _ = self.process.wait();
    }
}

fn read(report: &Path) -> Value {
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    value["pid"] = report.file_stem().unwrap().to_str().unwrap().parse::<u32>().unwrap().into();
    value
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
