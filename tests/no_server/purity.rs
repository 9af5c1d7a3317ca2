//! The walls around pure code: the state machine, the policies, and every file that claims to be pure. They make it
//! possible to test decisions without processes, files and clocks.

use std::path::{Path, PathBuf};

use crate::layering::{code_lines, path_in_src, sources};

/// What the pure part of the supervisor may use from the rest: plain data and values.
const PURE_MAY_NAME: &[&str] = &[
    "ids::",
    "plan::Policy",
    "settings::value::",
    "problem::Exit",
    "host::MemoryUse",
    "proc::memory::Footprint",
    "proc::thread_stats::ThreadStats",
    "guard::scoreboard::State",
    "run::stop_sequence::",
    "supervisor::machine::",
    "supervisor::watchdog::policy::",
    "test_time::",
];
/// Names with which code reads or changes the world.
const IMPURE: &[&str] = &[
    "std::{",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::os::",
    "SystemTime",
    "Instant::now",
    "nix::unistd::get",
    "sys::signal::kill",
    "tracing::",
];

/// Those that do so in code that may use such types as values.
const ACTING: &[&str] = &["std::fs", "std::process", "std::thread", "std::env", "SystemTime::now", "Instant::now"];

/// The state machine and every policy, including their tests.
fn is_pure(file: &Path) -> bool {
    let path = path_in_src(file);
    let policy = path.contains("/policy.rs") || path.contains("/policy/");
    path.starts_with("supervisor/machine/")
        || path == "run/stop_sequence.rs"
        || path.starts_with("supervisor/") && policy
}

/// How many `super::` in a row stay within the pure part, outside of inline tests.
fn levels_above(path: &str) -> usize {
    let depth = |below: &str| below.trim_end_matches("/mod.rs").matches('/').count() + 1;
    match path.strip_prefix("supervisor/machine/") {
        Some("mod.rs") => 0,
        Some(below) => depth(below),
        None => usize::from(path.contains("/policy/")),
    }
}

/// The forbidden names in the text of a pure source file, which may import from this many levels above.
fn breaches(text: &str, levels: usize) -> Vec<String> {
    let (code, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    let leaves = |text: &str, levels| code_lines(text).any(|line| line.contains(&"super::".repeat(levels + 1)));
    let leaves = leaves(code, levels) || leaves(tests, levels + 1);
    let code: Vec<&str> = code_lines(text).collect();
    let impure = IMPURE.iter().filter(|word| code.iter().any(|line| line.contains(*word))).map(ToString::to_string);
    let impure = impure.chain(leaves.then(|| "super:: beyond the pure part".to_owned()));
    let named = code.iter().flat_map(|line| line.match_indices("crate::").map(move |(at, _)| &line[at + 7..]));
    let foreign = named.filter(|rest| !PURE_MAY_NAME.iter().any(|name| rest.starts_with(name)));
    impure.chain(foreign.map(|rest| format!("crate::{}", rest.trim_end_matches(';')))).collect()
}

#[test]
fn the_state_machine_and_the_policies_are_pure() {
    let files: Vec<PathBuf> = sources().into_iter().filter(|file| is_pure(file)).collect();
    assert!(files.len() > 15, "{files:?}");
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let found = breaches(&std::fs::read_to_string(file).unwrap(), levels_above(&path_in_src(file)));
            found.into_iter().map(move |what| format!("{}: {what}", file.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "the pure part of the supervisor names what it must not:\n{}", wrong.join("\n"));
}

/// The other files that are pure say so at their top.
#[test]
fn files_that_claim_to_be_pure_neither_read_nor_change_the_world() {
    let claims =
        |text: &str| text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("Pure"));
    let mut count = 0;
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        if claims(&text) {
            count += 1;
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let found = ACTING.iter().find(|name| code_lines(code).any(|line| line.contains(**name)));
            assert_eq!(found, None, "{}", file.display());
        }
    }
    assert!(count >= 20, "{count} files");
}

#[test]
fn a_breach_of_purity_is_found() {
    for text in [
        "use std::fs;\n",
        "    let now = Instant::now();\n",
        "use crate::supervisor::World;\n",
        "use crate::sys::spawn;",
        "use std::{fs, time::Instant};\n",
        "use super::World;\n",
        "#[cfg(test)]\nmod tests {\n    use super::super::World;\n",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n",
    ] {
        assert_eq!(breaches(text, 0).len(), 1, "{text}");
    }
    let text = "// std::fs\nuse crate::ids::PlanId;\nuse std::time::Instant;\n#[cfg(test)]\nmod tests {\n    use super::*;\n";
    assert_eq!(breaches(text, 0), [""; 0]);
    let files = ["machine/mod.rs", "machine/stepwise.rs", "machine/tests/mod.rs", "machine/tests/walk/world.rs"];
    assert_eq!(files.map(|file| levels_above(&format!("supervisor/{file}"))), [0, 1, 1, 3]);
    let files = ["supervisor/watchdog/policy.rs", "supervisor/watchdog/policy/tests.rs", "run/stop_sequence.rs"];
    assert_eq!(files.map(levels_above), [0, 1, 0]);
}

/// The imports inside the supervisor: the machine imports no other part, a policy only the machine's values, a
/// component both.
#[test]
fn the_machine_knows_no_component() {
    let names = ["World", "component::", "effects::", "event_loop::", "observers::", "readiness::"];
    for file in sources().into_iter().filter(|file| is_pure(file)) {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in names {
            let wanted = format!("supervisor::{name}");
            assert!(!code_lines(&text).any(|line| line.contains(&wanted)), "{} names {wanted}", file.display());
        }
    }
}
