//! The kinds of files, and the services in them.

use super::{Kind, Service, command, compose};

/// What kind of file it is, by its content; a Procfile by its name as well.
pub(super) fn kind(name: &str, text: &str) -> Option<Kind> {
    let has = |head: &str| text.lines().any(|line| line.trim().starts_with(head));
    let file = name.rsplit('/').next().unwrap_or(name);
    if has("[program:") {
        Some(Kind::Supervisor)
    } else if has("[Service]") {
        Some(Kind::Systemd)
    } else if has("[uwsgi]") {
        Some(Kind::Uwsgi)
    } else if text.lines().any(|line| line.trim_end() == "services:") {
        Some(Kind::Compose)
    } else if file.starts_with("Procfile") || is_procfile(text) {
        Some(Kind::Procfile)
    } else {
        commands(text).iter().any(|line| command::starts_a_server(line)).then_some(Kind::Command)
    }
}

/// Every line is `name: command`, without indentation.
fn is_procfile(text: &str) -> bool {
    let mut lines = content(text).peekable();
    lines.peek().is_some() && lines.all(|line| process(line).is_some())
}

/// Lines that are neither empty nor comments.
fn content(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with(['#', ';']))
}

/// A line of a Procfile.
fn process(line: &str) -> Option<(&str, &str)> {
    let (name, command) = line.split_once(": ")?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, command.trim()))
}

/// The commands of a script: lines, those that end with a backslash joined with the next.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    content(&joined).map(|line| line.trim().to_owned()).collect()
}

/// All services of a file. The error completes a sentence about it.
pub(super) fn services(kind: Kind, text: &str) -> Result<Vec<Service>, String> {
    let named =
        |name: &str, command: &str| Service { name: name.into(), command: Some(command.into()), settings: vec![] };
    match kind {
        Kind::Procfile => Ok(content(text).filter_map(process).map(|(name, line)| named(name, line)).collect()),
        Kind::Command => {
            let lines = commands(text);
            let (servers, others): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|line| command::starts_a_server(line));
            let settings: Vec<_> = others.into_iter().map(|line| (String::new(), line)).collect();
            let service = |(nth, line): (usize, String)| Service {
                name: format!("command-{}", nth + 1),
                command: Some(line),
                settings: settings.clone(),
            };
            Ok(servers.into_iter().enumerate().map(service).collect())
        }
        Kind::Supervisor => sections(text, "[program:", ["command", "command"], Continuation::Indented),
        Kind::Systemd => sections(text, "[Service", ["ExecStart", "ExecStart"], Continuation::Backslash),
        Kind::Compose => compose::services(text),
        Kind::Uwsgi => sections(text, "[uwsgi", ["", ""], Continuation::Backslash),
    }
}

/// How a value goes on in the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuation {
    Indented,
    Backslash,
}

/// The sections with this head, each a service whose command is one of these keys.
fn sections(text: &str, head: &str, commands: [&str; 2], continuation: Continuation) -> Result<Vec<Service>, String> {
    let text = if continuation == Continuation::Backslash { text.replace("\\\n", " ") } else { text.to_owned() };
    let mut found: Vec<Service> = Vec::new();
    let mut is_inside = false;
    for line in content(&text) {
        if let Some(title) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = format!("[{title}").starts_with(head);
            if is_inside {
                let name = title.split_once(':').map_or("", |(_, name)| name).trim().to_owned();
                found.push(Service { name, command: None, settings: Vec::new() });
            }
        } else if let Some(service) = found.last_mut().filter(|_| is_inside) {
            line_of(service, line, continuation)?;
        }
    }
    for service in &mut found {
        let is_command = |(key, _): &&(String, String)| commands.contains(&key.as_str());
        let all: Vec<_> = service.settings.iter().filter(is_command).map(|(_, value)| value.clone()).collect();
        if let (Some(first), true) = (all.first(), all.iter().any(|other| *other != all[0])) {
            return Err(format!("it says two different things for {}: {first} and {}", commands[0], all[1]));
        }
        // `-`, `@` and so on in front of the program are systemd's.
        service.command = all.first().map(|text| text.trim_start_matches(['-', '@', '+', '!', ':']).to_owned());
        service.settings.retain(|(key, _)| !commands.contains(&key.as_str()));
    }
    if !commands[0].is_empty() {
        found.retain(|service| service.command.is_some());
    }
    Ok(found)
}

fn line_of(service: &mut Service, line: &str, continuation: Continuation) -> Result<(), String> {
    if continuation == Continuation::Indented
        && line.starts_with([' ', '\t'])
        && let Some((_, value)) = service.settings.last_mut()
    {
        value.push(' ');
        value.push_str(without_comment(line));
        return Ok(());
    }
    let (key, value) = line.split_once('=').ok_or_else(|| format!("line {:?} has no =", line.trim()))?;
    let value = if continuation == Continuation::Indented { without_comment(value) } else { value.trim() };
    service.settings.push((key.trim().to_owned(), value.to_owned()));
    Ok(())
}

/// supervisord's comments begin with a semicolon behind a space.
fn without_comment(text: &str) -> &str {
    text.split(" ;").next().unwrap_or(text).trim()
}
