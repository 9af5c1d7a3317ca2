//! The direction of imports: argv, env, file → settings → (with host facts) plan → run. None goes backwards,
//! so everything up to the plan stays pure and can be tested without starting a process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each part may import, beside itself. A part imports only from those above it, so there are no circles.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("test_time", &[]),
    ("guard::scoreboard", &["sys"]),
    ("host", &["sys"]),
    ("ids", &[]),
    ("proc", &["sys", "ids"]),
    ("problem", &[]),
    ("probe", &[]),
    ("settings", &["problem", "host"]),
    ("log", &["sys", "settings"]),
    ("guard", &["sys", "guard::scoreboard", "host", "settings", "problem"]),
    ("tls", &["sys", "settings", "problem"]),
    ("plan", &["settings", "problem", "host", "guard", "tls"]),
    // Its tests make findings of certificates, which a plan is made from.
    ("report", &["settings", "problem", "host", "plan", "tls"]),
    ("control", &["sys", "settings", "problem", "host", "proc", "probe", "plan", "report"]),
    (
        "run",
        &[
            "sys",
            "ids",
            "test_time",
            "settings",
            "problem",
            "host",
            "proc",
            "guard",
            "tls",
            "plan",
            "report",
            "control",
        ],
    ),
    (
        "supervisor",
        &[
            "test_time",
            "sys",
            "ids",
            "settings",
            "problem",
            "host",
            "proc",
            "probe",
            "guard",
            "guard::scoreboard",
            "tls",
            "plan",
            "report",
            "control",
            "run",
        ],
    ),
    ("compare", &["sys", "settings", "problem", "host", "proc", "plan", "control"]),
    ("cli", &["settings", "host", "compare"]),
    ("docs", &["settings", "problem", "cli"]),
    (
        "commands",
        &[
            "sys",
            "settings",
            "problem",
            "proc",
            "host",
            "probe",
            "tls",
            "plan",
            "report",
            "control",
            "run",
            "supervisor",
            "compare",
            "cli",
            "docs",
            "log",
        ],
    ),
];

#[test]
fn no_import_goes_backwards() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(part) = part_of(&file) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{}: {part} is not in the table", file.display()));
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for import in imports(&text) {
            if import != part && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {part} imports {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go backwards:\n{}", wrong.join("\n"));
}

#[test]
fn there_are_no_circles() {
    for (at, (part, imports)) in MAY_IMPORT.iter().enumerate() {
        for import in *imports {
            let above = MAY_IMPORT[..at].iter().any(|(name, _)| name == import);
            assert!(above, "{part} may import {import}, which does not stand above it");
        }
    }
}

/// What the pure part of the supervisor may name of the rest: plain data, and values without a life of their own.
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
/// What reads or changes the world.
const IMPURE: &[&str] = &[
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

/// The state machine and every policy, their tests included.
fn is_pure(file: &Path) -> bool {
    let path = file.strip_prefix(project().join("src")).unwrap().to_string_lossy().into_owned();
    let policy = path.contains("/policy.rs") || path.contains("/policy/");
    path.starts_with("supervisor/machine/")
        || path == "run/stop_sequence.rs"
        || path.starts_with("supervisor/") && policy
}

/// What a source text names that the pure part must not.
fn breaches(text: &str) -> Vec<String> {
    let code: Vec<&str> = code_lines(text).collect();
    let impure = IMPURE.iter().filter(|word| code.iter().any(|line| line.contains(*word))).map(ToString::to_string);
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
            let found = breaches(&std::fs::read_to_string(file).unwrap());
            found.into_iter().map(move |what| format!("{}: {what}", file.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "the pure part of the supervisor names what it must not:\n{}", wrong.join("\n"));
}

#[test]
fn a_breach_of_purity_is_found() {
    for text in [
        "use std::fs;\n",
        "    let now = Instant::now();\n",
        "use crate::supervisor::World;\n",
        "use crate::sys::spawn;",
    ] {
        assert_eq!(breaches(text).len(), 1, "{text}");
    }
    assert_eq!(breaches("// std::fs\nuse crate::ids::PlanId;\nuse std::time::Instant;\n"), [""; 0]);
}

/// Who may import whom inside the supervisor: the machine nobody, a policy the machine's values, a component both.
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

/// What a server can do is in its capabilities.
#[test]
fn the_supervisor_names_no_server() {
    for file in sources() {
        let path = file.strip_prefix(project().join("src")).unwrap().to_string_lossy().into_owned();
        if !path.starts_with("supervisor/") || path.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in ["Server::Gunicorn", "Server::Granian"] {
            assert!(!code_lines(code).any(|line| line.contains(name)), "{path} names {name}");
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let wrong: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| part_of(file).as_deref() != Some("sys"))
        .filter(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            code_lines(&text).any(|line| {
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"]
                    .iter()
                    .any(|word| line.contains(word))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "unsafe code outside src/sys: {wrong:?}");
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::settings::{Resolution, value::Mode};\n// crate::run\nlet a = crate::host::probe();\n\
                use crate::{plan, guard::scoreboard::Slot};\npub(crate) fn f() {}\nuse mcp_launch::tls;\n";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["guard::scoreboard", "host", "plan", "settings", "tls"]);
}

/// The part that a source file belongs to; none for the roots.
fn part_of(file: &Path) -> Option<String> {
    let path = file.strip_prefix(project().join("src")).unwrap().with_extension("");
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap()).collect();
    match names.as_slice() {
        [] | ["main" | "lib"] => None,
        ["guard", "scoreboard", ..] => Some("guard::scoreboard".to_owned()),
        [first, ..] => Some((*first).to_owned()),
    }
}

/// The parts of this crate that a source text names.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = code_lines(text).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for root in ["crate::", "mcp_launch::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_members(group).filter_map(part_named)),
                None => found.extend(part_named(rest)),
            }
        }
    }
    found
}

/// What stands between the commas of `{…}`, nested groups left whole.
fn group_members(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let mut members = Vec::new();
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    members.into_iter().map(str::trim)
}

/// The part that a path begins with. Macros and items of the crate's root have none.
fn part_named(path: &str) -> Option<String> {
    if path.starts_with("guard::scoreboard") {
        return Some("guard::scoreboard".to_owned());
    }
    let end = path.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(path.len());
    let name = &path[..end];
    let exists = |file: String| project().join("src").join(file).exists();
    let known = MAY_IMPORT.iter().any(|(part, _)| *part == name);
    (known || exists(format!("{name}.rs")) || exists(format!("{name}/mod.rs"))).then(|| name.to_owned())
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn sources() -> Vec<PathBuf> {
    let mut waiting = vec![project().join("src")];
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
