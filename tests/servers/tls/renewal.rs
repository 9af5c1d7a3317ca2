//! Certificates that change while they are in use.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use nix::sys::signal::{Signal, kill};

use super::certificates::{DAYS, ask, in_memory, launch, pair, serves};
use crate::harness::{Running, Turn, children, take_turn, wait_until};

crate::for_both_servers!(
    a_renewed_secret_is_served_by_itself_and_no_request_is_lost,
    a_broken_renewal_keeps_the_old_certificate,
    a_respawned_worker_has_what_its_generation_has
);

/// A server whose files are links into a directory that is itself a link, as Kubernetes mounts a secret. There are
/// two pairs, `v1` and `v2`.
fn start_with_secret(server: &str, arguments: &[&str]) -> Option<Running> {
    let launch = launch(server, "tls", arguments)?;
    let root = launch.directory.path();
    for version in ["v1", "v2"] {
        fs::create_dir(root.join(version)).unwrap();
        pair(&root.join(version), "tls");
    }
    point(root, "v1");
    for kind in ["crt", "key"] {
        symlink(format!("..data/tls.{kind}"), root.join(format!("tls.{kind}"))).unwrap();
    }
    let mut running = launch.start();
    running.wait_log(" ready ");
    Some(running)
}

/// Renews the whole secret at once.
fn point(root: &Path, version: &str) {
    symlink(version, root.join("..new")).unwrap();
    fs::rename(root.join("..new"), root.join("..data")).unwrap();
}

fn a_renewed_secret_is_served_by_itself_and_no_request_is_lost(server: &str) {
    let Some(mut running) = start_with_secret(server, &["--watch-certs"]) else { return };
    assert!(serves(&running, "v1/tls.crt") && !serves(&running, "v2/tls.crt"));
    let load = Load::start(running.port);
    for (renewal, version) in [(1, "v2"), (2, "v1")] {
        point(running.directory.path(), version);
        running.wait_log_count(" ready ", renewal + 1);
        running.wait_log_count(" gone ", renewal);
        assert!(serves(&running, &format!("{version}/tls.crt")), "{}", running.log());
        let files = in_memory(running.pid().as_raw());
        assert_eq!(files.len(), usize::from(server == "granian"), "those of the old generation are gone: {files:?}");
    }
    let (answered, failures) = load.finish();
    assert!(answered > 20 && failures.is_empty(), "{answered} answered, {failures:?}\n{}", running.log());
    assert_eq!(running.log().matches("watched files have changed").count(), 2, "{}", running.log());
    assert_eq!(running.stop(), 0, "{}", running.log());
}

fn a_broken_renewal_keeps_the_old_certificate(server: &str) {
    let Some(mut running) = start_with_secret(server, &["--watch-certs"]) else { return };
    let status = crate::harness::ask::ask(&running, &["status", "--json"]).json();
    let expiry = status["generations"][0]["certificate_expiry_timestamp"].as_u64().unwrap();
    let left = expiry - UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((DAYS - 1..=DAYS).contains(&(left / 86_400)), "{left} s");
    let key = running.directory.path().join("v1/tls.key");
    let good = fs::read(&key).unwrap();
    fs::copy(running.directory.path().join("v2/tls.key"), &key).unwrap();
    let (code, said) = ask(&running, &["reload"]);
    assert!(code == 1 && said.contains("do not match") && said.contains("CERT_FILE"), "{said}");
    // Half of a renewal is given time; only if nothing follows, it is reported.
    running.wait_log("watched files have changed but cannot be used");
    assert!(serves(&running, "v1/tls.crt"), "{}", running.log());
    // Once the files are repaired, no request is needed.
    fs::copy(running.directory.path().join("v2/tls.crt"), running.directory.path().join("v1/tls.crt")).unwrap();
    running.wait_log_count(" ready ", 2);
    running.wait_log(" gone ");
    assert!(serves(&running, "v2/tls.crt"));
    assert_ne!(fs::read(&key).unwrap(), good);
    assert_eq!(running.stop(), 0);
}

fn a_respawned_worker_has_what_its_generation_has(server: &str) {
    let Some(mut running) = start_with_secret(server, &[]) else { return };
    point(running.directory.path(), "v2");
    let main = running.children()[0];
    let worker = children(main)[0];
    kill(worker, Signal::SIGKILL).unwrap();
    wait_until("another worker", || children(main).first().is_some_and(|found| *found != worker));
    wait_until("an answer", || serves(&running, "v1/tls.crt"));
    assert!(!serves(&running, "v2/tls.crt"));
    assert_eq!(running.stop(), 0);
}

/// Clients (curl) that make requests repeatedly, each on a new connection, which it then keeps for a while.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
    _turn: Turn,
}

impl Load {
    pub fn start(port: u16) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Relaxed) {
                    failures.extend(ask_ten_times(port, &answered));
                }
                failures
            })
        };
        Self { _turn: take_turn(), clients: (0..3).map(client).collect(), stop, answered }
    }

    pub fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.answered.load(Relaxed), failures)
    }
}

fn ask_ten_times(port: u16, answered: &AtomicU64) -> Vec<String> {
    let output = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "20", "--write-out", "%{http_code}\n"])
        .args(["--output", "/dev/null", &format!("https://127.0.0.1:{port}/[1-10]")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (good, bad): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| *line == "200");
    answered.fetch_add(good.len() as u64, Relaxed);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    bad.into_iter().map(|line| format!("{line} {said}")).collect()
}
