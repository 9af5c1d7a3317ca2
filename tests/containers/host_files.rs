//! Containers without files of their own: system, Python and program are those of this machine, at their places. So they
//! need no image from a registry.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use super::engine::{engine, unique};
use crate::harness::ask::Answer;
use crate::harness::{Launch, PROGRAM, Running, skipped, tests_directory, venv};

const IMAGE: &str = "mcp-launch-test-empty";

/// A launcher in such a container.
pub struct Container {
    pub running: Running,
    pub name: String,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = engine().args(["rm", "--force", &self.name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Container {
    /// Starts the launcher with these arguments, on the host's network, in a directory with these files. None if there is
    /// no engine, or no server.
    pub fn start(
        options: &[String],
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Option<Self> {
        let venv = venv()?;
        if !has_image() {
            return None;
        }
        let mut launch = Launch::new(&[]);
        let directory = launch.directory.path().to_owned();
        for (name, content) in files {
            std::fs::write(directory.join(name), content).unwrap();
        }
        let name = unique(&launch.port.to_string());
        let mut command = engine();
        command.args(["run", "--rm", "--network=host", "--name", &name, "--tmpfs=/run", "--workdir"]).arg(&directory);
        command.args(options);
        let system = ["/usr", "/lib", "/lib64", "/bin", "/etc"].map(PathBuf::from).into_iter().filter(|p| p.exists());
        let ours = [venv.clone(), python_home(&venv), tests_directory("apps"), PathBuf::from(PROGRAM)];
        for path in system.chain(ours.into_iter().filter(|path| !path.starts_with("/usr"))) {
            command.arg("--volume").arg(format!("{0}:{0}:ro", path.display()));
        }
        command.arg("--volume").arg(format!("{0}:{0}", directory.display()));
        let text = |path: &Path| path.display().to_string();
        let (port, temporary, venv, apps) =
            (launch.port.to_string(), text(&directory), text(&venv), text(&tests_directory("apps")));
        let own = [
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("TMPDIR", &temporary),
            ("VIRTUAL_ENV", &venv),
            ("PYTHONPATH", &apps),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let all = own.iter().chain(environment);
        command.args(all.flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]));
        command.args([IMAGE, PROGRAM]).args(arguments);
        launch.command = command;
        Some(Self { running: launch.start(), name })
    }

    /// Runs the program in it, as in a shell there.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        engine().args(["exec", &self.name, PROGRAM]).args(arguments).output().unwrap().into()
    }

    /// Changes its limits. If the engine refuses that, says so and returns false.
    pub fn update(&self, options: &[&str]) -> bool {
        let updated = engine().arg("update").args(options).arg(&self.name).output().unwrap();
        if !updated.status.success() {
            skipped(&format!("the engine refuses {options:?}: {updated:?}"));
        }
        updated.status.success()
    }
}

/// An image without files.
fn has_image() -> bool {
    static MADE: OnceLock<bool> = OnceLock::new();
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let is_there = || quiet(engine().args(["image", "inspect", IMAGE]))?.wait();
    let make = || {
        const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];
        let mut import = quiet(engine().args(["import", "-", IMAGE]).stdin(Stdio::piped()))?;
        import.stdin.take().expect("piped").write_all(&EMPTY_ARCHIVE)?;
        import.wait()
    };
    let succeeds = |result: std::io::Result<ExitStatus>| result.is_ok_and(|status| status.success());
    let there = *MADE.get_or_init(|| succeeds(is_there()) || succeeds(make()));
    if !there {
        skipped("no container engine, so no limits");
    }
    there
}

/// The directory above `bin` in which the interpreter of a virtual environment is really located.
fn python_home(venv: &Path) -> PathBuf {
    let python = std::fs::canonicalize(venv.join("bin/python")).unwrap();
    python.ancestors().nth(2).unwrap().to_owned()
}
