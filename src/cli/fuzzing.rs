//! What is fuzzed here: command lines.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{Action, Invocation, parse};
use crate::host::Environment;
use crate::settings::{FlagLayer, resolve};

/// The arguments, each with a NUL behind it as in `/proc/PID/cmdline`. What is understood means the same when it is
/// written in another way, and what stands behind `--` goes to the server as it is.
pub(crate) fn command_line(input: &[u8]) {
    let words: Vec<OsString> = input.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let Ok(Invocation { action, flags }) = parse_words(&words) else { return };
    let nothing = |_: &Path| -> io::Result<Vec<u8>> { Err(ErrorKind::NotFound.into()) };
    let _ = resolve(&flags, &Environment::new(), &nothing);
    if action != Action::Run {
        return;
    }
    if let Some(at) = words.iter().position(|word| word == "--") {
        assert_eq!(flags.server_args, words[at + 1..]);
    }
    // The address is one word there and several settings here.
    if !flags.values.iter().any(|value| value.flag == "--bind") {
        assert_eq!(parse_words(&written(&flags)).map(|again| again.flags).ok(), Some(flags));
    }
}

fn parse_words(words: &[OsString]) -> Result<Invocation, clap::Error> {
    parse(std::iter::once("mcp-launch".into()).chain(words.iter().cloned()))
}

fn written(flags: &FlagLayer) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut attached = |name: &str, value: &OsString| {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        words.push(word);
    };
    if let Some(path) = &flags.config {
        attached("--config", path);
    }
    for value in flags.values.iter().filter(|value| value.flag.starts_with("--") && !value.flag.starts_with("--no-"))
    {
        attached(&value.flag, &value.value);
    }
    words.extend(
        flags.values.iter().filter(|value| value.flag.starts_with("--no-")).map(|value| (&value.flag).into()),
    );
    words.extend(flags.values.iter().filter(|value| value.flag == "APP").map(|value| value.value.clone()));
    words.push("--".into());
    words.extend(flags.server_args.iter().cloned());
    words
}
