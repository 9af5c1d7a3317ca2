//! What a test needs and may not be there; a test without it is skipped.

use std::path::PathBuf;

/// The virtual environment with the real servers.
pub fn venv() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_VENV")
}

/// The virtual environment with what checks files.
pub fn tools() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_TOOLS")
}

/// The folder with what `scripts/release` has made.
pub fn release() -> Option<PathBuf> {
    made_by_scripts_test("MCP_LAUNCH_TEST_RELEASE")
}

fn made_by_scripts_test(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("SKIPPED: {variable} is not set; scripts/test makes what it names, and sets it");
    }
    path
}

/// Whether this machine has a program; if not, the test says that it is skipped.
pub fn has(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("SKIPPED: there is no {program} on this machine");
    }
    found
}
