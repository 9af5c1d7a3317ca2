//! The plugins' requirements, with the image's own pip, if only the data folder is writable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::engine::{Container, engine, image, unique};
use crate::harness::http::get;

/// A wheel of one module, and requirements that name it: no index is needed.
fn make_plugin(directory: &Path) {
    let wheel = "a_plugin-1.0-py3-none-any.whl";
    let make = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('a_plugin.py', 'from hello import app\\n')
    info = 'a_plugin-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: a-plugin\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";
    let status = Command::new("python3").args(["-c", make]).arg(directory.join(wheel)).status().unwrap();
    assert!(status.success());
    fs::write(directory.join("requirements.txt"), format!("./plugins/{wheel}\n")).unwrap();
}

struct Volume(String);

impl Volume {
    fn new(name: String) -> Self {
        let made = engine().args(["volume", "create", &name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = engine().args(["volume", "rm", "--force", &self.0]).output();
    }
}

#[test]
fn requirements_are_installed_once_on_a_read_only_root() {
    if image().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make_plugin(directory.path());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let volume = Volume::new(unique("data"));
    let data = format!("--volume={}:/app/data", volume.0);
    let plugins = format!("--volume={}:/app/plugins:ro", directory.path().display());
    let options = [
        "--read-only",
        "--tmpfs=/tmp",
        "--user=12345:0",
        &data,
        &plugins,
        "--env=RELOAD_PLUGIN_REQUIREMENTS_TXT=true",
        "--env=PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS=0.1",
    ];
    for installed in [true, false] {
        let mut container = Container::start(&options, &["--server", "granian", "a_plugin:app"]).unwrap();
        container.running.wait_log(" ready generation=1");
        let out = container.running.out();
        assert_eq!(out.contains("Successfully installed a-plugin-1.0"), installed, "{out}");
        assert_eq!(get(container.running.port, "/").unwrap().status, 200);
        container.stop_well();
    }
    // There is no place to install them: that is reported, and nothing is started.
    let options: Vec<&str> = options.into_iter().filter(|option| *option != data).collect();
    let failed = Container::finish(&options, &["--server", "granian", "hello:app"]).unwrap();
    assert_eq!(failed.code, 1, "{}", failed.log);
    assert!(failed.log.contains("Read-only file system"), "{}", failed.log);
    assert!(failed.log.contains("nothing is started"), "{}", failed.log);
}
