//! Workers that end: what status shows about them, and that their successors are watched.

use nix::sys::signal::kill;

use super::*;
use crate::harness::ask::all_are_ready;
use crate::harness::{is_alive, skipped};

fn a_killed_worker_shows(server: &str) {
    let Some(mut running) = start(server) else { return };
    let victim = wait_for("two workers", || {
        let workers = worker_pids(&serving(&running));
        (workers.len() == 2).then(|| workers[0])
    });
    kill(victim, Signal::SIGKILL).unwrap();
    running.wait_log(&format!("worker exit generation=1 pid={victim} cause=killed by SIGKILL"));
    let generation = wait_for("the replacement", || {
        let generation = serving(&running);
        (worker_pids(&generation).len() == 2).then_some(generation)
    });
    assert_eq!(generation["restarts"], 1);
    let exit = &generation["last_exit"];
    assert_eq!(
        (&exit["pid"], &exit["cause"], &exit["signal"]),
        (&victim.as_raw().into(), &"signal".into(), &"SIGKILL".into())
    );
    assert!(!worker_pids(&generation).contains(&victim));
    let metrics = ask(&running, &["status", "--prometheus"]).out;
    assert!(metrics.contains("\nmcp_launch_worker_exits_total{cause=\"signal\"} 1\n"), "{metrics}");
    wait_until("the replacement to be ready", || all_are_ready(&running));
    assert_eq!(running.stop(), 0);
    assert_eq!(running.log().matches("worker exit").count(), 1, "workers that are stopped are not reported");
}

#[test]
fn a_killed_worker_shows_under_gunicorn() {
    a_killed_worker_shows("gunicorn");
}

#[test]
fn a_killed_worker_shows_under_granian() {
    a_killed_worker_shows("granian");
}

/// Whether a process has a pidfd of another, `proc_pid_fdinfo(5)`.
fn holds_handle_on(holder: Pid, pid: Pid) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{holder}/fdinfo")).unwrap();
    let texts = descriptors.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    texts.into_iter().any(|text| text.lines().any(|line| line == format!("Pid:\t{pid}")))
}

/// There is no status request in between: the launcher finds the replacement itself.
#[test]
fn a_replacement_is_watched_as_its_predecessor_was() {
    let Some(mut running) = start("gunicorn") else { return };
    let main = running.children()[0];
    for nth in 1..=3 {
        let victim = wait_for("two workers", || {
            let workers = harness::children(main);
            (workers.len() == 2).then(|| workers.into_iter().max().unwrap())
        });
        wait_until("a handle on it", || holds_handle_on(running.pid(), victim));
        kill(victim, Signal::SIGKILL).unwrap();
        running.wait_log(&format!("pid={victim} cause=killed by SIGKILL"));
        wait_until("its end", || !is_alive(victim));
        assert!(running.log().contains(&format!("restarts={nth}")), "{}", running.log());
    }
}

#[test]
fn an_exit_status_is_the_cause_where_there_is_one() {
    let Some(mut running) = start("gunicorn") else { return };
    let _ = get(running.port, "/crash?status=7");
    running.wait_log("cause=exit status 7");
    let exit = serving(&running)["last_exit"].clone();
    assert_eq!((&exit["cause"], &exit["status"]), (&"exit".into(), &7.into()));
}

