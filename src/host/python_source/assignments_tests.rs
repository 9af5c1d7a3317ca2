use super::*;
use proptest::prelude::*;

fn of(source: &str, name: &str) -> Option<Assigned> {
    Assignments::read(source).get(name)
}

fn text(value: &str, line: u32) -> Assigned {
    Assigned::Literal { value: Literal::Text(value.into()), line }
}

fn int(value: i128, line: u32) -> Assigned {
    Assigned::Literal { value: Literal::Int(value), line }
}

#[test]
fn the_last_assignment_at_the_top_of_the_module_counts() {
    for (source, wanted) in [
        ("bind = '0.0.0.0:80'", text("0.0.0.0:80", 1)),
        ("\u{feff}bind = 'a'", text("a", 1)),
        ("# bind = 'x'\n\nbind='a'  # why\n", text("a", 3)),
        ("bind = 'a'\nbind = \"b\"", text("b", 2)),
        ("bind: str = 'a'", text("a", 1)),
        ("other = bind = 'a'", text("a", 1)),
        ("bind = (\n    '127.0.0.1'\n    ':8000'\n)", text("127.0.0.1:8000", 1)),
        ("bind = '127.0.0.1' \\\n    ':8000'", text("127.0.0.1:8000", 1)),
        ("x = 1; bind = 'a'", text("a", 1)),
        ("\"\"\"\nbind = 'no'\n\"\"\"\nbind = 'a'", text("a", 4)),
        ("bind, workers = 'a', 2", text("a", 1)),
        ("(workers, bind) = (2, 'a')", text("a", 1)),
        ("if x:\n    bind = 'no'\nbind = 'a'", text("a", 3)),
        ("def f():\n    bind = 'no'\nbind = 'a'", text("a", 3)),
        ("def f(bind='no'):\n    pass\nbind = 'a'", text("a", 3)),
        ("bind = 'a'\nclass C:\n    bind = 'no'\n", text("a", 1)),
        ("bind = 'a'\nserve(bind='no')\n", text("a", 1)),
        ("bind = 'a'\nx = {'bind': 'no'}\nx['bind'] = 1\n", text("a", 1)),
        ("from base import *\nbind = 'a'", text("a", 2)),
        ("bind = 'a'\nprint(f'{bind}')", text("a", 1)),
        ("bind = 'a'\nassert bind == 'b'", text("a", 1)),
        ("bind = 'a'\nbind_address = bind + 'x'", text("a", 1)),
        ("match = 1\nbind = 'a'", text("a", 2)),
        ("bind = 'a'\ndef f():\n    x = [bind := 3]\n", text("a", 1)),
    ] {
        assert_eq!(of(source, "bind"), Some(wanted), "{source}");
    }
    assert_eq!(of("workers = 2\nworkers = workers", "workers"), Some(Assigned::Computed { line: 2 }));
}

#[test]
fn what_may_be_something_else_when_the_module_has_run_is_computed() {
    for (source, line) in [
        ("workers = multiprocessing.cpu_count() * 2 + 1", 1),
        ("workers = 2\nif x:\n    workers = 3", 3),
        ("workers = 2\nif x: workers = 3", 2),
        ("workers = 2\nfor workers in range(3):\n    pass", 2),
        ("try:\n    workers = 2\nexcept KeyError:\n    pass", 2),
        ("with open('x') as workers:\n    pass", 1),
        ("workers = 2\nworkers += 1", 2),
        ("workers = 2\nworkers *= 2", 2),
        ("workers = [1]\nworkers.append(2)", 2),
        ("workers = [1]\nworkers[0] = 2", 2),
        ("workers = [1]\nif x:\n    workers.append(2)", 3),
        ("workers = 2\ndel workers", 2),
        ("workers = 2\nfrom other import count as workers", 2),
        ("import workers", 1),
        ("def workers():\n    return 3", 1),
        ("class workers: pass", 1),
        ("def f():\n    global workers\n    workers = 3\nf()\nworkers = 2", 2),
        ("workers = 2\nglobals()['workers'] = 3", 2),
        ("workers = 2\nfor k in os.environ:\n    locals()[k.lower()] = 1", 3),
        ("workers = 2\nfrom base import *", 2),
        ("from base import *", 1),
        ("workers = 2\nexec(open('x').read())", 2),
        ("print(workers := 3)", 1),
        ("workers, bind = f()", 1),
        ("workers, *bind = 1, 2", 1),
        ("workers = 1\n*workers, bind = 1, 2", 2),
        ("workers = 1\nclass workers: x = 1", 2),
        ("workers = 1\nmatch 2:\n    case workers: pass", 3),
        ("workers, bind = 1, 2, 3", 1),
        ("workers = int('2')", 1),
        ("workers = 2 if x else 3", 1),
        ("workers = f'{x}'", 1),
        ("workers = lambda: 2", 1),
        ("async def workers(): pass", 1),
        ("while x:\n\n    workers = 2", 3),
        ("match x:\n    case 1:\n        workers = 2", 3),
    ] {
        assert_eq!(of(source, "workers"), Some(Assigned::Computed { line }), "{source}");
    }
}

