//! Files that are generated from the option table are current. `UPDATE_DOCS=1` in the environment rewrites them.

use std::fs;
use std::path::PathBuf;

use mcp_launch::docs;
use mcp_launch::host::Environment;
use mcp_launch::settings::{FlagLayer, OPTIONS, resolve};

const BEGIN: &str = "<!-- settings -->\n";
const END: &str = "<!-- /settings -->";

fn in_project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn assert_current(path: &str, current: &str) {
    let file = in_project(path);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(&file, current).expect("writable");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == current, "{path} is stale; UPDATE_DOCS=1 cargo test --test no_server docs_current rewrites it");
}

#[test]
fn the_settings_reference_is_current() {
    let path = "config/README.md";
    let text = fs::read_to_string(in_project(path)).expect("the reference");
    let (before, rest) = text.split_once(BEGIN).expect("the first marker");
    let (_, after) = rest.split_once(END).expect("the second marker");
    assert_current(path, &format!("{before}{BEGIN}\n{}{END}{after}", docs::settings_reference()));
}

#[test]
fn the_example_file_is_current() {
    assert_current("config/mcp-launch.toml", &docs::example_toml());
}

#[test]
fn the_example_file_shows_the_defaults() {
    let example = docs::example_toml();
    let uncommented: Vec<_> = example
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|first: char| first.is_alphabetic()))
                .unwrap_or(line)
        })
        .collect();
    let text = uncommented.join("\n");
    let read = |text: &str| {
        let text = text.as_bytes().to_vec();
        resolve(&FlagLayer::default(), &Environment::new(), &move |_| Ok(text.clone()))
    };
    let (all, none) = (read(&text), read(&example));
    assert_eq!((&all.problems, &all.warnings), (&none.problems, &none.warnings));
    assert!(all.problems.is_empty(), "{:?}", all.problems);
    let (all, none) = (all.settings.entries(), none.settings.entries());
    assert_eq!(all.len(), OPTIONS.len());
    for (set, default) in all.iter().zip(&none) {
        assert_eq!(set.value, default.value, "{}", set.opt.id);
        assert!(set.origin.is_explicit() && !default.origin.is_explicit(), "{}", set.opt.id);
    }
}

#[test]
fn the_map_names_files_that_exist() {
    let map = fs::read_to_string(in_project("src/lib.rs")).expect("the map");
    let is_source = |word: &&str| matches!(word.rsplit_once('.'), Some((_, "rs" | "py")));
    let files: Vec<_> = map.split('`').filter(is_source).collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        assert!(in_project("src").join(file).exists(), "src/lib.rs names {file}");
    }
}
