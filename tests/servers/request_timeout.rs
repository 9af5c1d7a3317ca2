//! `MCP_LAUNCH_REQUEST_TIMEOUT`: a request that takes too long is logged with its stack, and ended where that is possible.

use std::io::BufRead;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::harness::ask::ask;
use crate::harness::http::{get, open_stream};
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, is_alive, tests_directory, venv, wait_until};

crate::for_every_kind!(
    a_request_that_takes_too_long_is_told_with_its_stack_and_harms_nobody,
    the_stack_of_a_blocked_event_loop_is_logged,
);

fn start(kind: &str, app: &str, arguments: &[&str]) -> Option<Running> {
    let venv = venv()?;
    let (server, class) = server_and_class(kind);
    let mut launch = Launch::new(&["--server", server, "--worker-class", class]);
    launch.command.args(arguments).arg(app);
    launch.command.env("VIRTUAL_ENV", venv).env("PYTHONPATH", tests_directory("apps"));
    let mut running = launch.env("MCP_LAUNCH_CPUS", "2").start();
    running.wait_log("ready generation=1");
    Some(running)
}

/// Reads an event stream up to the next event; fails if the stream ends.
fn read_until_event(stream: &mut impl BufRead) {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the event stream has no limit");
    }
}

/// What the server and the guard have written.
fn output(running: &Running) -> String {
    running.out() + &running.log()
}

fn a_request_that_takes_too_long_is_told_with_its_stack_and_harms_nobody(kind: &str) {
    let limits = "1s,/slow/patient=1h";
    let Some(mut running) = start(kind, "hello:app", &["--workers", "1", "--request-timeout", limits]) else {
        return;
    };
    let mut stream = open_stream(running.port, "/sse", "");
    read_until_event(&mut stream);
    let began = Instant::now();
    let answer = get(running.port, "/slow?s=600&token=secret").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (504, "The request took too long.\n"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    wait_until("its stack", || output(&running).contains("asyncio.sleep(float(query.get(\"s\", 1)))"));
    let text = output(&running);
    assert!(text.contains("GET /slow has taken 1.") || text.contains("GET /slow has taken 2."), "{text}");
    assert!(!text.contains("token=secret"), "{text}");
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    (0..30).for_each(|_| read_until_event(&mut stream));
    assert_eq!(ask(&running, &["status", "--json"]).json()["generations"][0]["workers"][0]["load"]["stuck"], 0);
    drop(stream);
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn the_stack_of_a_blocked_event_loop_is_logged(kind: &str) {
    let Some(mut running) = start(kind, "hello:app", &["--workers", "1", "--request-timeout", "500ms"]) else {
        return;
    };
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(get(running.port, "/block?s=4").unwrap().status, 200, "nothing is killed");
    running.wait_log("worker is blocked for longer than a request may take");
    assert!(running.log().contains("stack=\"body_for ("), "{}", running.log());
    wait_until("the worker to say so too", || output(&running).contains("nothing ran here for "));
    assert_eq!(get(running.port, "/").unwrap().status, 200);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

#[test]
fn a_wsgi_worker_half_full_of_stuck_requests_is_replaced_and_its_successor_serves() {
    for kind in ["gthread", "gevent", "granian"] {
        let mut arguments = vec!["--workers", "2", "--backpressure", "4", "--request-timeout", "1s"];
        arguments.extend(["--stop-timeout", "4s"]);
        let Some(mut running) = start(kind, "wsgi_flask:app", &arguments) else { return };
        let pids = |running: &Running| -> Vec<i64> {
            let status = ask(running, &["status", "--json"]).json();
            let workers = status["generations"][0]["workers"].as_array().unwrap().clone();
            workers.iter().filter(|it| it["load"]["state"] == "ready").map(|it| it["pid"].as_i64().unwrap()).collect()
        };
        wait_until("both workers", || pids(&running).len() == 2);
        let before = pids(&running);
        let port = running.port;
        // Of six at least three are in one of the two workers, and two are half of its limit.
        let clients: Vec<_> = (0..6).map(|_| std::thread::spawn(move || get(port, "/slow?s=60"))).collect();
        running.wait_log_within("cause=stuck", 1, Duration::from_secs(20));
        let text = output(&running);
        assert!(text.contains("GET /slow has taken") && text.contains("in slow\n"), "{text}");
        running.wait_log_within("worker exit", 1, Duration::from_secs(20));
        wait_until("a successor to serve", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
        let gone = before.iter().filter(|pid| !is_alive(Pid::from_raw(i32::try_from(**pid).unwrap()))).count();
        assert!(gone >= 1, "{kind}: {}", running.log());
        running.signal(Signal::SIGTERM);
        running.signal(Signal::SIGTERM);
        running.wait();
        for client in clients {
            let _ = client.join().unwrap();
        }
        running.assert_nothing_left();
    }
}
