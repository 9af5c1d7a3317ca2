//! Where WSGI apps are served in another way: in exec mode, over TLS, in workers that are spawned.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{FLASK, launch, workers};
use crate::harness::http::get;
use crate::harness::{Launch, wait_until};
use crate::overload::Volley;
use crate::tls::certificates::pair;
use crate::tls::renewal::Load;

crate::for_each_wsgi_kind!(
    in_exec_mode_the_excess_is_refused,
    over_tls_the_excess_is_refused_and_a_handover_loses_no_request,
);

/// A launch of the Flask app, and the file that lets its requests for `/held` end.
fn gated(server: &str, arguments: &[&str]) -> Option<(Launch, PathBuf)> {
    let launch = launch(server, FLASK, arguments)?;
    let gate = launch.directory.path().join("gate");
    Some((Launch::env(launch, "GATE", &gate), gate))
}

fn in_exec_mode_the_excess_is_refused(server: &str) {
    let arguments = ["--mode", "exec", "--workers", "1", "--backpressure", "2"];
    let Some((launch, gate)) = gated(server, &arguments) else { return };
    let mut running = launch.start();
    // It does not count: a server may still be ending a request when its client has the answer.
    wait_until("an answer", || get(running.port, "/health").is_ok_and(|answer| answer.status == 200));
    let volley = Volley::fire(running.port, "/held", 4);
    wait_until("the excess to be refused", || volley.count(503) == 2);
    fs::write(gate, "").unwrap();
    assert_eq!(volley.finish().iter().filter(|answer| answer.0 == 200).count(), 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
    running.assert_nothing_left();
}

fn over_tls_the_excess_is_refused_and_a_handover_loses_no_request(server: &str) {
    let Some((launch, gate)) = gated(server, &["--workers", "1", "--backpressure", "4"]) else { return };
    pair(launch.directory.path(), "tls");
    let launch = launch.env("SSL", "true").env("CERT_FILE", "tls.crt").env("KEY_FILE", "tls.key");
    let mut running = launch.start();
    running.wait_log("ready generation=");
    let six = Command::new("curl")
        .args(["--silent", "--insecure", "--http1.1", "--parallel", "--parallel-immediate", "--max-time", "30"])
        .args(["--output", "/dev/null", "--write-out", "%{http_code}\n"])
        .arg(format!("https://127.0.0.1:{}/held?n=[1-6]", running.port))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl must be installed");
    wait_until("the excess to be refused", || workers(&running)[0]["load"]["rejected"] == 2);
    fs::write(gate, "").unwrap();
    let statuses = String::from_utf8(six.wait_with_output().unwrap().stdout).unwrap();
    let count = |status: &str| statuses.lines().filter(|said| *said == status).count();
    assert_eq!((count("200"), count("503")), (4, 2), "{statuses}");
    let load = Load::start(running.port);
    running.signal(Signal::SIGHUP);
    running.wait_log(" gone generation=1");
    let (answered, failures) = load.finish();
    assert!(answered > 0 && failures.is_empty(), "{answered} answered, {failures:?}\n{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// Python 3.14 spawns them by default: they inherit neither descriptors nor what was imported.
#[test]
fn workers_that_are_spawned_are_guarded_too() {
    let Some((launch, gate)) = gated("granian", &["--workers", "2", "--backpressure", "1"]) else { return };
    let text = "import multiprocessing\n\nmultiprocessing.set_start_method('spawn', force=True)\n";
    fs::write(launch.directory.path().join("sitecustomize.py"), text).unwrap();
    let path = std::env::join_paths([launch.directory.path(), &crate::harness::tests_directory("apps")]).unwrap();
    let mut running = Launch::env(launch, "PYTHONPATH", path).start();
    running.wait_log("ready generation=");
    let states: Vec<_> = workers(&running).into_iter().map(|worker| worker["load"]["state"].clone()).collect();
    assert_eq!(states, ["ready", "ready"]);
    let volley = Volley::fire(running.port, "/held", 8);
    wait_until("refusals", || volley.count(503) >= 6);
    fs::write(gate, "").unwrap();
    assert!(volley.finish().iter().all(|answer| [200, 503].contains(&answer.0)));
    assert_eq!(running.stop(), 0, "{}", running.log());
}
