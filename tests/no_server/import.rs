//! `mcp-launch import`: what is printed where, and what `check` says of it.

use std::fs;
use std::process::{Command, Output};

use crate::harness::{PROGRAM, tests_directory, venv};

const UNIT: &str = "[Service]\nUser=www-data\nExecStart=/usr/bin/gunicorn -w 2 --bind 127.0.0.1:0 hello:app\n";

fn import(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("import").args(arguments).env_clear().output().unwrap()
}

#[test]
fn the_file_goes_to_standard_output_and_what_it_lacks_to_standard_error_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("site.service");
    fs::write(&file, UNIT).unwrap();
    let output = import(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (made, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(made.contains("workers = 2\n") && made.contains("# - User=www-data: "), "{made}");
    assert!(said.starts_with("mcp-launch: not carried over: User=www-data: "), "{said}");
    let Some(venv) = venv() else { return };
    fs::write(directory.path().join("mcp-launch.toml"), made).unwrap();
    let mut check = Command::new(PROGRAM);
    check.arg("check").env_clear().env("VIRTUAL_ENV", venv).env("PYTHONPATH", tests_directory("apps"));
    let checked = check.env("XDG_RUNTIME_DIR", directory.path()).current_dir(directory.path()).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn what_cannot_be_read_ends_with_78_and_a_missing_argument_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    fs::write(&large, vec![b'#'; 10 << 20]).unwrap();
    for (file, part) in [
        ("/nowhere/site.service", "cannot be read: "),
        (directory.path().to_str().unwrap(), "cannot be read: "),
        (PROGRAM, "is no configuration"),
        (large.to_str().unwrap(), "is no configuration"),
        ("/dev/null", "none of the kinds that are known"),
    ] {
        let output = import(&[file]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0), "{said}");
        assert!(said.contains(part) && said.contains(file), "{said}");
    }
    assert_eq!(import(&[]).status.code(), Some(2));
}
