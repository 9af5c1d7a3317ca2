//! Every end has a story: a worker or a server that died, was killed or was replaced leaves a record in the log and in
//! the status, with what it was doing.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::ask::{all_are_ready, ask};
use crate::harness::http::{get, request};
use crate::harness::{Launch, Running, tests_directory, venv, wait_for, wait_until};
use crate::host_limits::Group;

crate::for_both_servers!(
    a_killed_worker_leaves_a_record_with_its_open_requests,
    a_hung_worker_leaves_a_record_with_what_it_held_up,
    a_worker_that_has_become_too_large_leaves_a_record_with_its_memory,
    a_killed_main_process_leaves_a_record,
    a_failed_boot_leaves_a_record_with_the_reason,
    a_worker_that_the_kernel_killed_leaves_a_record_with_its_memory,
);

fn start(server: &str, arguments: &[&str]) -> Option<Running> {
    let mut running = Launch::app(&venv()?, server, arguments).start();
    running.wait_log("ready generation=1");
    Some(running)
}

/// The records in a log in text format.
fn records(running: &Running) -> Vec<Value> {
    let log = running.log();
    let records = log.lines().filter_map(|line| line.split_once(" end record=")).map(|(_, json)| json);
    records.map(|json| serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))).collect()
}

fn the_record(running: &Running) -> Value {
    let record = wait_for("a record", || records(running).pop());
    assert_eq!(records(running).len(), 1, "{}", running.log());
    record
}

/// Requests that are not answered soon, each on a connection of its own.
fn hang(running: &Running, path: &str, number: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
        request(&mut stream, path);
        stream
    };
    (0..number).map(open).collect()
}

fn workers(running: &Running) -> Vec<Value> {
    let status = ask(running, &["status", "--json"]).json();
    status["generations"][0]["workers"].as_array().unwrap().clone()
}

/// Waits until so many requests are in flight, and all workers have had a heartbeat since.
fn wait_until_told(running: &Running, number: u64) {
    let in_flight = |worker: &Value| worker["load"]["in_flight"].as_u64().unwrap_or(0);
    wait_until("the requests", || workers(running).iter().map(in_flight).sum::<u64>() == number);
    let since = Instant::now();
    wait_until("a heartbeat", || {
        let elapsed = since.elapsed().as_secs_f64();
        workers(running).iter().all(|worker| worker["load"]["heartbeat_seconds_ago"].as_f64().unwrap() < elapsed)
    });
}

fn paths(record: &Value) -> Vec<String> {
    let oldest = record["requests"]["oldest"].as_array().unwrap_or_else(|| panic!("{record}"));
    oldest.iter().map(|request| format!("{} {}", request["method"], request["path"]).replace('"', "")).collect()
}

