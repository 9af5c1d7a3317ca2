//! docker-compose.yml with the real gateway on both servers: up, healthy, down.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{engine, image, unique};
use crate::harness::ask::Answer;
use crate::harness::http::get;
use crate::harness::{free_port, skipped};

/// `docker compose`, or the older `docker-compose`.
fn program() -> Option<Vec<&'static str>> {
    let candidates = [vec!["docker", "compose"], vec!["docker-compose"]];
    let found = candidates.into_iter().find(|candidate| {
        let version = Command::new(candidate[0]).args(&candidate[1..]).arg("version").output();
        version.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skipped("neither docker compose nor docker-compose is installed");
    }
    found
}

/// The services of their own project; they are removed at the end.
struct Project {
    program: Vec<&'static str>,
    name: String,
    gateway: u16,
    gunicorn: u16,
    image: String,
}

impl Project {
    fn new(what: &str) -> Option<Self> {
        let (image, program) = (image()?, program()?);
        let name = unique(what);
        Some(Self { program, name, gateway: free_port(), gunicorn: free_port(), image })
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        let secret = "p8Zk3vQ0xW-7yTn5bR2mJc9sLhF4uGdE";
        let mut command = Command::new(self.program[0]);
        command.args(&self.program[1..]).args(["--project-name", &self.name]).args(arguments);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).stdin(Stdio::null());
        command
            .env("GATEWAY_IMAGE", &self.image)
            .env("HTTP_SERVER", "granian")
            .env("PORT", format!("127.0.0.1:{}", self.gateway))
            .env("GUNICORN_PORT", format!("127.0.0.1:{}", self.gunicorn))
            .env("WORKERS", "1")
            // In memory: the migrations of a new database take long on a disk.
            .env("DATABASE_URL", "sqlite:////tmp/mcp.db")
            .env("MEMORY", "1g")
            .env("JWT_SECRET_KEY", secret)
            .env("AUTH_ENCRYPTION_SECRET", secret)
            .env("PLATFORM_ADMIN_PASSWORD", "Correct-Horse-9-Battery");
        command.output().unwrap().into()
    }

    fn containers(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let listed = Answer::from(engine().args(["ps", "--all", "--quiet", "--filter", &filter]).output().unwrap());
        listed.out.lines().map(str::to_owned).collect()
    }

    fn inspect(&self, format: &str) -> Vec<String> {
        let inspected = engine().args(["inspect", "--format", format]).args(self.containers()).output().unwrap();
        Answer::from(inspected).out.lines().map(str::to_owned).collect()
    }
}

/// Two gateways that boot at the same time on a busy machine take longer than anything else in the tests.
const BOOT: Duration = Duration::from_mins(3);

#[track_caller]
fn wait_boot(project: &Project, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + BOOT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} took too long:\n{}", project.run(&["logs"]).out);
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.run(&["down", "--volumes", "--timeout", "1"]);
    }
}

#[test]
fn both_servers_come_up_healthy_and_go_down_well() {
    let Some(project) = Project::new("up") else { return };
    let up = project.run(&["up", "--detach", "--no-build", "gateway", "gunicorn"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    wait_boot(&project, "both to serve", || {
        [project.gateway, project.gunicorn].into_iter().all(|port| get(port, "/health").is_ok())
    });
    wait_boot(&project, "both to be healthy", || {
        project.inspect("{{.State.Health.Status}}") == ["healthy", "healthy"]
    });
    for port in [project.gateway, project.gunicorn] {
        assert_eq!(get(port, "/health").unwrap().status, 200);
    }
    let stop = project.run(&["stop"]);
    assert_eq!(stop.code, Some(0), "{stop:?}");
    assert_eq!(project.inspect("{{.State.ExitCode}}"), ["0", "0"], "{}", project.run(&["logs"]).out);
    let down = project.run(&["down", "--volumes"]);
    assert_eq!((down.code, project.containers().len()), (Some(0), 0), "{down:?}");
}

/// The file is valid for every service, including those of profiles.
#[test]
fn every_service_is_valid() {
    let Some(project) = Project::new("config") else { return };
    for profile in ["gunicorn", "granian", "tls"] {
        let config = project.run(&["--profile", profile, "config"]);
        assert_eq!(config.code, Some(0), "{config:?}");
        assert!(config.out.contains(&format!("\n  {profile}:\n")), "{}", config.out);
    }
}
