//! The command line, built from the option table and parsed into an action and a layer of settings.
//!
//! Option values are not validated here but by the parsers that read every layer, so that all problems are reported
//! together. What clap rejects is a usage error.

mod bind;
mod compare;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;

use crate::compare::options::Options;
use crate::host::{Program, find_program};
use crate::settings::FlagLayer;
use crate::settings::value::{Server, Span, Value};
use crate::top;
use flags::Texts;
pub use status::StatusFormat;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// Settings from the command line, including APP and the server's own arguments.
    pub flags: FlagLayer,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run the server.
    Run,
    /// Check whether it would run.
    Check,
    /// Show each setting with its source, and the plan.
    Explain {
        /// As JSON.
        json: bool,
        /// The plan of the running launcher instead of the one from these settings.
        running: bool,
    },
    /// Probe once.
    Health {
        /// What is asked.
        probe: Probe,
        /// How long to wait for a response.
        timeout: Duration,
        /// Probe this address instead of the running launcher.
        url: Option<String>,
    },
    /// Show the state of the running launcher.
    Status {
        /// How.
        format: StatusFormat,
    },
    /// Show it as a live view.
    Top(top::Options),
    /// Show what the workers are doing.
    Stacks {
        /// As JSON.
        json: bool,
        /// Which; none for all.
        pids: Vec<i32>,
    },
    /// Hand over to a new generation.
    Reload {
        /// The server to change to.
        server: Option<Server>,
        /// How long to wait for the outcome; by default the launcher determines it.
        timeout: Option<Duration>,
    },
    /// Be a plain init for this command.
    Init {
        /// The command and its arguments, at least one element.
        command: Vec<OsString>,
    },
    /// Measure both servers on the app (`app_module` in the flags).
    Compare(Box<Options>),
    /// Print another manager's configuration file, or one of its services, as `mcp-launch.toml`.
    Import(PathBuf, Option<String>),
    /// Print completions.
    Completions {
        /// For this shell.
        shell: Shell,
    },
    /// Print the man page.
    Man,
}

/// What a probe checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// May it receive requests? Fails during startup and while draining.
    Ready,
    /// Does it still work? Fails if no worker responds.
    Live,
}

/// The default time limit of a probe.
const PROBE_TIMEOUT: &str = "5s";

/// Builds one command.
type Build = fn() -> Command;

/// The commands, each with the function that builds it.
const COMMANDS: [(&str, Build); 12] = [
    ("check", check),
    ("explain", explain),
    ("health", health),
    ("status", status::command),
    ("top", live_view),
    ("stacks", stacks),
    ("reload", reload),
    ("init", init),
    ("compare", compare::command),
    ("import", import),
    ("completions", completions),
    ("man", man),
];

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    run_options(program(), Texts::With).subcommands(COMMANDS.map(|(_, build)| build()))
}

/// The part of the command line that is needed here, which takes a fifth of the time to build: one command, or the
/// options for running, without their help texts.
fn needed(args: &[OsString]) -> Command {
    let first = args.get(1);
    if let Some((_, build)) = COMMANDS.iter().find(|(name, _)| first.is_some_and(|first| first == name)) {
        return program().subcommand(build());
    }
    run_options(program(), Texts::Without).subcommands(COMMANDS.map(|(name, _)| Command::new(name)))
}

fn program() -> Command {
    Command::new("mcp-launch")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Init, launcher and supervisor for Python web servers: Gunicorn or Granian, sized to the container")
        .override_usage("mcp-launch [OPTIONS] [APP] [-- SERVER_ARGS...]\n       mcp-launch [OPTIONS] COMMAND ...")
        .after_help(
            "Precedence: command line, environment, configuration file, default.\n\
             Without a command, the server is run. SERVER_ARGS are passed to it as they are, last.",
        )
        .subcommand_value_name("COMMAND")
}

fn run_options(command: Command, texts: Texts) -> Command {
    let app = Arg::new("APP")
        .value_parser(value_parser!(OsString))
        .help("The ASGI or WSGI application, as MODULE:ATTRIBUTE");
    let server_args = Arg::new("SERVER_ARGS")
        .value_parser(value_parser!(OsString))
        .num_args(0..)
        .last(true)
        .help("Arguments for the server");
    command.args_override_self(true).args(flags::all(texts)).args([app, server_args])
}

/// The options that locate the running launcher: by its socket, or by its address.
fn finding_options(command: Command) -> Command {
    command.args_override_self(true).args(flags::of(&["host", "port", "uds", "socket"]))
}

fn check() -> Command {
    run_options(
        Command::new("check").about("Validate the settings and check whether the server would start; start nothing"),
        Texts::With,
    )
}

fn explain() -> Command {
    let command = Command::new("explain").about("Show each setting with its source, what would be run, and why");
    run_options(command, Texts::With)
        .arg(switch("json", "Print JSON"))
        .arg(switch("running", "Show the plan of the running launcher, whose environment may differ"))
}

fn health() -> Command {
    let url = Arg::new("URL")
        .value_hint(ValueHint::Url)
        .help("Probe this address (http or https, any certificate) instead of the running launcher");
    finding_options(Command::new("health").about("Probe once; exit status 0 is yes, 1 is no, 3 is no launcher found"))
        .arg(switch("ready", "Is it ready for requests? (the default)").conflicts_with("live"))
        .arg(switch("live", "Does it still work?"))
        .arg(timeout().default_value(PROBE_TIMEOUT))
        .arg(url)
}

fn live_view() -> Command {
    let about = "Show the running launcher as a live view, or once as plain text where there is no terminal";
    let interval = duration::<100>("interval", "interval", "The time between two looks [default: 1s]");
    finding_options(Command::new("top").about(about)).arg(switch("once", "Show it once, as plain text")).arg(interval)
}

