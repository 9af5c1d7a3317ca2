//! What a test needs and may be missing; without it, the test is skipped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::skipped;

/// The virtual environment with the real servers.
pub fn venv() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_VENV")
}

/// The virtual environment with the real servers without one of its packages, made of links in a directory.
pub fn venv_without(package: &str, place: &Path) -> PathBuf {
    let whole = venv().unwrap();
    let below = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let site = below(&whole.join("lib")).next().unwrap().join("site-packages");
    let own_site = place.join(site.strip_prefix(&whole).unwrap());
    fs::create_dir_all(&own_site).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    for path in below(&site).filter(|path| !name(path).starts_with(package)) {
        symlink(&path, own_site.join(name(&path))).unwrap();
    }
    fs::copy(whole.join("pyvenv.cfg"), place.join("pyvenv.cfg")).unwrap();
    let own_python = place.join("bin/python");
    fs::create_dir(place.join("bin")).unwrap();
    symlink(fs::canonicalize(whole.join("bin/python")).unwrap(), &own_python).unwrap();
    for server in ["gunicorn", "granian"] {
        let text = fs::read_to_string(whole.join("bin").join(server)).unwrap();
        let script = format!("#!{}\n{}", own_python.display(), text.split_once('\n').unwrap().1);
        let path = place.join("bin").join(server);
        super::write_program(&path, &script);
    }
    place.to_owned()
}

/// Whether other users may run a program.
pub fn readable_by_all(program: &Path) -> bool {
    let may_enter = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 1 != 0);
    fs::canonicalize(program).is_ok_and(|program| program.ancestors().all(may_enter))
}

/// The virtual environment with the tools that check files.
pub fn tools() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_TOOLS")
}

/// The folder with the results of `scripts/release`.
pub fn release() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_RELEASE")
}

fn made_by_scripts_test(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        skipped(&format!("{variable} is not set; scripts/test makes what it names, and sets it"));
    }
    path
}

/// Whether this machine has a program; if not, prints that the test is skipped.
pub fn has(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(program).is_file());
    if !found {
        skipped(&format!("there is no {program} on this machine"));
    }
    found
}
