//! What runs before the first generation: pip for the plugins' requirements, as in the gateway's old entrypoint, and
//! then the user's own command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::Findings;
use crate::host::{Environment, Host};
use crate::problem::{Exit, Problem};
use crate::settings::value::show_span;
use crate::settings::{Origin, Settings};

/// A command that must succeed before the server starts.
#[derive(Debug, Clone, PartialEq)]
pub struct PreStart {
    /// The setting that asks for it.
    pub setting: &'static str,
    /// Where that was set.
    pub origin: Origin,
    /// The command as words. The first is a path, or a name to be looked up on the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// Its environment: the server's, without what is meant only for a server.
    pub env: Environment,
    /// A file that it reads and that must be inside the working directory, and where that was set.
    pub confined: Option<(PathBuf, Origin)>,
    /// How long one run may take.
    pub timeout: Duration,
    /// How often it is retried.
    pub retries: u32,
    /// The delay before the first retry; it doubles with each retry, …
    pub wait: Duration,
    /// … up to this delay.
    pub longest_wait: Duration,
}

/// How often pip is retried: the gateway's entrypoint ran it three times.
const PIP_RETRIES: u32 = 2;

/// The commands, in the order in which they run.
pub(super) fn steps(settings: &Settings, host: &Host, env: &Environment, findings: &mut Findings) -> Vec<PreStart> {
    let steps: Vec<PreStart> = pip(settings, host, env, findings).into_iter().chain(command(settings, env)).collect();
    for step in &steps {
        let words = step.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let shown = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "));
        let because = format!(
            "{} from {}; once, before the first start; at most {} per run, {} retries",
            step.setting,
            step.origin,
            show_span(step.timeout),
            step.retries
        );
        findings.decide("pre-start", shown, because);
    }
    steps
}

fn pip(settings: &Settings, host: &Host, env: &Environment, findings: &mut Findings) -> Option<PreStart> {
    let wanted = &settings.reload_plugin_requirements_txt;
    if !wanted.value {
        return None;
    }
    let Some(python) = &host.python.interpreter else {
        let message = "reload_plugin_requirements_txt needs pip, but there is no Python";
        findings.problem(Problem { origin: Some(wanted.origin.clone()), ..Problem::new(Exit::NotFound, message) });
        return None;
    };
    let path = &settings.plugin_requirements_txt_path;
    let delay = settings.plugin_requirements_retry_delay_seconds.0;
    let arguments = ["-m", "pip", "install", "--no-cache-dir", "-r"].map(OsString::from);
    Some(PreStart {
        setting: "reload_plugin_requirements_txt",
        origin: wanted.origin.clone(),
        argv: [python.path.clone().into()].into_iter().chain(arguments).chain([path.value.clone().into()]).collect(),
        env: env.clone(),
        confined: Some((path.value.clone(), path.origin.clone())),
        timeout: settings.pre_start_timeout.0,
        retries: PIP_RETRIES,
        wait: delay,
        longest_wait: delay,
    })
}

fn command(settings: &Settings, env: &Environment) -> Option<PreStart> {
    let text = settings.pre_start.value.as_ref()?;
    Some(PreStart {
        setting: "pre_start",
        origin: settings.pre_start.origin.clone(),
        argv: words(text),
        env: env.clone(),
        confined: None,
        timeout: settings.pre_start_timeout.0,
        retries: u32::try_from(settings.pre_start_retries.0).unwrap_or(u32::MAX),
        wait: settings.backoff_initial.0,
        longest_wait: settings.backoff_max.0,
    })
}

/// Everything with a meaning to a shell, except quotes and backslashes, which word splitting handles.
const SHELL_SYNTAX: &[char] =
    &['$', '`', ';', '&', '|', '<', '>', '(', ')', '*', '?', '[', ']', '{', '}', '~', '#', '!', '\n'];

/// First words that are not programs, or are a shell builtin.
const SHELL_WORDS: &[&str] = &[
    ".", ":", "case", "cd", "command", "eval", "exec", "exit", "export", "for", "if", "set", "trap", "ulimit",
    "umask", "unset", "until", "wait", "while",
];

