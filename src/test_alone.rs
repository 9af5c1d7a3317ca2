//! Tests that need a process of their own.
//!
//! Tests run in threads of one process, and some of them start programs. Such a child has a copy of every descriptor of
//! this process until it executes its program, so a socket or a file that one test has closed may still be open then. A
//! test of what happens once the last copy is closed must not run beside them.

use std::process::Command;

/// Says to the test program that it is the process of one test.
const VARIABLE: &str = "MCP_LAUNCH_TEST_ALONE";

/// Runs the test's body in a process in which there is no other test.
///
/// # Panics
/// If the body does, with its output.
pub fn alone(body: impl FnOnce()) {
    let thread = std::thread::current();
    // The tests of a single thread run in the main one.
    let name = thread.name().filter(|name| *name != "main" && std::env::var_os(VARIABLE).is_none());
    let Some(name) = name else { return body() };
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([name, "--exact", "--nocapture"]).env(VARIABLE, "yes").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
