//! `mcp-launch stacks`: what every worker is doing, also one that stands still.

use std::net::TcpStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::ask::{Answer, all_are_ready, ask};
use crate::harness::http::{get, request};
use crate::harness::matrix::server_and_class;
use crate::harness::{Launch, Running, is_alive, tests_directory, venv, wait_for, wait_until};

crate::for_every_kind!(
    open_requests_and_where_they_wait_are_shown_without_secrets,
    a_worker_that_stands_still_shows_where_and_lives_on,
);

/// A launch of an app, of which no worker is replaced for being hung.
fn launch(kind: &str, app: &str, arguments: &[&str]) -> Option<Launch> {
    let (server, class) = server_and_class(kind);
    let mut launch = Launch::new(&["--server", server, "--worker-class", class, "--worker-timeout", "0"]);
    launch.command.args(arguments).arg(app);
    launch.command.env("VIRTUAL_ENV", venv()?).env("PYTHONPATH", tests_directory("apps"));
    Some(launch.env("MCP_LAUNCH_CPUS", "2"))
}

fn start(kind: &str, app: &str, arguments: &[&str]) -> Option<Running> {
    let mut running = launch(kind, app, arguments)?.start();
    running.wait_log("ready generation=1");
    wait_until("all workers", || all_are_ready(&running));
    Some(running)
}

/// Makes a request that is not answered soon.
fn hang(running: &Running, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    request(&mut stream, path);
    stream
}

/// The workers, as the command shows them.
fn stacks(running: &Running) -> Vec<Value> {
    let answer = ask(running, &["stacks", "--json"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    answer.json()["workers"].as_array().unwrap().clone()
}

fn pid_of(worker: &Value) -> Pid {
    Pid::from_raw(worker["pid"].as_i64().unwrap().try_into().unwrap())
}

fn functions(stack: &Value) -> Vec<&str> {
    stack["frames"].as_array().unwrap().iter().map(|frame| frame["function"].as_str().unwrap()).collect()
}

fn all<'a>(workers: &'a [Value], what: &str) -> Vec<&'a Value> {
    workers.iter().flat_map(|worker| worker[what].as_array().into_iter().flatten()).collect()
}

