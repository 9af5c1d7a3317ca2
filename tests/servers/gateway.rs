//! The main use of this program: the real MCP Gateway, started, used, damaged and stopped, on both servers.

use std::process::Command;
use std::time::Duration;

use crate::harness::http::{get, get_with};
use crate::harness::{self, Launch, Running, children, venv, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long its start may take on a busy machine.
const BOOT: Duration = Duration::from_mins(3);

const SECRET: &str = "p8Zk3vQ0xW-7yTn5bR2mJc9sLhF4uGdE";

/// The gateway with its own database, ready; none if it is not installed.
pub fn start(server: &str, workers: &str) -> Option<Running> {
    let venv = venv()?;
    let launch = Launch::new(&["--server", server, "--workers", workers]);
    let database = format!("sqlite:///{}/mcp.db", launch.directory.path().display());
    let temporary = launch.directory.path().display().to_string();
    let mut running = launch
        .env("VIRTUAL_ENV", venv.to_str().unwrap())
        .env("DATABASE_URL", &database)
        .env("TMPDIR", &temporary)
        .env("MCP_LAUNCH_STARTUP_TIMEOUT", "170s")
        .env("JWT_SECRET_KEY", SECRET)
        .env("AUTH_ENCRYPTION_SECRET", SECRET)
        .env("PLATFORM_ADMIN_EMAIL", "admin@example.com")
        .env("PLATFORM_ADMIN_PASSWORD", "Correct-Horse-9-Battery")
        // It keeps a core busy for ten seconds until it is ready.
        .in_turn()
        .start();
    running.wait_log_within(" ready ", 1, BOOT);
    Some(running)
}

/// A token from the gateway's own tool.
pub fn token() -> String {
    let python = venv().unwrap().join("bin/python");
    let output = Command::new(python)
        .args(["-m", "mcpgateway.utils.create_jwt_token", "--username", "admin@example.com", "--exp", "60"])
        .args(["--secret", SECRET])
        .env("JWT_SECRET_KEY", SECRET)
        .env("DATABASE_URL", "sqlite:///:memory:")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let token = text.split_whitespace().find(|word| word.starts_with("eyJ"));
    token.unwrap_or_else(|| panic!("no token: {text} {}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

fn workers(running: &Running) -> Vec<Pid> {
    running.children().first().map(|main| children(*main)).unwrap_or_default()
}

/// Every request is answered, whichever worker gets it.
fn answers(running: &Running) -> bool {
    (0..10).all(|_| get(running.port, "/health").is_ok_and(|answer| answer.status == 200))
}

fn is_served_and_survives(server: &str) {
    let Some(mut running) = start(server, "2") else { return };
    assert!(answers(&running));
    assert_eq!(get(running.port, "/tools").unwrap().status, 401);
    let authorization = format!("Authorization: Bearer {}\r\n", token());
    let answer = get_with(running.port, "/tools", &authorization).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"));

    wait_until("both workers", || workers(&running).len() == 2);
    let victim = workers(&running)[0];
    kill(victim, Signal::SIGKILL).unwrap();
    wait_until("another worker", || workers(&running).len() == 2 && !workers(&running).contains(&victim));
    wait_until("answers after a worker was killed", || answers(&running));

    let main = running.children()[0];
    kill(main, Signal::SIGKILL).unwrap();
    running.wait_log_within(" ready ", 2, BOOT);
    let successor = wait_for("another main process alone", || {
        running.children().first().copied().filter(|pid| *pid != main && running.children().len() == 1)
    });
    assert_ne!(successor, main);
    assert!(answers(&running));
    let all = running.descendants();
    assert_eq!(running.stop(), 0, "{}", running.log());
    assert!(all.iter().all(|pid| !harness::is_alive(*pid)));
}

#[test]
fn the_gateway_is_served_by_gunicorn_and_survives_kills() {
    is_served_and_survives("gunicorn");
}

#[test]
fn the_gateway_is_served_by_granian_and_survives_kills() {
    is_served_and_survives("granian");
}
