//! What users rely on about settings: the layers, their consistency, and the messages about mistakes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use mcp_launch::cli;
use mcp_launch::host::Environment;
use mcp_launch::problem::{Exit, exit_for};
use mcp_launch::settings::options::Section;
use mcp_launch::settings::value::Secret;
use mcp_launch::settings::{FlagLayer, OPTIONS, Opt, Origin, Resolution, resolve};
use proptest::prelude::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn flags(args: &[&str]) -> FlagLayer {
    let args = ["mcp-launch"].iter().chain(args).map(OsString::from);
    cli::parse(args).unwrap_or_else(|error| panic!("{error}")).flags
}

/// Resolves with this text as `/etc/mcp-launch.toml`, the last place that is searched.
fn resolve_with(file: &str, env: &[(&str, &str)], args: &[&str]) -> Resolution {
    let read = |path: &Path| {
        if path == Path::new("/etc/mcp-launch.toml") { Ok(file.into()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    resolve(&flags(args), &environment(env), &read)
}

fn problems(resolution: &Resolution) -> Vec<String> {
    resolution.problems.iter().map(ToString::to_string).collect()
}

/// The option's value in canonical form; the secret, which is shown as stars, is unmasked.
fn values(resolution: &Resolution) -> Vec<(&'static str, String)> {
    let secret = resolution.settings.key_file_password.value.as_ref().map(|secret| secret.reveal().to_owned());
    let entries = resolution.settings.entries().into_iter();
    let plain = |id, value| if id == "key_file_password" { secret.clone().unwrap_or_default() } else { value };
    entries.map(|entry| (entry.opt.id, plain(entry.opt.id, entry.value))).collect()
}

mod precedence {
    use super::*;

    #[test]
    fn without_any_layer_every_setting_has_its_default() {
        let resolution = resolve_with("", &[], &[]);
        for entry in resolution.settings.entries() {
            assert_eq!(*entry.origin, Origin::Default);
            assert!(entry.shadowed.is_empty());
        }
        assert_eq!(resolution.settings.app_module.value.to_string(), "mcpgateway.main:app");
        assert_eq!(resolution.settings.port.value.0, 4444);
        assert_eq!(resolution.settings.gunicorn_max_requests.value.0, 100_000);
        assert_eq!((resolution.problems, resolution.warnings), (vec![], vec![]));
    }

    #[test]
    fn the_command_line_beats_the_environment_and_that_the_file() {
        let (file, env) = ("port = 1", [("PORT", "2")]);
        let port = resolve_with(file, &env, &["--port", "3"]).settings.port;
        assert_eq!((port.value.0, &port.origin), (3, &Origin::Flag("--port".into())));
        let from_file = Origin::File { path: "/etc/mcp-launch.toml".into(), key: "port".into() };
        let shadowed: Vec<_> =
            port.shadowed.iter().map(|shadowed| (shadowed.text.as_str(), &shadowed.origin)).collect();
        assert_eq!(shadowed, [("2", &Origin::Env("PORT".into())), ("1", &from_file)]);
        assert_eq!(resolve_with(file, &env, &[]).settings.port.value.0, 2);
        assert_eq!(resolve_with(file, &[], &[]).settings.port.value.0, 1);
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let resolution = resolve_with("port = 1", &[("PORT", ""), ("WEB_CONCURRENCY", "")], &[]);
        assert_eq!(resolution.settings.port.value.0, 1);
        assert!(!resolution.settings.web_concurrency.is_explicit());
    }

    #[test]
    fn the_first_name_of_an_option_that_is_not_empty_wins() {
        let names = [("MCP_LAUNCH_UDS", "/a"), ("GRANIAN_UDS", "/b")];
        let uds = resolve_with("", &names, &[]).settings.uds;
        assert_eq!(uds.origin, Origin::Env("MCP_LAUNCH_UDS".into()));
        assert_eq!(uds.shadowed[0].origin, Origin::Env("GRANIAN_UDS".into()));
        let uds = resolve_with("", &[("MCP_LAUNCH_UDS", ""), names[1]], &[]).settings.uds;
        assert_eq!((uds.value.clone(), uds.shadowed.len()), (Some("/b".into()), 0));
    }

    #[test]
    fn a_servers_own_flag_beats_the_shared_one_in_any_order() {
        for args in [["--workers=2", "--granian-workers=3"], ["--granian-workers=3", "--workers=2"]] {
            let entries = resolve_with("", &[], &args).settings;
            assert_eq!(entries.granian_workers.origin, Origin::Flag("--granian-workers".into()));
            assert_eq!(entries.gunicorn_workers.origin, Origin::Flag("--workers".into()));
        }
    }

    #[test]
    fn an_address_on_the_command_line_beats_a_socket_in_the_environment() {
        let settings = resolve_with("", &[("MCP_LAUNCH_UDS", "/a")], &["-b", "[::1]:80"]).settings;
        assert_eq!((settings.uds.value.clone(), settings.port.value.0), (None, 80));
        assert_eq!(settings.host.value.0.to_string(), "::1");
        assert_eq!(settings.host.origin, Origin::Flag("--bind".into()));
    }
}

mod mistakes {
    use super::*;

    #[test]
    fn all_are_reported_together_each_with_value_source_and_what_is_allowed() {
        let file = "[granian]\nbacklog = 1\n";
        let resolution = resolve_with(file, &[("GRANIAN_WORKERS", "abc"), ("SSL", "maybe")], &["--mode", "daemon"]);
        assert_eq!(
            problems(&resolution),
            [
                "mode = \"daemon\" is not valid (from command line --mode); allowed: supervise, exec",
                "ssl = \"maybe\" is not valid (from environment SSL); \
                 allowed: true or false (also 1/0, yes/no, on/off)",
                "workers = \"abc\" is not valid (from environment GRANIAN_WORKERS); \
                 allowed: auto, a whole number from 1 to 4096, or a formula in n = cores such as 2n+1",
                "backlog = \"1\" is not valid (from file /etc/mcp-launch.toml key granian.backlog); \
                 allowed: a whole number from 128 to 65535",
            ]
        );
        assert_eq!(exit_for(&resolution.problems), Exit::Settings);
        assert_eq!(resolution.settings.granian_workers.origin, Origin::Default);
    }

    #[test]
    fn a_shadowed_one_is_only_a_warning() {
        let resolution = resolve_with("", &[("GRANIAN_WORKERS", "abc")], &["--workers", "2"]);
        assert!(resolution.problems.is_empty());
        let warning = "workers = \"abc\" is not valid (from environment GRANIAN_WORKERS); \
                       command line --workers takes precedence over it";
        assert_eq!(resolution.warnings, [warning]);
    }

    #[test]
    fn a_secret_is_in_no_message() {
        let file = "[tls]\nkey_file_password = { hunter = 2 }";
        let resolution = resolve_with(file, &[("CERT_PASSPHRASE", "hunter2"), ("KEY_FILE_PASSWORD", "hunter3")], &[]);
        let password = &resolution.settings.key_file_password;
        assert_eq!(password.value.as_ref().map(Secret::reveal), Some("hunter3"));
        let shown = format!("{:?} {:?} {:?}", resolution.settings, resolution.problems, resolution.warnings);
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn a_huge_value_is_not_printed_whole() {
        let resolution = resolve_with("", &[("GRANIAN_LOOP", &"x".repeat(1 << 20))], &[]);
        let text = &problems(&resolution)[0];
        assert!(text.len() < 300 && text.contains("… (1048576 bytes)"), "{text}");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_a_problem_where_we_read_them() {
        let odd = || OsString::from_vec(vec![b'a', 0xff]);
        let env = Environment::from([("HOST".into(), odd()), ("SOMETHING".into(), odd())]);
        let flags = cli::parse(["mcp-launch".into(), "--port".into(), odd()]).unwrap().flags;
        let resolution = resolve(&flags, &env, &|_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(
            problems(&resolution),
            [
                "host = \"a\u{fffd}\" is not valid: it is not UTF-8 (from environment HOST); \
                 allowed: an IP address (IPv6 with or without brackets) or localhost",
                "port = \"a\u{fffd}\" is not valid: it is not UTF-8 (from command line --port); \
                 allowed: a whole number from 0 to 65535",
            ]
        );
    }

    #[test]
    fn an_app_that_cannot_be_one_is_answered_with_the_way_to_run_a_program() {
        assert!(problems(&resolve_with("", &[], &["./run.sh"]))[0].contains("mcp-launch init -- CMD"));
        assert!(problems(&resolve_with("", &[], &[""]))[0].contains("allowed: MODULE:ATTRIBUTE"));
    }

    #[test]
    fn a_service_link_is_no_port() {
        let resolution = resolve_with("", &[("PORT", "tcp://10.0.0.1:80")], &[]);
        assert!(problems(&resolution)[0].starts_with("port = \"tcp://10.0.0.1:80\" is not valid"));
        let resolution = resolve_with("", &[("GRANIAN_PORT", "tcp://10.0.0.1:80")], &[]);
        assert_eq!((resolution.problems, resolution.warnings), (vec![], vec![]));
        assert_eq!(resolution.withheld[0].name, "GRANIAN_PORT");
    }

    #[test]
    fn a_named_file_that_is_not_there_is_one() {
        let resolution = resolve(&flags(&["--config", "no.toml"]), &Environment::new(), &|path| std::fs::read(path));
        let wanted =
            "configuration file no.toml cannot be read: No such file or directory (from command line --config)";
        assert_eq!(problems(&resolution), [wanted]);
    }

    #[test]
    fn a_default_file_that_cannot_be_read_is_a_problem() {
        let read = |path: &Path| {
            if path == Path::new("./mcp-launch.toml") {
                Err(io::ErrorKind::IsADirectory.into())
            } else {
                Ok(Vec::new())
            }
        };
        let resolution = resolve(&FlagLayer::default(), &Environment::new(), &read);
        assert_eq!(problems(&resolution), ["configuration file ./mcp-launch.toml cannot be read: is a directory"]);
    }
}

mod table {
    use super::*;

    fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            assert!(seen.insert(name), "{what} {name} is there twice");
        }
    }

    #[test]
    fn names_are_unique_except_for_flags_that_the_servers_share() {
        unique("id", OPTIONS.iter().map(|opt| opt.id));
        unique("variable", OPTIONS.iter().flat_map(|opt| opt.env.iter().copied()));
        for section in Section::ALL {
            unique("key", OPTIONS.iter().filter(|opt| opt.section == section).map(|opt| opt.key));
        }
        let (shared, own): (Vec<_>, Vec<_>) = OPTIONS.iter().partition(|opt| opt.shares_flag());
        unique("flag", own.iter().filter_map(|opt| opt.flag));
        let shared: Vec<_> = shared.iter().map(|opt| (opt.flag.unwrap(), opt.section.table().unwrap())).collect();
        for (flag, _) in &shared {
            let servers: Vec<_> =
                shared.iter().filter(|(other, _)| other == flag).map(|(_, server)| *server).collect();
            assert_eq!(servers, ["gunicorn", "granian"], "--{flag}");
        }
    }

    #[test]
    fn keys_and_flags_follow_from_the_first_variable() {
        for opt in OPTIONS {
            let prefix = match opt.section {
                Section::Launcher => "MCP_LAUNCH_",
                Section::Gunicorn => "GUNICORN_",
                Section::Granian => "GRANIAN_",
                Section::Top | Section::Tls => "",
            };
            let bare = opt.env[0].strip_prefix(prefix).unwrap_or(opt.env[0]);
            assert_eq!(opt.key, bare.to_lowercase(), "{}", opt.id);
            let Some(flag) = opt.flag else {
                assert!(opt.secret, "{} has no flag", opt.id);
                continue;
            };
            let allowed = [Some(opt.key.replace('_', "-")), opt.specific_flag(), Some("server".into())];
            assert!(allowed.contains(&Some(flag.into())), "--{flag}");
            assert_eq!(flag == "server", opt.id == "http_server");
        }
    }

    #[test]
    fn every_default_is_valid_and_every_option_explained() {
        for opt in OPTIONS {
            assert!((opt.canonical)(opt.default).is_ok(), "{}", opt.id);
            assert!(opt.help.ends_with('.') && !opt.help.starts_with(' '), "{}", opt.id);
            assert!(!(opt.expected)().ends_with('.'), "{}", opt.id);
            assert!((opt.choices)().iter().all(|word| (opt.canonical)(word).is_ok()), "{}", opt.id);
        }
    }
}

/// Text as people write it for settings of all types.
fn plausible() -> impl Strategy<Value = String> {
    let number = prop_oneof![0..20_u64, 100..70_000_u64, any::<u64>()];
    prop_oneof![
        number.prop_map(|number| number.to_string()),
        (0..5000_u32, "(ms|s|m|h|k|Ki|M|mi|G|GI)?").prop_map(|(number, unit)| format!("{number}{unit}")),
        "[0-9]{1,3}\\.[0-9]{1,4}(s|m|h)?",
        "[0-9]{0,2}n([+*/-][0-9])?",
        "(?i)(true|false|yes|no|on|off|auto|none|info|warn|critical)",
        prop::sample::select(OPTIONS.iter().flat_map(|opt| (opt.choices)().iter()).collect::<Vec<_>>())
            .prop_map(|word| word.to_uppercase()),
        "/[a-z]{1,5}(,/[a-z]{0,3}){0,2}",
        "[a-z]{1,4}(\\.[a-z_]{1,4}){0,2}(:[a-z]{1,4}(\\(\\))?)?",
        any::<std::net::IpAddr>().prop_map(|address| address.to_string()),
        any::<std::net::SocketAddr>().prop_map(|address| address.to_string()),
        ":[0-9]{1,5}",
        "\\PC{1,12}",
        any::<String>().prop_filter("an empty variable is an unset one", |text| !text.is_empty()),
    ]
}

/// A TOML string in which every special character is escaped.
fn toml_string(text: &str) -> String {
    let escape = |letter: char| {
        if letter.is_alphanumeric() { letter.to_string() } else { format!("\\U{:08X}", u32::from(letter)) }
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// A file that sets every option to this TOML value.
fn file_with(value: &str) -> String {
    let of = |section| OPTIONS.iter().filter(move |opt: &&Opt| opt.section == section);
    let lines = |section: Section| {
        let table = section.table().map(|table| format!("[{table}]\n")).unwrap_or_default();
        let keys: Vec<_> = of(section).map(|opt| format!("{} = {value}\n", opt.key)).collect();
        table + &keys.concat()
    };
    Section::ALL.into_iter().map(lines).collect()
}

/// The settings when each layer in turn gives `text` to every option: by file, by environment, by flag.
fn in_every_layer(text: &str, toml: &str) -> Vec<Resolution> {
    let env: Vec<_> = OPTIONS.iter().map(|opt| (opt.env[0], text)).collect();
    let flag = |opt: &Opt| if opt.shares_flag() { opt.specific_flag() } else { opt.flag.map(Into::into) };
    let args: Vec<_> = OPTIONS.iter().filter_map(|opt| Some(format!("--{}={text}", flag(opt)?))).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    vec![
        resolve_with(&file_with(toml), &[], &[]),
        resolve_with("", &env, &[]),
        // An option without a flag gets its value from the environment here.
        resolve_with("", &[("KEY_FILE_PASSWORD", text)], &args),
    ]
}

fn assert_layers_agree(text: &str, toml: &str) {
    let values: Vec<_> = in_every_layer(text, toml).iter().map(values).collect();
    assert_eq!(values[0], values[1], "{text:?} in the file as {toml} and in the environment");
    assert_eq!(values[1], values[2], "{text:?} in the environment and on the command line");
}

#[test]
fn natural_toml_values_are_the_same_settings_as_their_text() {
    for text in ["0", "1", "2", "128", "4444", "600", "8192", "true", "false", "1.2", "1.3", "0.5", "2.0"] {
        assert_layers_agree(text, text);
    }
    let lists = "guard_exempt = [\"/a\", \"/b\"]\npre_start = [\"python\", \"-c\", \"print(1)\"]";
    let settings = resolve_with(&format!("[launcher]\n{lists}"), &[], &[]).settings;
    assert_eq!(settings.guard_exempt.value.0.len(), 2);
    assert_eq!(settings.pre_start.value.as_deref(), Some("python -c 'print(1)'"));
    let one = resolve_with("port = [1]", &[], &[]);
    assert!(problems(&one)[0].starts_with("port = \"[1]\" is not valid: it takes one value, not a list"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_text_is_the_same_setting_in_every_layer(text in plausible()) {
        assert_layers_agree(&text, &toml_string(&text));
    }

    #[test]
    fn a_text_is_valid_in_every_layer_or_in_none(text in plausible()) {
        let invalid = |resolution: &Resolution| problems(resolution).iter().filter(|text| text.contains(" is not valid")).count();
        let expected = OPTIONS.iter().filter(|opt| !opt.lenient && (opt.canonical)(&text).is_err()).count();
        for resolution in in_every_layer(&text, &toml_string(&text)) {
            prop_assert_eq!(invalid(&resolution), expected);
        }
    }

    #[test]
    fn what_is_shown_of_a_value_means_the_same_value(text in plausible()) {
        for opt in OPTIONS.iter().filter(|opt| !opt.secret) {
            if let Ok(shown) = (opt.canonical)(&text) {
                prop_assert_eq!((opt.canonical)(&shown), Ok(shown.clone()), "{} = {:?}", opt.id, text);
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(text in "([a-z_.\\[\\]=\"'{}, \n#0-9]|\\PC){0,60}") {
        resolve_with(&text, &[], &[]);
    }

    #[test]
    fn no_command_line_makes_it_panic(
        args in prop::collection::vec(prop_oneof![plausible(), "--?[a-z-]{0,12}(=.{0,4})?", "init|check|health|--|-b"], 0..6)
    ) {
        if let Ok(invocation) = cli::parse(["mcp-launch".to_owned()].into_iter().chain(args).map(OsString::from)) {
            let _ = resolve(&invocation.flags, &Environment::new(), &|_| Err(io::ErrorKind::NotFound.into()));
        }
    }

    #[test]
    fn no_environment_makes_it_panic(
        env in prop::collection::vec(("(GRANIAN|GUNICORN|MCP_LAUNCH)_[A-Z0-9_]{0,12}", any::<Vec<u8>>()), 0..6)
    ) {
        let env = env.into_iter().map(|(name, value)| (name.into(), OsString::from_vec(value))).collect();
        let _ = resolve(&FlagLayer::default(), &env, &|_| Err(io::ErrorKind::NotFound.into()));
    }
}
