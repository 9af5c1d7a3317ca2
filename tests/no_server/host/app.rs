//! What is known about the application without importing it.

use mcp_launch::host::{AppFacts, Query, probe};

use super::tree::Tree;

fn facts(query: &Query, app: &str) -> AppFacts {
    probe(&Query { app: Some(app.into()), ..query.clone() }).app
}

#[test]
fn a_module_is_found_along_the_import_path() {
    let tree = Tree::new()
        .file("project/main.py", "app = 1\n")
        .file("project/pkg/__init__.py", "from .web import application\n")
        .file("project/pkg/web.py", "application = 1\n")
        .file("project/native.abi3.so", "")
        .file("extra/other.py", "def app(): ...\n")
        .file("extra/main.py", "")
        .file("root/main.py", "")
        .venv("project/.venv", &[])
        .file(
            "project/.venv/lib/python3.12/site-packages/site.pth",
            "# text\nimport os; os\n../../../../../editable\n",
        )
        .file("project/.venv/lib/python3.12/site-packages/mcpgateway/__init__.py", "")
        .file("project/.venv/lib/python3.12/site-packages/mcpgateway/main.py", "app = 1\n")
        .file("editable/dev/__init__.py", "")
        .file("editable/dev/app.py", "app = 1\n");
    let query = Query { python_path: Some(tree.path("extra").into()), ..tree.query() };
    for (app, file, attribute) in [
        ("main", "project/main.py", Some("app")),
        ("main:create()", "project/main.py", None),
        ("pkg", "project/pkg/__init__.py", Some("application")),
        ("pkg.web", "project/pkg/web.py", Some("application")),
        ("native", "project/native.abi3.so", None),
        ("other", "extra/other.py", Some("app")),
        ("mcpgateway.main:app", "project/.venv/lib/python3.12/site-packages/mcpgateway/main.py", None),
        ("dev.app", "editable/dev/app.py", Some("app")),
    ] {
        let found = facts(&query, app);
        let found_file = found.file.as_deref().and_then(|file| file.canonicalize().ok());
        assert_eq!(found_file, Some(tree.path(file)), "{app}");
        assert_eq!(found.attributes.first().map(String::as_str), attribute, "{app}");
    }
    for app in ["missing", "pkg.missing", "main.part", "not a module", "..", ""] {
        assert_eq!(facts(&query, app), AppFacts::default(), "{app}");
    }
    let in_root = Query { app_root: Some(tree.path("root")), ..query };
    assert_eq!(facts(&in_root, "main").file, Some(tree.path("root/main.py")));
    assert_eq!(facts(&in_root, "pkg").file, None, "the server works in APP_ROOT");
}

#[test]
fn a_package_hides_a_later_one_of_its_name() {
    let tree = Tree::new().file("project/pkg/__init__.py", "").file("extra/pkg/web.py", "app = 1\n");
    let query = Query { python_path: Some(tree.path("extra").into()), ..tree.query() };
    assert_eq!(facts(&query, "pkg.web").file, None);
}

#[test]
fn app_is_preferred_to_application() {
    let tree = Tree::new().file("project/main.py", "application = 1\napp = 2\n").file("project/none.py", "api = 1\n");
    assert_eq!(facts(&tree.query(), "main").attributes, ["app", "application"]);
    assert_eq!(facts(&tree.query(), "none").attributes.len(), 0);
}

#[test]
fn a_program_is_distinguished_from_a_module() {
    let tree = Tree::new()
        .executable("bin/bash", "")
        .executable("bin/main", "")
        .file("bin/notes", "")
        .file("project/main.py", "app = 1\n");
    let query = tree.query_with_path(&["bin"]);
    assert_eq!(facts(&query, "bash").program, Some(tree.path("bin/bash")));
    assert_eq!(facts(&query, "main").program, None, "a module of the name comes first");
    assert_eq!(facts(&query, "bash:app").program, None);
    assert_eq!(facts(&query, "notes").program, None);
    let path = tree.path("bin/bash");
    assert_eq!(facts(&query, path.to_str().unwrap()).program, Some(path));
}

#[test]
fn huge_and_binary_modules_are_read_in_part() {
    let filler = "# nothing to see here, and a lot of it\n".repeat(40_000);
    let tree = Tree::new()
        .file("project/early.py", &format!("app = 1\n{filler}"))
        .file("project/late.py", &format!("{filler}app = 1\n"));
    assert_eq!(facts(&tree.query(), "early").attributes, ["app"]);
    assert_eq!(facts(&tree.query(), "late").attributes.len(), 0);
}

#[test]
fn the_configuration_of_gunicorn_is_found_in_the_documented_order() {
    let tree = Tree::new()
        .file("root/gunicorn.config.py", "")
        .file("project/gunicorn.config.py", "")
        .file("project/gunicorn.conf.py", "")
        .file("root/gunicorn.conf.py", "");
    let query = Query { app_root: Some(tree.path("root")), ..tree.query() };
    for place in
        ["root/gunicorn.config.py", "project/gunicorn.config.py", "project/gunicorn.conf.py", "root/gunicorn.conf.py"]
    {
        assert_eq!(probe(&query).gunicorn_config, Some(tree.path(place)));
        std::fs::remove_file(tree.path(place)).unwrap();
    }
    assert_eq!(probe(&query).gunicorn_config, None);
}
