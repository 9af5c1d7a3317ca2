//! The direction of imports: argv, env, file → settings → (with host facts) plan → run. None goes backwards, so
//! everything up to the plan stays pure and can be tested without starting a process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each part may import, besides itself. A part only imports from those above it, so there are no circles.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("test_alone", &[]),
    ("sys", &["test_alone"]),
    ("test_time", &[]),
    ("guard::scoreboard", &["sys"]),
    ("host", &["sys"]),
    ("ids", &[]),
    ("proc", &["sys", "ids", "test_alone"]),
    ("problem", &[]),
    ("probe", &[]),
    ("settings", &["problem", "host"]),
    ("log", &["sys", "settings"]),
    ("import", &["settings", "problem"]),
    ("guard", &["sys", "guard::scoreboard", "host", "settings", "problem"]),
    ("tls", &["sys", "settings", "problem", "host"]),
    ("plan", &["settings", "problem", "host", "guard", "tls"]),
    // Its tests use the results of certificate checks, which are input of the plan.
    ("report", &["settings", "problem", "host", "plan", "tls"]),
    ("control", &["sys", "test_alone", "settings", "problem", "host", "proc", "probe", "plan", "report"]),
    (
        "run",
        &[
            "sys",
            "ids",
            "test_alone",
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
    ("compare", &["sys", "test_alone", "settings", "problem", "host", "proc", "plan", "control"]),
    ("top", &["sys", "problem", "control", "run"]),
    ("cli", &["settings", "host", "compare", "top"]),
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
            "top",
            "cli",
            "docs",
            "log",
            "import",
        ],
    ),
    ("fuzzing", &["control", "host", "cli", "settings", "tls", "plan", "probe", "import", "proc", "supervisor"]),
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
            assert!(above, "{part} may import {import}, which is not above it");
        }
    }
}

/// What a server can do is in its capabilities.
#[test]
fn the_supervisor_names_no_server() {
    for file in sources() {
        let path = path_in_src(&file);
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

/// The uses of types that differ among architectures. `c_char` is signed on some of them only, so it may be pointed to,
/// and its value is handled as a byte; text is bytes, so nothing is an `i8`.
fn architecture_dependent(text: &str) -> Vec<&str> {
    let is_pointee = |before: &str| before.ends_with("*const libc::") || before.ends_with("*mut libc::");
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let names = |line: &str, name: &str| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_name = !before.ends_with(is_word) && !after.starts_with(is_word);
            is_name && (name != "c_char" || !is_pointee(before))
        })
    };
    let literal = |line: &str| line.contains("'.cast_signed()");
    code_lines(text).filter(|line| names(line, "c_char") || names(line, "i8") || literal(line)).collect()
}

#[test]
fn no_type_depends_on_whether_char_is_signed() {
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(architecture_dependent(&text), [""; 0], "{}", file.display());
    }
    for text in ["let a: libc::c_char = 0;", "x as i8", "b'0'.cast_signed()", "use libc::c_char;"] {
        assert_eq!(architecture_dependent(text), [text]);
    }
    assert!(architecture_dependent("static environ: *const *mut libc::c_char;\nlet utf8 = i8_name;").is_empty());
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::settings::{Resolution, value::Mode};\n// crate::run\nlet a = crate::host::probe();\n\
                use crate::{plan, guard::scoreboard::Slot};\npub(crate) fn f() {}\nuse mcp_launch::tls;\n";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["guard::scoreboard", "host", "plan", "settings", "tls"]);
}

/// The part to which a source file belongs; none for the roots.
fn part_of(file: &Path) -> Option<String> {
    let path = file.strip_prefix(project().join("src")).unwrap().with_extension("");
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap()).collect();
    match names.as_slice() {
        [] | ["main" | "lib"] => None,
        ["guard", "scoreboard", ..] => Some("guard::scoreboard".to_owned()),
        [first, ..] => Some((*first).to_owned()),
    }
}

/// The parts of this crate that a source text uses.
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

/// The elements between the commas of `{…}`, without splitting nested groups.
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

/// The first part of a path. Macros and items of the crate's root have none.
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

pub fn path_in_src(file: &Path) -> String {
    file.strip_prefix(project().join("src")).unwrap().to_string_lossy().into_owned()
}

pub fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

pub fn sources() -> Vec<PathBuf> {
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

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
