use std::ffi::OsStr;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::compare::options::Format;
use crate::settings::flags::FlagValue;

fn try_parse(args: &[&str]) -> Result<Invocation, clap::Error> {
    parse(std::iter::once("mcp-launch").chain(args.iter().copied()).map(OsString::from))
}

fn invocation(args: &[&str]) -> Invocation {
    try_parse(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// The values of the options, as (identifier, flag, text).
fn values(args: &[&str]) -> Vec<(&'static str, String, String)> {
    let text = |value: &OsStr| value.to_str().expect("text").to_owned();
    let plain = |FlagValue { id, flag, value }: FlagValue| (id, flag, text(&value));
    invocation(args).flags.values.into_iter().map(plain).collect()
}

fn value(id: &'static str, flag: &str, text: &str) -> (&'static str, String, String) {
    (id, flag.into(), text.into())
}

#[test]
fn clap_finds_nothing_wrong_with_the_command() {
    command().debug_assert();
}

#[test]
fn the_documented_command_lines_work_as_written() {
    let args = ["--server", "granian", "--workers", "4", "my.app:app", "--", "--static-path-mount", "/srv"];
    let wanted = [
        value("http_server", "--server", "granian"),
        value("gunicorn_workers", "--workers", "4"),
        value("granian_workers", "--workers", "4"),
        value("app_module", "APP", "my.app:app"),
    ];
    assert_eq!(values(&args), wanted);
    let invocation = invocation(&args);
    assert_eq!(invocation.action, Action::Run);
    assert_eq!(invocation.flags.server_args, ["--static-path-mount", "/srv"]);
    assert_eq!(values(&["--http-server=granian"]), [value("http_server", "--server", "granian")]);
    let wanted = [
        value("gunicorn_workers", "--workers", "2"),
        value("granian_workers", "--workers", "2"),
        value("gunicorn_worker_class", "--worker-class", "asgi"),
    ];
    assert_eq!(values(&["-k", "asgi", "-w", "2"]), wanted);
}

#[test]
fn options_are_taken_before_and_behind_a_command() {
    for args in [["--server", "granian", "explain"], ["explain", "--server", "granian"]] {
        let invocation = invocation(&args);
        assert_eq!(invocation.action, Action::Explain { json: false, running: false });
        assert_eq!(invocation.flags.values.len(), 1, "{args:?}");
    }
    assert_eq!(invocation(&["check", "my.app:app"]).action, Action::Check);
    assert_eq!(values(&["--port", "1", "check", "--port", "2"]).pop(), Some(value("port", "--port", "2")));
    assert_eq!(values(&["my.app:app", "check"]), [value("app_module", "APP", "my.app:app")]);
}

#[test]
fn an_app_is_not_mistaken_for_a_command() {
    for app in ["granian.app:app", "checks", "status.app:app", "init:app", "reload2", "bash", ""] {
        let invocation = invocation(&[app]);
        assert_eq!(invocation.action, Action::Run);
        assert_eq!(invocation.flags.values[0].value, app);
    }
}

#[test]
fn a_flag_that_is_given_twice_has_its_last_value() {
    assert_eq!(values(&["--port", "1", "--port=2"]), [value("port", "--port", "2")]);
}

#[test]
fn a_servers_own_flag_comes_after_the_shared_one() {
    let wanted = [
        value("gunicorn_workers", "--workers", "2"),
        value("granian_workers", "--workers", "2"),
        value("granian_workers", "--granian-workers", "3"),
    ];
    assert_eq!(values(&["--granian-workers", "3", "--workers", "2"]), wanted);
    assert_eq!(values(&["--gunicorn-timeout", "9"]), [value("gunicorn_timeout", "--gunicorn-timeout", "9")]);
    assert_eq!(values(&["--granian-loop", "auto"]), [value("granian_loop", "--granian-loop", "auto")]);
}

#[test]
fn switches_need_no_value() {
    assert_eq!(values(&["--ssl", "my.app"]), [value("ssl", "--ssl", "true"), value("app_module", "APP", "my.app")]);
    assert_eq!(values(&["--ssl=false"]), [value("ssl", "--ssl", "false")]);
    assert_eq!(values(&["--guard", "--no-guard"]), [value("guard", "--no-guard", "false")]);
    assert_eq!(values(&["--no-guard", "--guard=1"]), [value("guard", "--guard", "1")]);
}

#[test]
fn values_are_not_judged_here() {
    assert_eq!(values(&["--port", "-1"]), [value("port", "--port", "-1")]);
    assert_eq!(values(&["--server", "nginx"]), [value("http_server", "--server", "nginx")]);
    assert_eq!(values(&["--uds="]), [value("uds", "--uds", "")]);
}

#[test]
fn bind_is_taken_apart() {
    let none = || value("uds", "--bind", "none");
    let (host, port) = (|text| value("host", "--bind", text), |text| value("port", "--bind", text));
    for (text, wanted) in [
        ("0.0.0.0:80", vec![none(), host("0.0.0.0"), port("80")]),
        ("localhost", vec![none(), host("localhost")]),
        (":80", vec![none(), port("80")]),
        ("[::]:80", vec![none(), host("[::]"), port("80")]),
        ("[::1]", vec![none(), host("[::1]")]),
        ("::1", vec![none(), host("::1")]),
        (":::80", vec![none(), host("::"), port("80")]),
        ("unix:/run/x.sock", vec![value("uds", "--bind", "/run/x.sock")]),
        ("", vec![none(), host("")]),
    ] {
        assert_eq!(values(&["-b", text]), wanted, "{text}");
    }
}

#[test]
fn init_takes_a_command_verbatim() {
    let odd = OsString::from_vec(vec![0xff]);
    let words = ["mcp-launch", "init", "--", "sh", "-c", "exit 3", "--", "--help", "-b"];
    let args = words.map(OsString::from).into_iter().chain([odd.clone()]);
    let wanted: Vec<_> = words[3..].iter().map(OsString::from).chain([odd]).collect();
    assert_eq!(parse(args).unwrap().action, Action::Init { command: wanted });
    let Action::Init { command } = invocation(&["init", "env", "--help", "--", "-i", "-h"]).action else { panic!() };
    assert_eq!(command, ["env", "--help", "--", "-i", "-h"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["-V"], &["init", "--help"], &["help", "explain"]] {
        assert_eq!(try_parse(args).unwrap_err().exit_code(), 0, "{args:?}");
    }
}

#[test]
fn commands_for_the_launcher_take_its_address() {
    for command in ["health", "status", "top", "reload"] {
        let args = [command, "--socket", "/s", "-b", ":80", "--config", "c.toml"];
        let flags = invocation(&args).flags;
        assert_eq!(flags.config, Some("c.toml".into()));
        assert!(flags.has("--socket") && flags.has("--bind"), "{command}");
    }
    assert_eq!(
        invocation(&["health", "--live", "--timeout", "500ms", "http://127.0.0.1/"]).action,
        Action::Health {
            probe: Probe::Live,
            timeout: Duration::from_millis(500),
            url: Some("http://127.0.0.1/".into())
        }
    );
    assert_eq!(
        invocation(&["reload", "--server", "Granian"]).action,
        Action::Reload { server: Some(Server::Granian), timeout: None }
    );
    assert_eq!(
        invocation(&["top", "--interval", "2s", "--once"]).action,
        Action::Top(crate::top::Options { interval: Some(Duration::from_secs(2)), once: true })
    );
    let ends = |json| Action::Status { format: StatusFormat::Ends { json } };
    assert_eq!(invocation(&["status", "--ends"]).action, ends(false));
    assert_eq!(invocation(&["status", "--ends", "--json"]).action, ends(true));
    assert_eq!(invocation(&["status", "--prometheus"]).action, Action::Status { format: StatusFormat::Prometheus });
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    for args in [
        &["--wrokers", "2"][..],
        &["health", "--live", "--ready"],
        &["init"],
        &["init", "--"],
        &["a:b", "c:d"],
        &["--port"],
        &["top", "--interval", "99ms"],
    ] {
        assert_eq!(try_parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn another_program_in_place_of_an_app_is_answered_with_the_form_that_runs_it() {
    for (args, form) in
        [(["sh", "-c", "exit 3", "x"], "init -- sh -c 'exit 3' x"), (["ls", "-l", "/", "/"], "init -- ls -l / /")]
    {
        let error = try_parse(&args).unwrap_err().to_string();
        assert!(error.contains(&format!("mcp-launch {form}")), "{error}");
    }
    let error = try_parse(&["my.app:app", "--workrs", "2"]).unwrap_err().to_string();
    assert!(!error.contains("init --") && error.contains("--workers"), "{error}");
}

#[test]
fn help_lists_every_heading_with_defaults_and_variables() {
    let help = command().render_long_help().to_string();
    for heading in crate::settings::options::Heading::ALL {
        assert!(help.contains(&format!("{}:", heading.title())), "{}", heading.title());
    }
    for part in ["--granian-workers", "[env: GRANIAN_WORKERS]", "[default: 4444]", "-w, --workers <N>"] {
        assert!(help.contains(part), "{part}");
    }
    assert!(!help.contains("--granian-loop"));
}

proptest! {
    /// The fast path gives the same result.
    #[test]
    fn what_is_taken_apart_quickly_is_the_same_with_the_whole_command_line(
        args in prop::collection::vec(prop::sample::select(TOKENS), 0..5)
    ) {
        let args: Vec<OsString> = std::iter::once("mcp-launch").chain(args).map(OsString::from).collect();
        if let Some(quick) = parse_quickly(&args) {
            let whole = command().try_get_matches_from(&args).unwrap();
            prop_assert_eq!(invocation_of(quick), invocation_of(whole));
        }
    }
}

/// The parts that command lines are composed of.
const TOKENS: &[&str] = &[
    "init",
    "check",
    "explain",
    "health",
    "status",
    "top",
    "--once",
    "reload",
    "man",
    "completions",
    "bash",
    "help",
    "--help",
    "-V",
    "--",
    "-",
    "--server",
    "granian",
    "-w",
    "2",
    "-w2",
    "--workers=4",
    "--no-ssl",
    "--ssl",
    "--ssl=false",
    "--json",
    "--live",
    "--timeout",
    "5s",
    "my.app:app",
    "-b",
    ":80",
    "--port",
    "-1",
    "--config",
    "x.toml",
    "--wrong",
    "",
];

#[test]
fn what_is_to_be_measured_is_read() {
    let Action::Compare(plain) = invocation(&["compare"]).action else { panic!("another action") };
    assert_eq!((plain.request.method.as_str(), plain.request.path.as_str()), ("GET", "/"));
    assert_eq!((plain.connections.as_slice(), plain.rounds), ([1, 64, 512].as_slice(), 5));
    let args =
        ["compare", "--header", "A: 1", "--header=B: 2", "--body", "-x", "--rounds", "2", "--rounds", "3", "--json"];
    let Action::Compare(more) = invocation(&[&args[..], &["--workers", "2", "app:app"]].concat()).action else {
        panic!("another action")
    };
    let headers: Vec<_> = more.request.headers.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(headers, [("A", "1"), ("B", "2")]);
    assert_eq!((more.request.method.as_str(), more.request.body.as_deref(), more.rounds), ("POST", Some("-x"), 3));
    assert_eq!(more.format, Format::Json);
    assert!(try_parse(&["compare", "--json", "--markdown"]).is_err());
    let Action::Compare(page) = invocation(&["compare", "--html", "a.html"]).action else { panic!("another action") };
    assert_eq!((plain.html, page.html), (None, Some("a.html".into())));
}