#[test]
fn survivors_of_a_killed_main_process_are_watched_on() {
    let Some(venv) = venv() else { return };
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "2"]);
    // The replacement takes so long that the survivors can be inspected.
    let gate = launch.directory.path().join("hello.py");
    let release = launch.directory.path().join("release");
    let original = tests_directory("apps").join("hello.py");
    let mut launch = launch.env("PYTHONDONTWRITEBYTECODE", "1");
    launch.command.env("PYTHONPATH", launch.directory.path());
    std::fs::copy(&original, &gate).unwrap();
    let mut running = launch.start();
    wait_ready(&mut running, 2);
    let wait = format!(
        "import os, time\nwhile not os.path.exists({:?}):\n    time.sleep(0.01)\n{}",
        release.to_str().unwrap(),
        std::fs::read_to_string(&original).unwrap()
    );
    std::fs::write(&gate, wait).unwrap();
    let mut survivors = harness::children(running.children()[0]);
    survivors.sort();
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    running.wait_log("its workers keep serving");
    let orphaned = status(&running)["generations"][0].clone();
    assert_eq!((&orphaned["state"], &orphaned["main_pid"]), (&"orphaned".into(), &Value::Null));
    let mut workers = worker_pids(&orphaned);
    workers.sort();
    assert_eq!(workers, survivors);
    kill(survivors[0], Signal::SIGKILL).unwrap();
    running.wait_log(&format!("worker exit generation=1 pid={} cause=killed by SIGKILL", survivors[0]));
    std::fs::write(release, "").unwrap();
    running.wait_log_count(" ready ", 2);
    assert_eq!(status(&running)["failures"], 1);
    assert_eq!(running.stop(), 0);
}

/// As in containers, where root may not trace processes of other users: the kernel then shows how one has ended only
/// once it was reaped, since Linux 6.15.
#[test]
fn the_cause_is_known_for_a_worker_that_runs_as_another_user() {
    let Some(venv) = venv() else { return };
    if !is_root() {
        skipped("only root may change the user of a worker");
        return;
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap());
    let (major, minor): (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    let cause = if (major, minor) >= (6, 15) { "killed by SIGKILL" } else { "unknown" };
    let without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    let launch = Launch::app(&venv, "gunicorn", &["--workers", "2"]).through(&without);
    let mut running = start_as_another_user(launch);
    let main = running.children()[0];
    let [reaped, zombie] = worker_pids(&serving(&running))[..] else { panic!("two workers") };
    kill(reaped, Signal::SIGKILL).unwrap();
    running.wait_log(&format!("worker exit generation=1 pid={reaped} cause={cause} "));
    // While it is not reaped, nobody can know.
    kill(main, Signal::SIGSTOP).unwrap();
    kill(zombie, Signal::SIGKILL).unwrap();
    running.wait_log(&format!("worker exit generation=1 pid={zombie} cause=unknown "));
    kill(main, Signal::SIGCONT).unwrap();
    wait_until("two workers", || worker_pids(&serving(&running)).len() == 2);
    assert_eq!(running.stop(), 0, "{}", running.log());
}

/// By `--user`, if other users may run the interpreter; if not, the app in each worker changes its user.
fn start_as_another_user(launch: Launch) -> Running {
    use std::os::unix::fs::PermissionsExt;
    let python = venv().and_then(|venv| std::fs::canonicalize(venv.join("bin/python")).ok()).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    let directory = launch.directory.path().to_owned();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    let launch = if python.ancestors().all(|path| mode(path) & 1 != 0) {
        launch.env("GUNICORN_CMD_ARGS", "--user 65534 --group 65534")
    } else {
        let app = "import os\nimport hello\n\n\nasync def app(scope, receive, send):\n    await hello.app(scope, receive, send)\n    os.setuid(65534) if os.getuid() == 0 and scope['type'] == 'http' else None\n";
        std::fs::write(directory.join("becoming.py"), app).unwrap();
        let mut launch = launch.replacing_argument("hello:app", "becoming:app");
        let path = format!("{}:{}", directory.display(), tests_directory("apps").display());
        launch.command.env("PYTHONPATH", path);
        launch
    };
    let mut running = launch.start();
    wait_ready(&mut running, 2);
    let is_another = |pid: &Pid| harness::status_line(*pid, "Uid").starts_with("65534");
    wait_until("workers of another user", || {
        let _ = get(running.port, "/");
        worker_pids(&serving(&running)).iter().all(is_another)
    });
    running
}
