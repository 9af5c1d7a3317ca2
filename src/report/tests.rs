use super::*;
use crate::host::{Environment, Interpreter, Program};
use crate::plan::plan;
use crate::settings::value::REDACTED;
use crate::settings::{FlagLayer, resolve};

const ENV: &[(&str, &str)] = &[
    ("GUNICORN_WORKERS", "3"),
    ("MAX_WORKERS", "8"),
    ("MCP_LAUNCH_MAX_WORKERS", "4"),
    ("KEY_FILE_PASSWORD", "hunter1"),
    ("CERT_PASSPHRASE", "hunter2"),
    ("GUNICORN_CMD_ARGS", "--env API_TOKEN=hunter3"),
    ("MCP_LAUNCH_PRE_START", "migrate postgres://u:hunter4@db/x"),
    ("JWT_SECRET_KEY", "hunter5"),
    ("WEB_CONCURRENCY", "auto"),
];

fn host() -> Host {
    let mut host = Host::default();
    host.python.interpreter = Some(Interpreter {
        path: "/venv/bin/python".into(),
        version: Some((3, 11)),
        is_free_threaded: false,
        venv: None,
        site_packages: Vec::new(),
        found_by: "PATH".into(),
    });
    host.python.gunicorn = Program::Found("/venv/bin/gunicorn".into());
    host
}

fn resolution(env: &[(&str, &str)]) -> Resolution {
    let env: Environment = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    resolve(&FlagLayer::default(), &env, &|_| Err(std::io::ErrorKind::NotFound.into()))
}

fn both(env: &[(&str, &str)], host: &Host) -> (String, String) {
    let resolution = resolution(env);
    let plan = plan(&resolution, host, &crate::tls::Findings::default());
    let plan = plan.as_ref().map_err(Vec::as_slice);
    (explain(&resolution, host, plan, false), explain_json(&resolution, host, plan))
}

#[test]
fn no_secret_is_shown() {
    let (text, json) = both(ENV, &host());
    for shown in [&text, &json] {
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains(REDACTED));
    }
}

#[test]
fn decisions_come_first_then_what_was_chosen_then_defaults_and_the_command() {
    let (text, _) = both(ENV, &host());
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} in\n{text}"));
    let order = ["Plan", "workers", "Settings that were set", "Defaults", "Command", "Environment"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{text}");
    assert!(text.contains("set by environment GUNICORN_WORKERS"), "{text}");
    let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unwrapped.contains("shadows 8 from environment MAX_WORKERS"), "{text}");
    assert!(text.contains("- WEB_CONCURRENCY") && !text.contains("JWT_SECRET_KEY"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 20), "{text}");
}

#[test]
fn problems_take_the_place_of_the_plan() {
    let (text, json) = both(&[("RUST_MCP_MODE", "full")], &Host::default());
    assert!(text.starts_with("Problems: nothing would be started"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["plan"].is_null());
    assert_eq!(json["problems"].as_array().unwrap().len(), 2);
    assert_eq!(json["problems"][0]["exit"], 127);
}

#[test]
fn programs_find_the_same_facts_under_stable_keys() {
    let (_, json) = both(ENV, &host());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["plan"]["workers"], 3);
    assert_eq!(json["plan"]["server"], "gunicorn");
    assert_eq!(json["settings"]["gunicorn.workers"]["value"], "3");
    assert_eq!(json["settings"]["gunicorn.workers"]["origin"]["name"], "GUNICORN_WORKERS");
    assert_eq!(json["settings"]["launcher.max_workers"]["shadows"][0]["value"], "8");
    assert_eq!(json["settings"]["port"]["origin"]["source"], "default");
    assert_eq!(json["plan"]["environment"]["removed"][0], "CERT_PASSPHRASE");
}

#[test]
fn colour_is_used_only_if_wanted() {
    let resolution = resolution(&[]);
    let plan = plan(&resolution, &host(), &crate::tls::Findings::default());
    let plan = plan.as_ref().map_err(Vec::as_slice);
    assert!(!explain(&resolution, &host(), plan, false).contains('\u{1b}'));
    assert!(explain(&resolution, &host(), plan, true).contains('\u{1b}'));
}
