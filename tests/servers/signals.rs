//! No signal is lost: a few of each kind of which `scripts/stress-signals` sends thousands.

use crate::harness;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_signal_at_any_point_of_the_start_and_of_a_reload_has_its_effect() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/stress-signals");
    let output = Command::new(script)
        .args(["--jobs", "2", "4"])
        .env("MCP_LAUNCH", harness::PROGRAM)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("lost: 0"), "{text}");
}
