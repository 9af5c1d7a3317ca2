//! Which Python is chosen, and what is known about it without starting it.

use std::path::{Path, PathBuf};

use mcp_launch::host::python::{DEADLINE, version_of};
use mcp_launch::host::{Interpreter, Program, Python, Query, Version, probe};

use super::tree::Tree;
use crate::harness::write_program;

fn python(query: &Query) -> (Python, Vec<String>) {
    let host = probe(query);
    (host.python, host.notes)
}

fn interpreter(python: &Python) -> &Interpreter {
    python.interpreter.as_ref().expect("an interpreter")
}

fn version(python: &Python, package: &str) -> Option<Version> {
    python.packages.get(package).copied()
}

/// A Debian image: `python3` from the distribution, packages of pip in `/usr/local`.
fn debian() -> Tree {
    Tree::new()
        .executable("usr/bin/python3.11", "")
        .link("usr/bin/python3", "python3.11")
        .packages("usr/lib/python3/dist-packages", &["gunicorn-20.1.0", "uvicorn-0.17.6"])
        .packages("usr/local/lib/python3.11/dist-packages", &["granian-2.8.7", "uvicorn-0.54.0"])
        .script("usr/bin/gunicorn", "usr/bin/python3")
        .script("usr/local/bin/granian", "usr/bin/python3")
}

#[test]
fn environments_are_taken_in_the_documented_order() {
    let mut tree = debian()
        .venv("explicit", &[])
        .venv("active", &[])
        .venv("project/.venv", &[])
        .venv("root/.venv", &[])
        .venv("home/.venv/mcpgateway", &[]);
    for place in ["explicit", "active", "project/.venv", "root/.venv", "home/.venv/mcpgateway"] {
        tree = tree.executable(&format!("{place}/bin/gunicorn"), "");
    }
    let mut query = Query {
        python: Some(tree.path("explicit/bin/python")),
        virtual_env: Some(tree.path("active")),
        app_root: Some("../root".into()),
        ..tree.query_with_path(&["usr/local/bin", "usr/bin"])
    };
    let taken = |query: &Query| interpreter(&python(query).0).path.canonicalize().unwrap();
    assert_eq!(taken(&query), tree.path("explicit/bin/python"));
    query.python = None;
    assert_eq!(taken(&query), tree.path("active/bin/python"));
    query.virtual_env = None;
    assert_eq!(taken(&query), tree.path("project/.venv/bin/python"));
    std::fs::remove_dir_all(tree.path("project/.venv")).unwrap();
    assert_eq!(taken(&query), tree.path("root/.venv/bin/python"));
    query.app_root = None;
    assert_eq!(taken(&query), tree.path("home/.venv/mcpgateway/bin/python"));
    query.home = None;
    assert_eq!(taken(&query), tree.path("usr/bin/python3.11"));
}

