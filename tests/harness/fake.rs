//! The fake server of `tests/fake`, in a made-up virtual environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::Pid;

use super::{Launch, Running, tests_directory, write_program};

/// An interpreter that any user may execute, if there is one: the one on PATH may be in a user's home.
fn interpreter() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let common = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from);
        common.into_iter().find(|path| path.exists()).unwrap_or_else(|| {
            let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
            String::from_utf8(asked.stdout).unwrap().trim().into()
        })
    })
}

/// Makes a virtual environment with a program for each of the servers.
pub fn make_venv(venv: &Path) {
    let site = venv.join("lib/python3.11/site-packages");
    for package in ["gunicorn-27.0.1", "granian-2.8.7", "uvicorn-0.54.0", "uvicorn_worker-0.4.0", "uvloop-0.22.0"] {
        fs::create_dir_all(site.join(format!("{package}.dist-info"))).unwrap();
    }
    fs::create_dir_all(venv.join("bin")).unwrap();
    std::os::unix::fs::symlink(interpreter(), venv.join("bin/python")).unwrap();
    let home = interpreter().parent().unwrap().display();
    fs::write(venv.join("pyvenv.cfg"), format!("home = {home}\nversion = 3.11.0\n")).unwrap();
    for server in ["gunicorn", "granian"] {
        let text = fs::read_to_string(tests_directory("fake").join("server.py")).unwrap();
        let program = venv.join("bin").join(server);
        write_program(&program, &format!("#!{} -SE\n{text}", venv.join("bin/python").display()));
    }
}

impl Launch {
    /// The fake server, one worker, short waits; `tests/fake/server.py` describes its behaviours.
    pub fn fake(server: &str, fates: &str, arguments: &[&str]) -> Self {
        let mut launch = Self::new(&[]);
        let venv = launch.directory.path().join("venv");
        make_venv(&venv);
        let state = launch.directory.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(launch.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        launch
            .command
            .args(["--server", server, "--workers", "1"])
            .args(arguments)
            .arg("fake:app")
            .env("VIRTUAL_ENV", venv)
            .env("FAKE_STATE", state)
            .env("FAKE_FATES", fates)
            .env("MCP_LAUNCH_CPUS", "2")
            .env("MCP_LAUNCH_GUARD", "off")
            .env("MCP_LAUNCH_BACKOFF_INITIAL", "20ms")
            .env("MCP_LAUNCH_BACKOFF_MAX", "50ms");
        launch
    }
}

impl Running {
    /// The pids in one of the fake server's files.
    pub fn notes(&self, name: &str) -> Vec<Pid> {
        let text = fs::read_to_string(self.directory.path().join("state").join(name)).unwrap_or_default();
        // The last line may be incomplete.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.map(|line| Pid::from_raw(line.parse().unwrap())).collect()
    }
}