fn a_killed_worker_leaves_a_record_with_its_open_requests(server: &str) {
    let Some(running) = start(server, &["--workers", "2"]) else { return };
    wait_until("all workers", || all_are_ready(&running));
    let _clients = hang(&running, "/slow?s=600&token=secret", 6);
    wait_until_told(&running, 6);
    let victim = workers(&running).into_iter().max_by_key(|worker| worker["load"]["in_flight"].as_u64()).unwrap();
    let pid = i32::try_from(victim["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let record = the_record(&running);
    assert_eq!(
        (&record["what"], &record["pid"], &record["stopping"]),
        (&"worker".into(), &pid.into(), &false.into())
    );
    assert_eq!((&record["cause"], &record["signal"]), (&"signal".into(), &"SIGKILL".into()));
    let held = usize::try_from(victim["load"]["in_flight"].as_u64().unwrap()).unwrap();
    assert!(held > 0 && record["requests"]["in_flight"] == held, "{held} {record}");
    assert_eq!(paths(&record), vec!["GET /slow"; held], "{record}");
    let age = |request: &Value| request["age_seconds"].as_f64().unwrap();
    assert!(record["requests"]["oldest"].as_array().unwrap().iter().all(|it| (0.0..20.0).contains(&age(it))));
    let (rss, peak) = (&record["memory"]["rss_bytes"], &record["memory"]["peak_bytes"]);
    assert!(rss.as_u64().unwrap() > 4 << 20 && peak.as_u64() >= rss.as_u64(), "{record}");
    assert!(running.log().contains(&format!("pid={pid} cause=killed by SIGKILL")), "{}", running.log());
    assert!(!running.log().contains("secret"), "{}", running.log());

    let ends = ask(&running, &["status", "--ends", "--json"]).json();
    assert_eq!(ends, Value::from(vec![record.clone()]));
    assert_eq!(ask(&running, &["status", "--json"]).json()["ends"], ends);
    let text = ask(&running, &["status", "--ends"]).out;
    assert!(text.contains(&format!("worker {pid}, generation 1, {server}/")), "{text}");
    assert!(text.contains(": killed by SIGKILL, after ") && text.contains("  GET /slow\n"), "{text}");
    let metrics = ask(&running, &["status", "--prometheus"]).out;
    assert!(metrics.contains("worker_exits_total{cause=\"signal\"} 1") && !metrics.contains("/slow"), "{metrics}");
    wait_until("its successor", || all_are_ready(&running));
}

fn a_hung_worker_leaves_a_record_with_what_it_held_up(server: &str) {
    let Some(mut running) = start(server, &["--workers", "1", "--worker-timeout", "3s"]) else { return };
    let _held_up = hang(&running, "/slow?s=600", 1);
    wait_until_told(&running, 1);
    let _culprit = hang(&running, "/block?s=1000", 1);
    running.wait_log("cause=hung");
    let record = the_record(&running);
    assert_eq!((&record["cause"], &record["requests"]["in_flight"]), (&"hung".into(), &2.into()));
    assert!(record["requests"]["heartbeat_seconds_ago"].as_f64().unwrap() >= 3.0, "{record}");
    assert_eq!(paths(&record), ["GET /slow"], "the one that blocks was not open at any heartbeat");
    let frame = record["stack"].as_array().unwrap().last().unwrap();
    assert_eq!(frame["function"], "body_for", "{record}");
    let text = ask(&running, &["status", "--ends"]).out;
    assert!(text.contains("\n  stack\n") && text.contains("hello.py\", line "), "{text}");
    wait_until("its successor", || get(running.port, "/").is_ok_and(|answer| answer.status == 200));
}

fn a_worker_that_has_become_too_large_leaves_a_record_with_its_memory(server: &str) {
    let arguments = ["--workers", "2", "--workers-max-rss", "300M", "--worker-timeout", "16s"];
    let Some(running) = start(server, &arguments) else { return };
    wait_until("all workers", || all_are_ready(&running));
    get(running.port, "/grow?mib=400").unwrap_or_else(|error| panic!("{error}: {}", running.log()));
    let record = the_record(&running);
    assert_eq!((&record["cause"], &record["stopping"]), (&"rss".into(), &false.into()));
    assert!(record["memory"]["rss_bytes"].as_u64().unwrap() > 300 << 20, "{record}");
    assert_eq!(paths(&record), [""; 0], "it had finished");
    assert!(running.log().contains(" cause=rss age=") && running.log().contains(" rss=4"), "{}", running.log());
    wait_until("its successor", || all_are_ready(&running));
}

fn a_killed_main_process_leaves_a_record(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "2", "--log-format", "json"]).start();
    running.wait_log("\"message\":\"ready\"");
    wait_until("all workers", || all_are_ready(&running));
    let main = running.children()[0];
    kill(main, Signal::SIGKILL).unwrap();
    running.wait_log("\"message\":\"end\"");
    let log = running.log();
    let line = log.lines().find(|line| line.contains("\"message\":\"end\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let record = &line["record"];
    assert_eq!(
        (&line["level"], &record["what"], &record["pid"]),
        (&"WARN".into(), &"server".into(), &main.as_raw().into())
    );
    assert_eq!((&record["cause"], &record["signal"]), (&"signal".into(), &"SIGKILL".into()));
    running.wait_log("\"message\":\"gone\"");
    let ends = ask(&running, &["status", "--ends", "--json"]).json();
    assert_eq!(ends[0], *record);
    assert!(ends.as_array().unwrap().iter().all(|end| end["cause"] != "replaced"), "it is told once: {ends}");
}

fn a_failed_boot_leaves_a_record_with_the_reason(server: &str) {
    let Some(venv) = venv() else { return };
    let mut running = Launch::app(&venv, server, &["--workers", "1"]).env("IMPORT_FAIL", "1").start();
    assert_ne!(running.wait(), 0);
    let record = records(&running).pop().unwrap();
    assert_eq!((&record["what"], &record["cause"]), (&"server".into(), &"boot-failed".into()), "{record}");
    assert!(record["why"].as_str().unwrap().contains("IMPORT_FAIL is set"), "{record}");
    assert!(record["status"].as_u64().unwrap() > 0, "{record}");
}

fn a_worker_that_the_kernel_killed_leaves_a_record_with_its_memory(server: &str) {
    let Some(venv) = venv() else { return };
    let Some(group) = Group::with_memory(&format!("ends-{server}"), 400) else { return };
    // One: it has told of its first growth when the second or third one is too much.
    let running = group.start(&venv, server, &["--workers", "1"]);
    wait_until("the worker", || all_are_ready(&running));
    let mut asked = Instant::now();
    let _ = get(running.port, "/grow?mib=150");
    wait_until("the kernel to kill a worker", || {
        if asked.elapsed() > Duration::from_secs(2) && records(&running).is_empty() {
            asked = Instant::now();
            let _ = get(running.port, "/grow?mib=150");
        }
        !records(&running).is_empty()
    });
    let record = records(&running).remove(0);
    assert_eq!((&record["what"], &record["cause"]), (&"worker".into(), &"oom".into()), "{record}");
    assert_eq!(record["signal"], "SIGKILL");
    assert!(record["memory"]["peak_bytes"].as_u64().unwrap() > 150 << 20, "{record}");
}

/// Its time is up, so its requests are lost, and the record says which.
#[test]
fn a_worker_that_is_killed_at_the_stop_leaves_a_record_of_what_was_cut_short() {
    for server in ["gunicorn", "granian"] {
        let Some(mut running) = start(server, &["--workers", "1", "--stop-timeout", "3s"]) else { return };
        let _client = hang(&running, "/block?s=600", 1);
        wait_until("it to block", || workers(&running)[0]["load"]["in_flight"] == 1);
        running.stop();
        let all = records(&running);
        let [record] = &all.iter().filter(|record| record["what"] == "worker").collect::<Vec<_>>()[..] else {
            panic!("{all:?}")
        };
        assert_eq!((&record["cause"], &record["signal"]), (&"signal".into(), &"SIGKILL".into()), "{record}");
        assert_eq!((&record["stopping"], &record["requests"]["in_flight"]), (&true.into(), &1.into()), "{record}");
        running.assert_nothing_left();
    }
}

/// Whatever a client asks for, a line of the log is a line, and JSON is JSON.
#[test]
fn nothing_that_a_client_sends_breaks_the_log() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "1", "--log-format", "json"]);
    let source = "import asyncio\nimport hello\n\n\nasync def app(scope, receive, send):\n    \
                  if scope['type'] == 'http' and scope['path'] != '/health':\n        await asyncio.sleep(600)\n    \
                  await hello.app(scope, receive, send)\n";
    std::fs::write(launch.directory.path().join("waits.py"), source).unwrap();
    let path = format!("{}:{}", launch.directory.path().display(), tests_directory("apps").display());
    let launch = launch.env("PYTHONPATH", path).env("APP_MODULE", "waits:app");
    let mut running = launch.without_argument("hello:app").start();
    running.wait_log("\"message\":\"ready\"");
    wait_until("all workers", || all_are_ready(&running));
    let odd = ["/a%00%1b[31m%0a%0d{\"", "/%ff%fe\"\\", "/caf%C3%A9/0123456789abcdef0123456789abcdef"];
    let _clients: Vec<_> = odd.iter().flat_map(|path| hang(&running, path, 1)).collect();
    wait_until_told(&running, 3);
    let pid = i32::try_from(workers(&running)[0]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    running.wait_log("\"message\":\"end\"");
    let log = running.log();
    let lines = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let record = lines.rev().find(|line| line["message"] == "end").unwrap()["record"].clone();
    let shown = paths(&record);
    assert!(shown.iter().all(|path| path.bytes().all(|byte| matches!(byte, b' '..=b'~'))), "{shown:?}");
    assert_eq!((shown.len(), &*shown[2]), (3, "GET /caf\\\\xe9/..."), "{shown:?}");
}