/// Plain words are executed directly, so that signals reach the program itself and the image does not need a shell.
/// Everything else is run by `/bin/sh`.
fn words(text: &str) -> Vec<OsString> {
    let plain = |words: &Vec<String>| {
        words.first().is_some_and(|first| !first.contains('=') && !SHELL_WORDS.contains(&first.as_str()))
    };
    match Some(text).filter(|text| !text.contains(SHELL_SYNTAX)).and_then(shlex::split).filter(plain) {
        Some(words) => words.into_iter().map(OsString::from).collect(),
        None => ["/bin/sh", "-c", text].map(OsString::from).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{installed_host, planned, problems};

    fn shown(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn plain_words_are_executed_and_shell_syntax_goes_to_a_shell() {
        assert_eq!(shown("alembic upgrade head"), ["alembic", "upgrade", "head"]);
        assert_eq!(shown("python -c 'print(\"a b\")'")[..2], ["/bin/sh", "-c"]);
        assert_eq!(shown("say \"a b\" c\\ d"), ["say", "a b", "c d"]);
        for text in ["a && b", "echo $HOME", "X=1 a", "cd /app", "a | b", "a 'unbalanced", "a; b", "ls *.py"] {
            assert_eq!(shown(text), ["/bin/sh", "-c", text]);
        }
    }

    #[test]
    fn nothing_runs_unless_it_is_asked_for() {
        assert_eq!(planned(&[], &installed_host()).pre_start, []);
        assert_eq!(planned(&[("PLUGIN_REQUIREMENTS_TXT_PATH", "x")], &installed_host()).pre_start, []);
    }

    #[test]
    fn requirements_come_before_the_command() {
        let env = [("RELOAD_PLUGIN_REQUIREMENTS_TXT", "true"), ("MCP_LAUNCH_PRE_START", "alembic upgrade head")];
        let plan = planned(&env, &installed_host());
        let [pip, command] = plan.pre_start.as_slice() else { panic!("{:?}", plan.pre_start) };
        let words: Vec<_> = pip.argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            words,
            ["/venv/bin/python", "-m", "pip", "install", "--no-cache-dir", "-r", "plugins/requirements.txt"]
        );
        assert_eq!((pip.retries, pip.wait), (2, Duration::from_secs(2)));
        assert_eq!(command.argv[0], "alembic");
        let reasons: Vec<_> = plan.reasons.iter().filter(|reason| reason.topic == "pre-start").collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(
            reasons[1].because.starts_with("pre_start from environment MCP_LAUNCH_PRE_START; once"),
            "{reasons:?}"
        );
    }

    #[test]
    fn the_command_gets_none_of_what_is_handed_to_a_server() {
        let plan =
            planned(&[("MCP_LAUNCH_PRE_START", "migrate"), ("APP_MODULE", "mcpgateway.main:app")], &installed_host());
        let path = plan.pre_start[0].env.get(std::ffi::OsStr::new("PYTHONPATH"));
        assert_eq!(path, None);
        let path = plan.pre_start[0].env.get(std::ffi::OsStr::new("PATH")).unwrap();
        assert!(path.to_str().unwrap().starts_with("/venv/bin"), "{path:?}");
    }

    #[test]
    fn a_delay_that_is_no_time_is_the_default_with_a_warning() {
        let env = [("RELOAD_PLUGIN_REQUIREMENTS_TXT", "true"), ("PLUGIN_REQUIREMENTS_RETRY_DELAY_SECONDS", "abc")];
        assert_eq!(planned(&env, &installed_host()).pre_start[0].wait, Duration::from_secs(2));
        let warnings = crate::plan::tests::resolution(&env).warnings;
        assert!(warnings[0].contains("= \"abc\" is not valid (from environment"), "{warnings:?}");
        assert!(warnings[0].ends_with("; 2s is used"), "{warnings:?}");
    }

    #[test]
    fn requirements_without_a_python_are_a_problem() {
        let mut host = installed_host();
        host.python.interpreter = None;
        let found = problems(&[("RELOAD_PLUGIN_REQUIREMENTS_TXT", "1")], &host);
        assert!(found.iter().any(|problem| problem.contains("there is no Python")), "{found:?}");
    }
}
