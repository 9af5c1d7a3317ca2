//! What is found without running a module is what Python finds by running it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::assignments::{Assigned, Assignments};
use super::fuzzing::as_python;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// `A`, `B` are names and `V`, `W` values. Not among them: an assignment in a placeholder of a formatted string, which is
/// not looked for.
const STATEMENTS: &[&str] = &[
    "A = V",
    "A = V",
    "A = V",
    "A = B = V",
    "A, B = V",
    "(A, B) = V, W",
    "[A, B] = V, W",
    "A, = V",
    "*A, B = V, W",
    "(A) = V",
    "A: int = V",
    "A: int",
    "A += V",
    "A = V; B = W",
    "A = \\\n  V",
    "A = (V,\n  # (\n  W)",
    "A = [V, W]",
    "if V:\n    A = W\nelse:\n\tA = V",
    "if V: A = W",
    "for A in [V, W]: pass",
    "for A, B in []: pass",
    "while False:\n    A = V\n    break",
    "try:\n    A = V\nexcept Exception as B:\n    pass",
    "with open('/dev/null') as A: pass",
    "import os as A",
    "import os.path, A_ if 0 else 1",
    "from os import (path as A, sep as B)",
    "from os import path, sep as A",
    "def A(): pass",
    "def A(B=V):\n    B = W",
    "def f():\n    global A; A = V\nf()",
    "async def A(): pass",
    "class A: B = V",
    "class A:\n    B = V\n    def A(self): pass",
    "if (A := V): pass",
    "print_ = [A := V]",
    "x = lambda A=(B := V): W",
    "[A for A in [V]]",
    "x = {A: 1 for A in 'x'}",
    "del A",
    "A.append(V)",
    "A[0] = V",
    "A.x = V",
    "A == V",
    "x = A = V",
    "x['A'] = A = V",
    "globals()['A'] = V",
    "globals().update(A=V)",
    "vars()['A'] = V",
    "locals()['A'] = V",
    "exec('A = V')",
    "match V:\n    case A: pass",
    "match = V; A = W",
    "type = V; A = W",
    "'''\nA = V\n'''",
    "'A = V'; B = W",
    "# A = V",
    "if True: pass\nA = V",
    "if True:\n    pass\n# x\nA = V",
    "assert V, (A := W)",
    "@(A := lambda f: f)\ndef B(): pass",
    "x = f'{A!r:>{2}}'; B = V",
    "\x0cA = V",
];

const VALUES: &[&str] = &[
    "1",
    "0x1F",
    "1_000",
    "00",
    "0o17",
    "0B1",
    "1.",
    ".5",
    "1e3",
    "1E-2",
    "5e-324",
    "-1",
    "--1",
    "-0.0",
    "+1",
    "~1",
    "1j",
    "1e400",
    "123456789012345678901234567890123456789",
    "-170141183460469231731687303715884105728",
    "022.5",
    "0xfor x",
    "None",
    "True",
    "False",
    "...",
    "a",
    "b",
    "'x'",
    "\"x\"",
    "''",
    "'x' 'y'",
    "'x'\"y\"",
    "r'\\n'",
    "R'\\'",
    "u'x'",
    "b'x'",
    "f'x'",
    "f'{1}'",
    "f'{{'",
    "rf'\\{1}'",
    "Br'x'",
    "'\\x41\\u00e9\\U0001f600'",
    "'\\101\\0\\18'",
    "'\\400'",
    "'\\N{DASH}'",
    "'\\d\\\\\\''",
    "'\\a\\b\\f\\v\\r\\t'",
    "'x\\\ny'",
    "'''x\ny'z''w'''",
    "\"\"\"\"x\"\"\"",
    "'\u{e9}\u{1f600}'",
    "()",
    "[]",
    "{}",
    "(1)",
    "(1,)",
    "1,",
    "1, 2",
    "[1, 2]",
    "[1,]",
    "(1, 2,)",
    "[(1, 'x'), [None]]",
    "((((1))))",
    "[1][0]",
    "(1)(2)",
    "1 + 1",
    "1 if a else 2",
    "not 1",
    "'x'.upper()",
    "'%s' % 1",
    "'x' if 1 else 'y'",
    "1 < 2",
    "lambda: 1",
    "[1 for x in 'x']",
    "*[1],",
    "[*[1]]",
    "(yield_ := 1)",
    "-True",
    "-(1)",
    "- 1",
    "-'x'",
    "(1).real",
    "1 .real",
    "{1: 2}",
    "{1}",
    "int('1')",
    "(\n1)",
    "[\n1,  # one\n2]",
    "'x' # 'y'",
    "1 #",
    "'#'",
    "'x'''",
    "r'''\\'''",
    "f'{\"x\"}'",
    "f'{f\"{1}\"}'",
    "1or 2",
    "1if 1else 2",
];

const CHECK: &str = r#"
import ast, json, sys, warnings
warnings.simplefilter("ignore")

def same(one, other):
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)

run = 0
for source, found in json.load(sys.stdin):
    space = {}
    try:
        exec(compile(source, "source", "exec"), space)
    except BaseException:
        continue
    run += 1
    for name, value in found.items():
        if name not in space or not same(ast.literal_eval(value), space[name]):
            print(f"{name} is not {value} but {space.get(name)!r} in {source!r}")
print(run)
"#;

fn source() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(&NAMES[..]);
    let value = || prop::sample::select(VALUES);
    let statement = (prop::sample::select(STATEMENTS), name(), name(), value(), value());
    let statement = statement.prop_map(|(text, a, b, v, w)| {
        let whole = |letter: char| match letter {
            'A' => a.to_owned(),
            'B' => b.to_owned(),
            'V' => v.to_owned(),
            'W' => w.to_owned(),
            letter => letter.to_string(),
        };
        let is_alone = |at: usize| {
            let near = |index: Option<usize>| index.and_then(|index| text.as_bytes().get(index)).copied();
            let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            !is_word(near(at.checked_sub(1))) && !is_word(near(Some(at + 1)))
        };
        text.char_indices()
            .map(|(at, letter)| if is_alone(at) { whole(letter) } else { letter.to_string() })
            .collect()
    });
    prop::collection::vec(statement, 1..5).prop_map(|all: Vec<String>| all.join("\n"))
}

/// The values that are found in a module, in Python's syntax.
fn found(source: &str) -> BTreeMap<&'static str, String> {
    let assignments = Assignments::read(source);
    let value = |name: &&'static str| match assignments.get(name) {
        Some(Assigned::Literal { value, .. }) => {
            let mut text = String::new();
            as_python(&value, &mut text).then_some((*name, text))
        }
        _ => None,
    };
    NAMES.iter().filter_map(value).collect()
}

#[test]
fn what_is_found_without_running_it_is_what_python_finds() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sources: Vec<String> = (0..4000).map(|_| source().new_tree(&mut runner).unwrap().current()).collect();
    let cases: Vec<_> = sources.iter().map(|source| (source, found(source))).collect();
    let values: usize = cases.iter().map(|(_, found)| found.len()).sum();
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", CHECK]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(&serde_json::to_vec(&cases).unwrap()).unwrap();
    let said = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    let (wrong, run) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    assert_eq!(wrong, "");
    // Most are Python, and much is found in them.
    assert!(run.parse::<usize>().unwrap() > 1000 && values > 1000, "{run} of them run, with {values} values");
}