#[test]
fn a_name_that_is_not_bound_has_no_value() {
    for source in [
        "",
        "# workers = 2",
        "workers: int",
        "workers == 2",
        "server.workers = 2",
        "def f():\n    workers = 2",
        "class C:\n    workers = 2",
        "f(workers=2)",
        "'''\nworkers = 2\n'''",
        "my_workers = 2",
        "x = '''\nworkers = 2",
    ] {
        assert_eq!(of(source, "workers"), None, "{source}");
    }
}

#[test]
fn values_of_every_kind_are_read() {
    assert_eq!(of("umask = 0o007", "umask"), Some(int(7, 1)));
    assert_eq!(of("timeout = 1_000", "timeout"), Some(int(1000, 1)));
    let none = Some(Assigned::Literal { value: Literal::None, line: 1 });
    assert_eq!(of("pidfile = None", "pidfile"), none);
    let both = Literal::Sequence(vec![Literal::Text("a".into()), Literal::Text("b".into())]);
    assert_eq!(of("bind = ['a', 'b']", "bind"), Some(Assigned::Literal { value: both, line: 1 }));
}

#[test]
fn variables_that_a_module_reads_are_mentioned_in_it() {
    for source in [
        "workers = int(os.environ.get('GUNICORN_PROCESSES', '2'))",
        "workers = os.environ[f\"GUNICORN_{name}\"]",
        "for k in os.environ:\n    if k.startswith('GUNICORN_'):\n        pass",
        "def f():\n    return os.getenv('GUNICORN_PROCESSES')",
    ] {
        assert!(Assignments::read(source).mentions("GUNICORN_PROCESSES"), "{source}");
    }
    for source in ["", "# 'GUNICORN_PROCESSES'", "x = 'GUNICORN'", "x = 'GUNICORN_THREADS'", "x = ''", "_ = '_'"] {
        assert!(!Assignments::read(source).mentions("GUNICORN_PROCESSES"), "{source}");
    }
}

#[test]
fn nesting_without_end_is_survived() {
    for piece in ["(", "f'{", "f\"{f'{", "if x:", "[", "\\\n", "'''", "-", "x = ", "{", ":=", "lambda:"] {
        let _ = of(&piece.repeat(20_000), "bind");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = of(&super::super::decode(&bytes), "bind");
    }

    #[test]
    fn no_python_is_too_odd(source in "[bind=:()\\[\\]{}'\"\\\\ \n\t#;,frub0-9.+*-]{0,80}") {
        let _ = of(&source, "bind");
        let _ = super::super::definitions(&source);
    }

    /// Whatever precedes a complete line outside of brackets and quotes, its assignment is seen.
    #[test]
    fn a_literal_is_found_behind_other_statements(
        before in prop::collection::vec("(x = 1|if x:|    y = 2|def f():|# it's|'''a\n'''|y = \\[\n\\]|)", 0..8),
        number in 0_i128..1000,
    ) {
        let source = format!("{}\nworkers = {number}\n", before.join("\n"));
        let is_literal = matches!(of(&source, "workers"),
            Some(Assigned::Literal { value: Literal::Int(found), .. }) if found == number);
        prop_assert!(is_literal, "{source}");
    }
}

/// Every name has a value of its own.
#[test]
fn one_value_for_very_many_names_is_not_copied_for_each() {
    let names: Vec<String> = (0..20_000).map(|number| format!("a{number}")).collect();
    let found = Assignments::read(&format!("{} = [{}]", names.join(" = "), "1,".repeat(20_000)));
    assert_eq!(found.get("a7"), Some(Assigned::Computed { line: 1 }));
}
