//! `GUNICORN_CMD_ARGS`: the user's arguments for Gunicorn, which take precedence over a configuration file and over
//! our defaults, but not over explicit settings.

use std::ffi::OsString;

use super::super::Findings;
use super::arguments::{self, Argument};
use crate::problem::Problem;
use crate::settings::{Origin, Resolution};

/// The variable's name.
pub(in super::super) const NAME: &str = "GUNICORN_CMD_ARGS";

/// Paths on Gunicorn's command line.
#[derive(Debug, Default)]
pub struct Places {
    /// The configuration file.
    pub config: Option<String>,
    /// The base of all relative paths.
    pub chdir: Option<String>,
    /// Directories of modules, separated by commas.
    pub python_path: Option<String>,
}

/// The paths in the variable. If it cannot be parsed, the plan reports the problem.
#[must_use]
pub fn places(resolution: &Resolution) -> Places {
    let native = resolution.native.iter().find(|native| native.name == NAME);
    let words = native.and_then(|native| shlex::split(&native.value)).unwrap_or_default();
    let args = CmdArgs { arguments: arguments::parse(&words), ..CmdArgs::default() };
    let value = |setting| args.value(setting).map(str::to_owned);
    Places { config: value("config"), chdir: value("chdir"), python_path: value("pythonpath") }
}

/// What the launcher always sets, and why.
pub(super) const OURS: &[(&str, &str)] = &[
    ("daemon", "a daemonized server cannot be supervised"),
    ("pidfile", "the launcher keeps track of the process; use its lock"),
    ("reuse_port", "the workers share one socket, so that a hung one does not take requests with it"),
];

/// The variable, parsed.
#[derive(Debug, Default)]
pub(in super::super) struct CmdArgs {
    arguments: Vec<Argument>,
    changed: bool,
    /// Where the variable comes from.
    pub origin: Origin,
}

impl CmdArgs {
    /// Reads the variable. What conflicts with the launcher is dropped with a warning.
    pub fn read(resolution: &Resolution, findings: &mut Findings) -> Self {
        let Some(native) = resolution.native.iter().find(|native| native.name == NAME) else {
            return Self::default();
        };
        let origin = resolution.origin_of(NAME);
        let Some(words) = shlex::split(&native.value) else {
            let message = format!("{NAME} = {:?} cannot be split into words", native.value);
            findings.problem(Problem::setting(message, &origin).hint("close the quotes"));
            return Self::default();
        };
        let mut args = Self { arguments: arguments::parse(&words), changed: false, origin };
        // Before anything is dropped: what stands behind it would become its value.
        for argument in args.arguments.iter().filter(|argument| argument.lacks_value()) {
            let message = format!("{NAME} has {} without a value", argument.written);
            findings.problem(Problem::setting(message, &args.origin).hint("give it one, or leave it out"));
        }
        for (setting, why) in OURS {
            args.drop(setting, why, findings);
        }
        if let Some(text) = args.value("workers").filter(|text| count(text).is_none()) {
            let message = format!("{NAME} has --workers {text}");
            findings.problem(Problem::setting(message, &args.origin).hint("use a whole number of at least 1"));
        }
        args
    }

    /// Whether it sets this.
    pub fn sets(&self, setting: &str) -> bool {
        self.arguments.iter().any(|argument| argument.setting() == Some(setting))
    }

    /// The last value for this.
    pub fn value(&self, setting: &str) -> Option<&str> {
        self.arguments.iter().rfind(|argument| argument.setting() == Some(setting))?.value.as_deref()
    }

    /// Everything that is given for this; none if nothing is. A switch has no value.
    pub fn values(&self, setting: &str) -> Option<Vec<Option<&str>>> {
        let given = self.arguments.iter().filter(|argument| argument.setting() == Some(setting));
        let values: Vec<_> = given.map(|argument| argument.value.as_deref()).collect();
        (!values.is_empty()).then_some(values)
    }

    /// Drops everything that sets this, with a warning.
    pub fn drop(&mut self, setting: &str, why: &str, findings: &mut Findings) {
        self.arguments.retain(|argument| {
            let dropped = argument.setting() == Some(setting);
            if dropped {
                findings.warn(format!("{} in {NAME} is ignored: {why}", argument.words.join(" ")));
            }
            self.changed |= dropped;
            !dropped
        });
    }

    /// The new value of the variable in the server's environment, if it must change. Empty if nothing is left of it.
    pub fn rewritten(&self) -> Option<OsString> {
        let mut arguments: Vec<&Argument> = self.arguments.iter().collect();
        // What stood between a flag without its optional value and a word was dropped: the word must not become its value.
        for at in 1..arguments.len() {
            let is_word = arguments[at].flag.is_none() && arguments[at].written != "--";
            if is_word {
                // In front of all such flags, however many there are.
                let flags = arguments[..at].iter().rev().take_while(|argument| argument.takes_next()).count();
                arguments[at - flags..=at].rotate_right(1);
            }
        }
        let words = arguments.into_iter().flat_map(|argument| argument.words.iter().map(String::as_str));
        // There cannot be a NUL in it: it comes from an environment variable.
        self.changed.then(|| shlex::try_join(words).unwrap_or_default().into())
    }
}

fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::resolution;

    fn read(text: &str) -> (CmdArgs, Findings) {
        let mut findings = Findings::default();
        (CmdArgs::read(&resolution(&[(NAME, text)]), &mut findings), findings)
    }

    #[test]
    fn what_contradicts_the_launcher_is_dropped_with_a_warning_and_the_rest_stays() {
        let (args, findings) = read("-D --pid=/run/x --reuse-port --threads 4 --env 'A=b c'");
        assert_eq!(args.rewritten().unwrap(), "--threads 4 --env 'A=b c'");
        assert_eq!(findings.warnings.len(), 3);
        assert!(findings.warnings[0].starts_with("-D in GUNICORN_CMD_ARGS is ignored: a daemonized server"));
        assert!(findings.problems.is_empty());
    }

    #[test]
    fn a_word_behind_something_that_is_dropped_is_nobodys_value() {
        let (args, _) = read("--proxy-protocol -p /run/x app:app --reload");
        assert_eq!(args.rewritten().unwrap(), "app:app --proxy-protocol --reload");
        let (args, _) = read("--proxy-protocol -p /run/x --proxy-protocol -D app:app one");
        assert_eq!(args.rewritten().unwrap(), "app:app one --proxy-protocol --proxy-protocol");
        let (args, _) = read("--proxy-protocol -D -- app:app");
        assert_eq!(args.rewritten().unwrap(), "--proxy-protocol -- app:app");
    }

    #[test]
    fn a_worker_count_and_a_configuration_file_are_found_and_stay() {
        let (args, findings) = read("-w3 -c /etc/gunicorn.py --timeout 5");
        assert_eq!((args.value("workers"), args.value("config")), (Some("3"), Some("/etc/gunicorn.py")));
        assert!(args.sets("timeout") && args.rewritten().is_none() && findings.warnings.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_a_problem() {
        assert!(read("--env 'A=b").1.problems[0].to_string().contains("close the quotes"));
        assert!(read("--workers auto").1.problems[0].to_string().contains("--workers auto"));
        let problems = read("--access-logfile -p /run/x -t").1.problems;
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(found.len() == 2 && found[0].contains("--access-logfile without a value"), "{found:?}");
    }
}
