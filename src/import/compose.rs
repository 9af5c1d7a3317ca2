//! The services of a docker-compose file.

use super::Service;
use super::command::variable;
use super::facts::Facts;
use super::yaml::{self, Yaml};

/// Those that say what they start. The error completes a sentence about the file.
pub(super) fn services(text: &str) -> Result<Vec<Service>, String> {
    let file = yaml::read(text)?;
    let named = file.get("services").map(Yaml::entries).unwrap_or_default();
    Ok(named.iter().map(|(name, service)| read(name, service)).filter(|service| service.command.is_some()).collect())
}

fn read(name: &str, service: &Yaml) -> Service {
    let parts = ["entrypoint", "command"].into_iter().filter_map(|key| service.get(key).and_then(command));
    let words: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    let others = service.entries().iter().filter(|(key, _)| !["entrypoint", "command"].contains(&key.as_str()));
    let settings = others.flat_map(|(key, value)| setting(key, value)).collect();
    Service { name: name.to_owned(), command: (!words.is_empty()).then(|| words.join(" ")), settings }
}

/// As one line for a shell; `$$` is a dollar that docker-compose leaves alone.
fn command(value: &Yaml) -> Option<String> {
    let text = match value {
        Yaml::Scalar(text) => text.clone(),
        Yaml::List(items) => shlex::try_join(items.iter().filter_map(Yaml::text)).ok()?,
        Yaml::Map(_) => return None,
    };
    Some(text.replace("$$", "$").replace('\n', " ").trim().to_owned())
}

/// A key as pairs of names and values: a variable each, files in one; of a larger value only the name.
fn setting(key: &str, value: &Yaml) -> Vec<(String, String)> {
    let pair = |value: String| (key.to_owned(), value);
    match (key, value) {
        ("environment", Yaml::Map(entries)) => {
            let each = |(name, value): &(String, Yaml)| Some(pair(format!("{name}={}", value.text()?)));
            entries.iter().filter_map(each).collect()
        }
        ("environment", Yaml::List(items)) => {
            items.iter().filter_map(|item| Some(pair(item.text()?.into()))).collect()
        }
        ("env_file", Yaml::List(items)) => {
            let path = |item: &Yaml| item.text().or_else(|| item.get("path")?.text()).map(str::to_owned);
            vec![pair(items.iter().filter_map(path).collect::<Vec<_>>().join(","))]
        }
        (_, value) => vec![pair(value.text().unwrap_or_default().to_owned())],
    }
}

/// What docker-compose does with the service.
pub(super) fn around(key: &str, value: &str, facts: &mut Facts) {
    match key {
        "working_dir" => facts.take("app_root", value, key),
        // A name alone is passed through.
        "environment" => {
            if let Some((name, value)) = value.split_once('=') {
                variable(name, &value.replace("$$", "$"), facts);
            }
        }
        "env_file" => facts.take("env_file", value, key),
        "restart" => restart(value, facts),
        "stop_grace_period" => facts.take("stop_timeout", value, key),
        "init" => facts.leave(key, "mcp-launch is an init itself"),
        "healthcheck" => facts.leave(key, "its test becomes [\"CMD\", \"mcp-launch\", \"health\"]"),
        _ => facts.leave(key, "it stays in the docker-compose file; only the command becomes mcp-launch"),
    }
}

/// The engine restarts a container, mcp-launch the server in it.
fn restart(value: &str, facts: &mut Facts) {
    let (policy, limit) = value.split_once(':').map_or((value, None), |(policy, limit)| (policy, Some(limit)));
    let taken = match policy {
        "always" | "unless-stopped" => "always",
        "no" | "on-failure" => policy,
        _ => return facts.leave(&format!("restart {value}"), "it is none of docker-compose's words"),
    };
    facts.take("restart", taken, "restart");
    if let Some(limit) = limit {
        facts.take("restart_limit", limit, "restart");
    }
}