#[test]
fn a_virtual_environment_shows_its_version_and_packages() {
    let tree = Tree::machine("", "")
        .venv("project/.venv", &["gunicorn-27.0.1", "uvicorn-0.54.0", "uvicorn_worker-0.4.0", "requests-2.0.0"])
        .script("project/.venv/bin/gunicorn", "project/.venv/bin/python");
    let (python, notes) = python(&tree.query());
    let found = interpreter(&python);
    assert_eq!((found.version, found.found_by.as_str()), (Some((3, 12)), "./.venv"));
    assert_eq!(found.venv, Some(tree.path("project/.venv")));
    assert_eq!(found.site_packages, [tree.path("project/.venv/lib/python3.12/site-packages")]);
    assert_eq!(version(&python, "uvicorn-worker"), Some(Version(0, 4, 0)));
    assert_eq!(python.packages.len(), 3);
    assert_eq!(python.gunicorn, Program::Found(tree.path("project/.venv/bin/gunicorn")));
    assert_eq!(python.granian, Program::Missing);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn system_packages_are_seen_only_where_the_environment_includes_them() {
    let tree = debian().venv("project/.venv", &["uvicorn-0.30.0"]);
    let config = |include| {
        format!(
            "home = {}\nversion = 3.11.2\ninclude-system-site-packages = {include}\n",
            tree.path("usr/bin").display()
        )
    };
    std::fs::rename(tree.path("project/.venv/lib/python3.12"), tree.path("project/.venv/lib/python3.11")).unwrap();
    std::fs::write(tree.path("project/.venv/pyvenv.cfg"), config("true")).unwrap();
    let (found, _) = python(&tree.query());
    assert_eq!(version(&found, "gunicorn"), Some(Version(20, 1, 0)));
    assert_eq!(version(&found, "uvicorn"), Some(Version(0, 30, 0)), "its own come first");
    std::fs::write(tree.path("project/.venv/pyvenv.cfg"), config("false")).unwrap();
    assert_eq!(version(&python(&tree.query()).0, "gunicorn"), None);
}

#[test]
fn debian_keeps_packages_in_two_places() {
    let tree = debian();
    let (python, _) = python(&tree.query_with_path(&["usr/local/bin", "usr/bin"]));
    assert_eq!(interpreter(&python).version, Some((3, 11)));
    assert_eq!(version(&python, "gunicorn"), Some(Version(20, 1, 0)));
    assert_eq!(version(&python, "uvicorn"), Some(Version(0, 54, 0)), "pip's come before the distribution's");
    assert_eq!(python.gunicorn, Program::Found(tree.path("usr/bin/gunicorn")));
    assert_eq!(python.granian, Program::Found(tree.path("usr/local/bin/granian")));
}

#[test]
fn the_users_own_packages_come_before_the_systems() {
    let tree = debian()
        .packages("home/.local/lib/python3.11/site-packages", &["gunicorn-27.0.1"])
        .script("home/.local/bin/gunicorn", "usr/bin/python3");
    let (python, _) = python(&tree.query_with_path(&["home/.local/bin", "usr/bin"]));
    assert_eq!(version(&python, "gunicorn"), Some(Version(27, 0, 1)));
    assert_eq!(python.gunicorn, Program::Found(tree.path("home/.local/bin/gunicorn")));
}

#[test]
fn python_path_comes_first() {
    let tree = debian().packages("deps", &["gunicorn-26.0.0"]);
    let query = Query { python_path: Some(tree.path("deps").into()), ..tree.query_with_path(&["usr/bin"]) };
    assert_eq!(version(&python(&query).0, "gunicorn"), Some(Version(26, 0, 0)));
}

#[test]
fn a_free_threaded_build_has_its_own_library() {
    let tree = Tree::new()
        .executable("opt/bin/python3.14t", "")
        .link("opt/bin/python3", "python3.14t")
        .packages("opt/lib/python3.14t/site-packages", &["granian-2.8.7"]);
    let (python, _) = python(&tree.query_with_path(&["opt/bin"]));
    assert_eq!(interpreter(&python).version, Some((3, 14)));
    assert_eq!(version(&python, "granian"), Some(Version(2, 8, 7)));
}

#[test]
fn fedora_has_packages_in_lib64_too_and_a_link_is_not_a_second_place() {
    let tree = Tree::new()
        .executable("usr/bin/python3.13", "")
        .link("usr/bin/python3", "python3.13")
        .packages("usr/lib/python3.13/site-packages", &["gunicorn-23.0.0"])
        .packages("usr/lib64/python3.13/site-packages", &["uvloop-0.21.0"]);
    let (found, _) = python(&tree.query_with_path(&["usr/bin"]));
    assert_eq!(
        (version(&found, "gunicorn"), version(&found, "uvloop")),
        (Some(Version(23, 0, 0)), Some(Version(0, 21, 0)))
    );
    let venv = Tree::new().venv("project/.venv", &[]).link("project/.venv/lib64", "lib");
    assert_eq!(interpreter(&python(&venv.query()).0).site_packages.len(), 1);
}

#[test]
fn an_interpreter_that_is_only_called_python3_is_known_by_its_library() {
    let tree = Tree::new()
        .executable("opt/bin/python3", "")
        .packages("opt/lib/python3.9/site-packages", &[])
        .packages("opt/lib/python3.12/site-packages", &["gunicorn-23.0.0"]);
    let (python, _) = python(&tree.query_with_path(&["opt/bin"]));
    assert_eq!(
        (interpreter(&python).version, version(&python, "gunicorn")),
        (Some((3, 12)), Some(Version(23, 0, 0)))
    );
}

#[test]
fn the_shims_of_pyenv_are_looked_behind() {
    let shim = "#!/usr/bin/env bash\nexec pyenv exec\n";
    let tree = Tree::new()
        .executable("pyenv/shims/python3", shim)
        .executable("pyenv/shims/gunicorn", shim)
        .file("pyenv/version", "3.10\n")
        .executable("pyenv/versions/3.10.9/bin/python3", "")
        .executable("pyenv/versions/3.10.14/bin/python3.10", "")
        .link("pyenv/versions/3.10.14/bin/python3", "python3.10")
        .script("pyenv/versions/3.10.14/bin/gunicorn", "pyenv/versions/3.10.14/bin/python3.10")
        .packages("pyenv/versions/3.10.14/lib/python3.10/site-packages", &["gunicorn-27.0.1"])
        .executable("pyenv/versions/3.12.1/bin/python3", "")
        .packages("pyenv/versions/3.12.1/lib/python3.12/site-packages", &[]);
    let query = tree.query_with_path(&["pyenv/shims"]);
    let (found, _) = python(&query);
    assert_eq!(interpreter(&found).path, tree.path("pyenv/versions/3.10.14/bin/python3"));
    assert_eq!(found.gunicorn, Program::Found(tree.path("pyenv/versions/3.10.14/bin/gunicorn")));
    assert_eq!(version(&found, "gunicorn"), Some(Version(27, 0, 1)));
    let other = Query { pyenv_version: Some("3.12.1".into()), ..query };
    assert_eq!(interpreter(&python(&other).0).version, Some((3, 12)));
}

#[test]
fn a_package_without_its_program_differs_from_no_package() {
    let tree = debian().venv("project/.venv", &["gunicorn-27.0.1"]);
    let (python, _) = python(&tree.query_with_path(&["usr/bin"]));
    assert_eq!(version(&python, "gunicorn"), Some(Version(27, 0, 1)));
    assert_eq!(python.gunicorn, Program::Missing, "the one on PATH is another");
}

#[test]
fn a_server_on_path_decides_where_the_environment_has_none() {
    let tree = debian().venv("project/.venv", &["setproctitle-1.3.8"]);
    let (python, notes) = python(&tree.query_with_path(&["usr/local/bin", "usr/bin"]));
    assert_eq!(interpreter(&python).path, tree.path("usr/bin/python3"));
    assert_eq!(python.gunicorn, Program::Found(tree.path("usr/bin/gunicorn")));
    assert_eq!((version(&python, "gunicorn"), version(&python, "setproctitle")), (Some(Version(20, 1, 0)), None));
    assert!(notes.iter().any(|note| note.contains("./.venv has no server")), "{notes:?}");
}

#[test]
fn servers_of_two_interpreters_are_distinguished() {
    let tree = debian()
        .venv("pipx/granian", &["granian-2.7.0", "uvloop-0.23.0"])
        .script("home/.local/bin/granian", "pipx/granian/bin/python");
    let query = tree.query_with_path(&["home/.local/bin", "usr/bin"]);
    let (found, notes) = python(&query);
    assert_eq!(interpreter(&found).path, tree.path("usr/bin/python3"));
    assert_eq!((version(&found, "gunicorn"), version(&found, "uvloop")), (Some(Version(20, 1, 0)), None));
    assert_eq!(version(&found, "granian"), Some(Version(2, 7, 0)), "of the one that would run");
    assert!(notes.iter().any(|note| note.contains("granian on PATH runs in")), "{notes:?}");
    let (found, _) = python(&Query { prefer_granian: true, ..query });
    assert_eq!(interpreter(&found).venv, Some(tree.path("pipx/granian")));
    assert_eq!(version(&found, "uvloop"), Some(Version(0, 23, 0)));
}

#[test]
fn a_script_may_name_its_interpreter_in_many_ways() {
    let tree = Tree::new().venv("a b/venv", &["gunicorn-27.0.1"]).directory("bin");
    let interpreter_path = tree.path("a b/venv/bin/python");
    let shown = interpreter_path.display();
    for text in [
        "#!/usr/bin/env python\nimport sys\n".to_owned(),
        "#!/usr/bin/env -S python -E\nimport sys\n".to_owned(),
        format!("#!/bin/sh\n'''exec' \"{shown}\" \"$0\" \"$@\"\n' '''\n"),
        format!("#!/bin/sh\n'''exec' '{shown}' \"$0\" \"$@\"\n' '''\n"),
    ] {
        let query = tree.query_with_path(&["bin", "a b/venv/bin"]);
        write_program(&tree.path("bin/gunicorn"), &text);
        let (python, _) = python(&query);
        assert_eq!(python.gunicorn, Program::Found(tree.path("bin/gunicorn")), "{text}");
        assert_eq!(interpreter(&python).path, interpreter_path, "{text}");
        assert_eq!(version(&python, "gunicorn"), Some(Version(27, 0, 1)), "{text}");
    }
}

#[test]
fn programs_that_cannot_run_say_why() {
    let why = |tree: Tree| match python(&tree.query_with_path(&["bin"])).0.gunicorn {
        Program::NotExecutable { path, why } => {
            assert_eq!(path, tree.path("bin/gunicorn"));
            why
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(why(Tree::new().directory("bin/gunicorn")), "is a directory");
    assert_eq!(why(Tree::new().file("bin/gunicorn", "#!/bin/sh\n")), "is not executable");
    let gone = why(Tree::new().executable("bin/gunicorn", "#!/nowhere/bin/python3\n"));
    assert_eq!(gone, "names /nowhere/bin/python3 as its interpreter, which does not exist");
    assert!(why(Tree::new().executable("bin/gunicorn", "#!/bin/sh\r\n")).contains("Windows line endings"));
    let dangling = Tree::new().link("bin/gunicorn", "/nowhere/gunicorn");
    assert_eq!(python(&dangling.query_with_path(&["bin"])).0.gunicorn, Program::Missing);
}

#[test]
fn one_that_can_run_wins_over_an_earlier_one_that_cannot() {
    let tree = Tree::new().file("first/gunicorn", "").directory("second/gunicorn").executable("third/gunicorn", "");
    let (found, _) = python(&tree.query_with_path(&["first", "second", "third"]));
    assert_eq!(found.gunicorn, Program::Found(tree.path("third/gunicorn")));
    let (found, _) = python(&tree.query_with_path(&["first", "second"]));
    assert!(matches!(found.gunicorn, Program::NotExecutable { path, .. } if path == tree.path("first/gunicorn")));
}

#[test]
fn an_environment_without_its_base_interpreter_is_explained() {
    let tree = debian().link("venv/bin/python", "/nowhere/python3.12").file("venv/pyvenv.cfg", "home = /nowhere\n");
    let query = Query { virtual_env: Some(tree.path("venv")), ..tree.query_with_path(&["usr/bin"]) };
    let (python, notes) = python(&query);
    assert_eq!(interpreter(&python).path, tree.path("usr/bin/python3"));
    assert!(
        notes.iter().any(|note| note.contains("points to /nowhere/python3.12, which does not exist")),
        "{notes:?}"
    );
}

#[test]
fn the_python_setting_is_a_path_or_a_name_and_nothing_replaces_it() {
    let tree = debian().venv("venv", &["granian-2.8.7"]).link("bin/python3.12", "@/venv/bin/python");
    let query = tree.query_with_path(&["bin", "usr/local/bin", "usr/bin"]);
    let (found, _) = python(&Query { python: Some("../venv/bin/python".into()), ..query.clone() });
    assert_eq!(interpreter(&found).version, Some((3, 12)));
    assert_eq!((&found.gunicorn, &found.granian), (&Program::Missing, &Program::Missing), "not Debian's");
    let (found, _) = python(&Query { python: Some("python3.11".into()), ..query.clone() });
    assert_eq!(interpreter(&found).path, tree.path("usr/bin/python3.11"));
    assert_eq!(found.granian, Program::Found(tree.path("usr/local/bin/granian")), "the same interpreter's");
    let (found, _) = python(&Query { python: Some("python4".into()), ..query });
    assert_eq!((found.interpreter, found.gunicorn), (None, Program::Missing));
    assert_eq!(found.searched, ["PYTHON=python4 (not found)"]);
}

#[test]
fn nothing_at_all_is_no_failure() {
    let tree = Tree::new();
    let query = Query { home: None, ..tree.query() };
    let (found, notes) = python(&query);
    assert_eq!((found.interpreter, found.gunicorn, found.granian), (None, Program::Missing, Program::Missing));
    assert!(found.searched.contains(&"./.venv".to_owned()), "{:?}", found.searched);
    assert!(notes.iter().all(|note| !note.contains("venv")), "{notes:?}");
    // The machine's own Python may or may not be in the directories that are searched without a PATH.
    let _ = python(&Query { path: None, ..query });
}

/// The real virtual environment for the tests, if there is one.
fn real_venv() -> Option<PathBuf> {
    let venv = std::env::var_os("MCP_LAUNCH_TEST_VENV").map(PathBuf::from);
    if venv.is_none() {
        println!("skipped: MCP_LAUNCH_TEST_VENV names no virtual environment with gunicorn and granian");
    }
    venv
}

#[test]
fn a_real_environment_is_read_as_its_own_programs_tell_it() {
    let Some(venv) = real_venv() else { return };
    let tree = Tree::new();
    for query in [
        Query { virtual_env: Some(venv.clone()), ..tree.query() },
        Query { python: Some(venv.join("bin/python")), ..tree.query() },
        Query { path: Some(venv.join("bin").into()), ..tree.query() },
    ] {
        let (python, notes) = python(&Query { root: "/".into(), ..query });
        for (name, program) in [("gunicorn", &python.gunicorn), ("granian", &python.granian)] {
            assert_eq!(*program, Program::Found(venv.join("bin").join(name)));
            assert_eq!(version(&python, name), version_of(&venv.join("bin").join(name), DEADLINE * 10), "{name}");
            assert!(version(&python, name).is_some());
        }
        assert_eq!(interpreter(&python).venv.as_deref(), Some(Path::new(&venv)));
        let says = version_of(&venv.join("bin/python"), DEADLINE * 10).unwrap();
        assert_eq!(interpreter(&python).version, Some((says.0, says.1)));
        assert!(notes.iter().all(|note| !note.contains("python")), "{notes:?}");
    }
}