fn stacks() -> Command {
    let pids = Arg::new("PID").num_args(0..).value_parser(value_parser!(i32).range(1..)).help("Only these workers");
    finding_options(
        Command::new("stacks").about("Show what every worker is doing now: Python stacks, tasks, open requests"),
    )
    .args([switch("json", "Print JSON"), pids])
}

fn reload() -> Command {
    let server = Arg::new("new-server")
        .long("server")
        .value_name("NAME")
        .ignore_case(true)
        .value_parser(PossibleValuesParser::new(Server::choices()))
        .help("Switch to this server");
    let about = "Hand over to a new generation without losing a request; exit status 1 if the old one was kept";
    finding_options(Command::new("reload").about(about)).args([server, timeout()])
}

fn init() -> Command {
    let command = Arg::new("CMD")
        .value_parser(value_parser!(OsString))
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_hint(ValueHint::CommandWithArguments)
        .help("The command and its arguments");
    Command::new("init")
        .about("Act as a plain init for any command: forward signals, reap, and end what remains")
        .override_usage("mcp-launch init [--] CMD [ARGS...]")
        .arg(command)
}

fn import() -> Command {
    let file = Arg::new("FILE").required(true).value_parser(value_parser!(PathBuf)).help("The other manager's file");
    let name = Arg::new("NAME").help("Which of its services");
    Command::new("import").about("Print the configuration of another manager as mcp-launch.toml").args([file, name])
}

fn completions() -> Command {
    let shell = Arg::new("SHELL").required(true).value_parser(value_parser!(Shell)).help("The shell");
    Command::new("completions").about("Print completions for a shell").arg(shell)
}

fn man() -> Command {
    Command::new("man").about("Print the man page")
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn timeout() -> Arg {
    duration::<1>("wait", "timeout", "How long to wait for a response")
}

/// A duration of at least so many milliseconds.
fn duration<const LEAST: u64>(id: &'static str, flag: &'static str, help: &'static str) -> Arg {
    let parse = |text: &str| {
        Span::<LEAST, 86_400_000>::parse(text).map(|span| span.0).map_err(|_| Span::<LEAST, 86_400_000>::expected())
    };
    Arg::new(id).long(flag).value_name("DURATION").value_parser(ValueParser::new(parse)).help(help)
}

/// Parses the command line. The first argument is the program's name.
///
/// # Errors
/// A usage error, or the text of `--help` and `--version`: [`clap::Error::exit`] prints either.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match parse_quickly(&args) {
        Some(matches) => matches,
        None => command().try_get_matches_from(&args).map_err(|error| with_tip(error, &args))?,
    };
    Ok(invocation_of(matches))
}

/// If a user tries to run another program in the container, `docker run IMAGE ls -l`, the error shows how to.
fn with_tip(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let is_error = !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let program = args.get(1).filter(|first| is_error && command().find_subcommand(first).is_none());
    let env = || std::env::vars_os().collect();
    if program.is_some_and(|name| matches!(find_program(name, &env()), Program::Found(_))) {
        let words: Vec<_> = args[1..].iter().map(|word| word.to_string_lossy()).collect();
        let words = shlex::try_join(words.iter().map(AsRef::as_ref)).unwrap_or_else(|_| words.join(" "));
        let tip = format!("to run it under this init: mcp-launch init -- {words}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn invocation_of(mut matches: ArgMatches) -> Invocation {
    let mut flags = FlagLayer::default();
    flags::take(&matches, &mut flags);
    let action = match matches.remove_subcommand() {
        None => Action::Run,
        Some((name, mut matches)) => {
            flags::take(&matches, &mut flags);
            action(&name, &mut matches)
        }
    };
    Invocation { action, flags }
}

/// Parses the command line with only the part that is needed. None if that is not enough: for help, for errors (which
/// need the complete definition), and for options before a command.
fn parse_quickly(args: &[OsString]) -> Option<ArgMatches> {
    let command = needed(args);
    let is_whole = |name: &str| args.get(1).is_some_and(|first| first == name);
    let matches = command.try_get_matches_from(args).ok()?;
    matches.subcommand_name().is_none_or(is_whole).then_some(matches)
}

fn action(name: &str, matches: &mut ArgMatches) -> Action {
    match name {
        "check" => Action::Check,
        "explain" => Action::Explain { json: matches.get_flag("json"), running: matches.get_flag("running") },
        "health" => Action::Health {
            probe: if matches.get_flag("live") { Probe::Live } else { Probe::Ready },
            timeout: matches.remove_one("wait").unwrap_or_default(),
            url: matches.remove_one("URL"),
        },
        "status" => Action::Status { format: status::format(matches) },
        "top" => {
            Action::Top(top::Options { once: matches.get_flag("once"), interval: matches.remove_one("interval") })
        }
        "stacks" => Action::Stacks {
            json: matches.get_flag("json"),
            pids: matches.remove_many("PID").into_iter().flatten().collect(),
        },
        "reload" => Action::Reload {
            server: matches.remove_one::<String>("new-server").and_then(|name| Server::parse(&name).ok()),
            timeout: matches.remove_one("wait"),
        },
        "init" => Action::Init { command: matches.remove_many("CMD").into_iter().flatten().collect() },
        "compare" => Action::Compare(Box::new(compare::options(matches))),
        "completions" => Action::Completions { shell: matches.remove_one("SHELL").unwrap_or(Shell::Bash) },
        "man" => Action::Man,
        "import" => Action::Import(matches.remove_one("FILE").unwrap_or_default(), matches.remove_one("NAME")),
        _ => unreachable!("clap knows no other command than those above"),
    }
}

#[cfg(test)]
mod tests;
