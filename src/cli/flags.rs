//! Builds flags from the option table, and turns their values into a layer.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};

use clap::builder::{PossibleValue, Str, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::bind;
use crate::settings::FlagLayer;
use crate::settings::options::{Heading, OPTIONS, Opt};

/// A flag and the options that it sets.
struct Flag {
    name: Cow<'static, str>,
    opts: Vec<&'static Opt>,
    /// Switches off what it sets (`--no-guard`).
    negated: bool,
    /// A synonym that help does not list.
    hidden: bool,
}

/// Every flag of the table. A later one takes precedence over an earlier one of the same option.
fn table() -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for opt in OPTIONS {
        let Some(name) = opt.flag else { continue };
        match flags.iter_mut().find(|flag| flag.name == name) {
            Some(flag) => flag.opts.push(opt),
            None => flags.push(Flag { name: name.into(), opts: vec![opt], negated: false, hidden: false }),
        }
    }
    let switches = flags.iter().filter(|flag| flag.opts[0].is_switch());
    let negations = switches.map(|flag| Flag {
        name: format!("no-{}", flag.name).into(),
        opts: flag.opts.clone(),
        negated: true,
        hidden: true,
    });
    let specific = OPTIONS.iter().filter_map(|opt| {
        let name = opt.specific_flag().filter(|name| opt.flag.is_some_and(|flag| flag != name))?;
        Some(Flag { name: name.into(), opts: vec![opt], negated: false, hidden: !opt.shares_flag() })
    });
    let more: Vec<_> = negations.chain(specific).collect();
    flags.extend(more);
    flags
}

/// Whether arguments get the texts for help, documentation and completions. Those are half of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    With,
    Without,
}

/// The arguments for every option, `--config` and `--bind`.
pub(super) fn all(texts: Texts) -> Vec<Arg> {
    args(&table(), texts)
}

/// The arguments for these options, `--config` and `--bind`.
pub(super) fn of(ids: &[&str]) -> Vec<Arg> {
    let flags: Vec<_> = table().into_iter().filter(|flag| ids.contains(&flag.opts[0].id)).collect();
    args(&flags, Texts::With)
}

fn args(flags: &[Flag], texts: Texts) -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(OsString))
        .value_hint(ValueHint::FilePath)
        .help_heading(Heading::Launcher.title())
        .help(
            "The configuration file [default: ./mcp-launch.toml, else /etc/mcp-launch.toml] [env: MCP_LAUNCH_CONFIG]",
        );
    let bind = Arg::new("bind")
        .long("bind")
        .short('b')
        .value_name("ADDRESS")
        .value_parser(value_parser!(OsString))
        .help_heading(Heading::Bind.title())
        .action(ArgAction::Append)
        .help("Where to listen: HOST:PORT, HOST, :PORT or unix:PATH; several times for several, with Gunicorn");
    [config, bind].into_iter().chain(flags.iter().map(|flag| arg(flag, texts))).collect()
}

fn arg(flag: &Flag, texts: Texts) -> Arg {
    let opt = flag.opts[0];
    let shared = flag.opts.len() > 1;
    let heading = if shared { Heading::Launcher } else { opt.heading };
    let name = Str::from(flag.name.clone());
    let mut arg = Arg::new(&name).long(name).help_heading(heading.title()).hide(flag.hidden);
    if texts == Texts::With {
        arg = arg.help(help(flag));
    }
    if flag.negated {
        let positive = flag.name.strip_prefix("no-").unwrap_or_default().to_owned();
        return arg.action(ArgAction::SetTrue).overrides_with(positive);
    }
    let mut arg = arg.value_name(opt.metavar).value_parser(Words((opt.choices)()));
    if opt.is_switch() {
        arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true").hide_possible_values(true);
    } else {
        arg = arg.allow_negative_numbers(true);
    }
    if let Some(short) = opt.short.filter(|_| opt.flag == Some(&flag.name)) {
        arg = arg.short(short);
    }
    if opt.id == "http_server" {
        arg = arg.alias("http-server");
    }
    if opt.metavar == "PATH" {
        arg = arg.value_hint(ValueHint::AnyPath);
    }
    arg
}

fn help(flag: &Flag) -> String {
    let text = flag.opts[0].help.trim_end_matches('.');
    let text = if flag.opts.len() > 1 {
        format!("{}, for the selected server", text.replace("Gunicorn's workers", "Workers"))
    } else {
        text.to_owned()
    };
    let mut defaults: Vec<_> = flag.opts.iter().map(|opt| opt.default_text()).collect();
    defaults.dedup();
    let variables: Vec<_> = flag.opts.iter().filter_map(|opt| opt.env.first().copied()).collect();
    format!("{text} [default: {}] [env: {}]", defaults.join(", "), variables.join(", "))
}

/// Accepts any text, but lists the allowed words for help and completions.
#[derive(Debug, Clone, Copy)]
struct Words(&'static [&'static str]);

impl TypedValueParser for Words {
    type Value = OsString;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = self.0;
        (!words.is_empty()).then(|| Box::new(words.iter().map(PossibleValue::new)) as Box<_>)
    }
}

/// Adds what was typed to the layer.
pub(super) fn take(matches: &ArgMatches, layer: &mut FlagLayer) {
    if let Some(path) = given(matches, "config") {
        layer.config = Some(path);
    }
    let mut addresses = matches.try_get_many::<OsString>("bind").ok().flatten().into_iter().flatten().cloned();
    if let Some(first) = addresses.next() {
        bind::expand(&first, layer);
    }
    layer.further_binds.extend(addresses);
    for flag in table() {
        let text = if flag.negated {
            let on = matches.try_get_one::<bool>(&flag.name).ok().flatten();
            on.copied().unwrap_or(false).then(|| OsString::from("false"))
        } else {
            given(matches, &flag.name)
        };
        for (opt, text) in flag.opts.iter().zip(text.iter().cycle()) {
            layer.set(opt.id, &format!("--{}", flag.name), text);
        }
    }
    if let Some(app) = given(matches, "APP") {
        layer.set("app_module", "APP", app);
    }
    if let Ok(Some(server_args)) = matches.try_get_many::<OsString>("SERVER_ARGS") {
        layer.server_args = server_args.cloned().collect();
    }
}

/// The text of an argument, if the command has it and it was typed.
fn given(matches: &ArgMatches, id: &str) -> Option<OsString> {
    matches.try_get_one::<OsString>(id).ok().flatten().cloned()
}
