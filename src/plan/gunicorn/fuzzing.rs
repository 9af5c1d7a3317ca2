//! What is fuzzed here: arguments for Gunicorn.

use super::arguments::{Argument, parse};
use super::cmd_args::{self, CmdArgs, NAME};
use crate::host::Environment;
use crate::plan::Findings;
use crate::settings::value::Server;
use crate::settings::{FlagLayer, resolve};

/// The value of `GUNICORN_CMD_ARGS`. What is passed on means what was given, without what the launcher refuses.
pub(crate) fn gunicorn_arguments(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.contains('\0') {
        return;
    }
    let Some(words) = shlex::split(text) else { return };
    let arguments = parse(&words);
    let again: Vec<String> = arguments.iter().flat_map(|argument| argument.words.clone()).collect();
    assert_eq!(meaning(&parse(&again)), meaning(&arguments), "{words:?} became {again:?}");
    let mut findings = Findings::default();
    let words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
    crate::plan::server_args::check(Server::Gunicorn, &words, &mut findings);
    crate::plan::server_args::check(Server::Granian, &words, &mut findings);
    let (read_first, findings) = read(text);
    if arguments.iter().any(Argument::lacks_value) {
        assert!(!findings.problems.is_empty(), "{text:?}");
        return;
    }
    let Some(passed_on) = read_first.rewritten() else { return };
    let passed_on = passed_on.into_string().expect("text that was split is text");
    let (left, _) = read(&passed_on);
    assert!(left.rewritten().is_none(), "{text:?} became {passed_on:?}");
    let kept: Vec<Argument> = arguments.into_iter().filter(|argument| !is_ours(argument)).collect();
    let words = shlex::split(&passed_on).expect("joined words can be split");
    let left = parse(&words);
    let (mut before, mut after) = (meaning(&kept), meaning(&left));
    // A word may change places with the flag before it.
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before, "{text:?} became {passed_on:?}");
}

fn is_ours(argument: &Argument) -> bool {
    cmd_args::OURS.iter().any(|(setting, _)| argument.setting() == Some(setting))
}

/// The setting and value of each argument; of one that is not known, its words.
fn meaning(arguments: &[Argument]) -> Vec<(Option<&str>, Option<&str>, Vec<&str>)> {
    let mut found = Vec::new();
    for argument in arguments {
        let is_unknown = argument.setting().is_none();
        let words = argument.words.iter().map(String::as_str).filter(|_| is_unknown).collect();
        found.push((argument.setting(), argument.value.as_deref(), words));
    }
    found
}

fn read(text: &str) -> (CmdArgs, Findings) {
    let env: Environment = [(NAME.into(), text.into())].into();
    let resolution = resolve(&FlagLayer::default(), &env, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let _ = cmd_args::places(&resolution);
    let mut findings = Findings::default();
    let args = CmdArgs::read(&resolution, &mut findings);
    (args, findings)
}
