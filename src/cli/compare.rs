//! The command `compare`.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::flags::Texts;
use super::{run_options, switch};
use crate::compare::options::{self, Format, Header, LoadRequest, Options};

pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let header = option("header", "HEADER", "A header to send, as NAME: VALUE; may be repeated");
    let body =
        option("body", "TEXT", "The body to send").value_parser(ValueParser::string()).allow_hyphen_values(true);
    run_options(
        Command::new("compare").about("Run both servers on the application, measure them and recommend one"),
        Texts::With,
    )
    .arg(option("path", "PATH", "The path to request").default_value("/").value_parser(options::path))
    .arg(
        option("method", "METHOD", "The request method [default: GET, or POST with a body]")
            .value_parser(options::method),
    )
    .arg(header.action(ArgAction::Append).value_parser(options::header))
    .arg(body)
    .arg(
        option("connections", "N,N", "Numbers of connections to measure with, separated by commas")
            .default_value("1,64,512")
            .value_parser(options::connections),
    )
    .arg(
        option("duration", "DURATION", "Length of each measurement")
            .default_value("5s")
            .value_parser(options::duration),
    )
    .arg(
        option("rounds", "N", "How often to start and measure each server")
            .default_value("5")
            .value_parser(options::rounds),
    )
    .arg(switch("json", "Print JSON").conflicts_with("markdown"))
    .arg(switch("markdown", "Print tables in Markdown"))
    .arg(
        option("html", "FILE", "Write a page with plots there, too")
            .value_parser(value_parser!(PathBuf))
            .value_hint(ValueHint::FilePath),
    )
}

pub(super) fn options(matches: &mut ArgMatches) -> Options {
    let body: Option<String> = matches.remove_one("body");
    let method = if body.is_some() { "POST" } else { "GET" };
    Options {
        request: LoadRequest {
            method: matches.remove_one("method").unwrap_or_else(|| method.to_owned()),
            path: matches.remove_one("path").unwrap_or_default(),
            headers: matches.remove_many::<Header>("header").into_iter().flatten().collect(),
            body,
        },
        connections: matches.remove_one("connections").unwrap_or_default(),
        duration: matches.remove_one("duration").unwrap_or_default(),
        rounds: matches.remove_one("rounds").unwrap_or_default(),
        format: match (matches.get_flag("json"), matches.get_flag("markdown")) {
            (true, _) => Format::Json,
            (_, true) => Format::Markdown,
            _ => Format::Text,
        },
        html: matches.remove_one("html"),
    }
}