fn open_requests_and_where_they_wait_are_shown_without_secrets(kind: &str) {
    let Some(mut running) = start(kind, "hello:app", &["--workers", "2"]) else { return };
    let _client = hang(&running, "/slow?s=600&token=hunter2");
    let mut workers = Vec::new();
    wait_until("the request", || {
        workers = stacks(&running);
        !all(&workers, "requests").is_empty()
    });
    assert_eq!(workers.len(), 2);
    assert!(workers.iter().all(|worker| worker["state"] == "running" && worker["why"].is_null()), "{workers:?}");
    let requests = all(&workers, "requests");
    assert_eq!((&requests[0]["method"], &requests[0]["path"]), (&"GET".into(), &"/slow".into()), "{requests:?}");
    let its = |stack: &&&Value| stack["names"].as_array().unwrap().contains(&requests[0]["task"]);
    let stacks = all(&workers, "task_stacks");
    let stack = functions(stacks.iter().find(its).unwrap());
    assert!(stack.iter().any(|function| function.ends_with("body_for")), "{stack:?}");
    for worker in &workers {
        let threads = worker["threads"].as_array().unwrap();
        assert!(threads.iter().any(|thread| thread["name"] == "MainThread" && !functions(thread).is_empty()));
    }
    let Answer { code, out, .. } = ask(&running, &["stacks"]);
    assert!(code == Some(0) && out.contains("    GET /slow  ") && !out.contains("hunter2"), "{out}");
    let pid = workers[1]["pid"].to_string();
    let one = ask(&running, &["stacks", "--json", &pid]).json();
    assert_eq!((one["workers"].as_array().unwrap().len(), &one["workers"][0]["pid"]), (1, &workers[1]["pid"]));
    let strange = ask(&running, &["stacks", &running.pid().to_string()]);
    assert!(strange.code == Some(1) && strange.problem.contains("not a worker of this launcher"), "{strange:?}");
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_worker_that_stands_still_shows_where_and_lives_on(kind: &str) {
    let Some(mut running) = start(kind, "hello:app", &["--workers", "2", "--stop-timeout", "3s"]) else { return };
    let before = stacks(&running);
    let path = match kind {
        "gunicorn" => "/block?s=600",
        "asgi" => "/spin",
        _ => "/deadlock",
    };
    let _client = hang(&running, path);
    wait_until("where it stands", || {
        let workers = stacks(&running);
        let blocked = workers.iter().find(|worker| worker["state"] == "blocked");
        blocked.is_some_and(|worker| {
            assert!(worker["requests"].is_null() && worker["tasks"].is_null(), "{worker}");
            let threads = worker["threads"].as_array().unwrap();
            // faulthandler, which could crash it, writes no numbers.
            let is_number = |thread: &Value| thread["id"].as_str().unwrap().starts_with("0x");
            assert!(kind != "asgi" || threads.iter().all(is_number), "Python was running: {worker}");
            threads.iter().any(|thread| functions(thread).contains(&"body_for"))
        })
    });
    assert!(before.iter().all(|worker| is_alive(pid_of(worker))), "{before:?}");
    wait_until("the other one to answer", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
    running.stop();
}

#[test]
fn a_thread_that_keeps_the_interpreter_is_shown() {
    let Some(mut running) = start("gunicorn", "hog:app", &["--workers", "1", "--stop-timeout", "3s"]) else { return };
    let before = stacks(&running);
    let _client = hang(&running, "/hog");
    wait_until("where it is", || {
        let worker = &stacks(&running)[0];
        let threads = worker["threads"].as_array().unwrap();
        worker["state"] == "blocked"
            && threads.iter().any(|thread| functions(thread).contains(&"keep_the_interpreter"))
    });
    assert!(is_alive(pid_of(&before[0])));
    running.stop();
}

#[test]
fn a_worker_that_is_stopped_is_not_waited_for() {
    let Some(mut running) = start("gunicorn", "hello:app", &["--workers", "2"]) else { return };
    let stopped = pid_of(&stacks(&running)[0]);
    kill(stopped, Signal::SIGSTOP).unwrap();
    let workers = stacks(&running);
    assert_eq!((&workers[0]["state"], &workers[1]["state"]), (&"stopped".into(), &"running".into()), "{workers:?}");
    kill(stopped, Signal::SIGCONT).unwrap();
    wait_until("it to continue", || stacks(&running).iter().all(|worker| worker["state"] == "running"));
    assert!(pid_of(&stacks(&running)[0]) == stopped && is_alive(stopped), "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// The signal would end a worker that has no handler for it.
#[test]
fn a_worker_without_the_guard_is_left_alone() {
    let Some(mut running) = start("gunicorn", "hello:app", &["--workers", "2", "--guard=off"]) else { return };
    let children = running.descendants();
    let answer = ask(&running, &["stacks", "--json"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert_eq!(answer.json()["workers"][0]["state"], "unreachable");
    assert_eq!(running.descendants(), children);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

crate::for_each_wsgi_kind!(requests_in_threads_and_greenlets_are_shown);

fn requests_in_threads_and_greenlets_are_shown(kind: &str) {
    let Some(mut running) = start(kind, "wsgi_flask", &["--workers", "2", "--backpressure", "4"]) else { return };
    // The second one is in the app while its response is iterated.
    let _clients = [hang(&running, "/slow?s=600&token=hunter2"), hang(&running, "/events")];
    for path in ["/slow", "/events"] {
        let request = wait_for("the request", || {
            let workers = stacks(&running);
            all(&workers, "requests").into_iter().find(|request| request["path"] == path).cloned()
        });
        assert_eq!(request["method"], "GET", "{request}");
        assert!(request["thread"].is_string() || request["task"].is_string(), "{request}");
    }
    running.stop();
}
