//! A limit that the launcher finds (`auto`), on an app that can do ten requests at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::spawn_workers;
use crate::harness::ask::ask;
use crate::harness::http::{Connection, get};
use crate::harness::{Launch, Running, tests_directory, venv, wait_until};

/// Clients that keep their connections and ask again and again, and later if they are refused: often enough for an overload,
/// and not so often that refusing them takes all of a processor, which is another limit than the app's.
struct Crowd {
    ends: Arc<AtomicBool>,
    clients: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Crowd {
    fn begin(port: u16, number: usize) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let client = |_| {
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || {
                let mut connection = Connection::open(port)?;
                while !ends.load(Ordering::Relaxed) {
                    match connection.get("/", "")?.status {
                        200 => {}
                        503 => std::thread::sleep(Duration::from_millis(200)),
                        other => return Err(std::io::Error::other(format!("status {other}"))),
                    }
                }
                Ok(())
            })
        };
        Self { clients: (0..number).map(client).collect(), ends }
    }

    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap().unwrap());
    }
}

fn start(arguments: &[&str], prepare: impl FnOnce(&mut Launch)) -> Option<Running> {
    let mut launch = Launch::new(arguments);
    launch
        .command
        .args(["--workers", "1"])
        .env("VIRTUAL_ENV", venv()?)
        .env("PYTHONPATH", tests_directory("apps"))
        .env("MCP_LAUNCH_CPUS", "2")
        .env("GRANIAN_INTERFACE", if arguments.contains(&"pool:wsgi") { "wsgi" } else { "asgi" })
        .env("GUNICORN_BACKPRESSURE", "auto")
        .env("GRANIAN_BACKPRESSURE", "auto");
    prepare(&mut launch);
    let mut running = launch.in_turn().start();
    running.wait_log("ready generation=");
    assert!(running.log().contains("limit=auto"), "{}", running.log());
    Some(running)
}

fn load_of_worker(running: &Running) -> Value {
    ask(running, &["status", "--json"]).json()["generations"][0]["workers"][0]["load"].clone()
}

fn limit(running: &Running) -> u64 {
    load_of_worker(running)["limit"].as_u64().unwrap()
}

/// It begins with 64, falls to what the pool can do, and everybody shows it. Without overload nobody is refused.
fn falls_to_what_the_app_can_do(arguments: &[&str], prepare: impl FnOnce(&mut Launch)) {
    let Some(mut running) = start(arguments, prepare) else { return };
    let few = Crowd::begin(running.port, 8);
    assert_eq!(limit(&running), 64);
    wait_until("some answers", || load_of_worker(&running)["served"].as_u64() > Some(100));
    few.end();
    let load = load_of_worker(&running);
    assert_eq!((&load["limit"], &load["rejected"]), (&64.into(), &0.into()), "{load}");
    let crowd = Crowd::begin(running.port, 200);
    // Ten requests at a time, a quarter more, and a small queue are 17.
    wait_until("the limit to fall", || {
        let load = load_of_worker(&running);
        let because = load["limit_because"].as_str().unwrap_or_default();
        because.contains("at best") && !because.contains("is being measured") && load["limit"].as_u64() <= Some(24)
    });
    let text = ask(&running, &["status"]).out;
    assert!(text.contains("  LIMIT  ") && text.contains("  limit of "), "{text}");
    let metrics = ask(&running, &["status", "--prometheus"]).out;
    assert!(metrics.contains("mcp_launch_worker_requests_allowed{"), "{metrics}");
    let plan = ask(&running, &["explain", "--running"]).out;
    assert!(plan.contains("limit auto") && plan.contains("  limit of "), "{plan}");
    crowd.end();
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn uvicorns_worker_finds_its_limit() {
    falls_to_what_the_app_can_do(&["--server", "gunicorn", "pool:app"], |_| ());
}

#[test]
fn gunicorns_asgi_worker_finds_its_limit() {
    falls_to_what_the_app_can_do(&["--server", "gunicorn", "--worker-class", "asgi", "pool:app"], |_| ());
}

/// As Granian's are from Python 3.14 on.
#[test]
fn granians_spawned_worker_finds_its_limit() {
    falls_to_what_the_app_can_do(&["--server", "granian", "pool:app"], spawn_workers);
}

#[test]
fn gunicorns_threads_find_their_limit() {
    falls_to_what_the_app_can_do(&["--server", "gunicorn", "--worker-class", "gthread", "pool:wsgi"], |_| ());
}

#[test]
fn granians_threads_find_their_limit() {
    falls_to_what_the_app_can_do(&["--server", "granian", "pool:wsgi"], |_| ());
}
