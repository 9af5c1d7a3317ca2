//! A command line that starts a server.

use std::path::Path;

use super::facts::Facts;
use super::flags::{self, Use};
use crate::settings::OPTIONS;
use crate::settings::quote::quote;

/// The servers whose command lines are understood.
const SERVERS: [&str; 3] = ["gunicorn", "uvicorn", "granian"];

/// The program's name, without its folder.
fn name_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Whether a command starts one of the servers.
pub(super) fn starts_a_server(command: &str) -> bool {
    words(command).is_ok_and(|words| words.iter().any(|word| SERVERS.contains(&name_of(word))))
}

/// The words of a command; those of `sh -c "…"` are those of its argument. Operators of the shell are words.
fn words(command: &str) -> Result<Vec<String>, String> {
    let joined = command.replace("\\\n", " ");
    let spaced = joined.replace("&&", " && ").replace(';', " ; ");
    let split = |text: &str| shlex::split(text).ok_or_else(|| "a quotation in its command is not closed".to_owned());
    let words = split(&spaced)?;
    let is_shell = words.first().is_some_and(|word| ["sh", "bash", "dash"].contains(&name_of(word)));
    match words.iter().position(|word| word.starts_with('-') && word.ends_with('c')) {
        Some(at) if is_shell && words.len() > at + 1 => self::words(&words[at + 1]),
        _ => Ok(words),
    }
}

/// Reads it. The error completes a sentence about the file.
pub(super) fn read(command: &str, facts: &mut Facts) -> Result<(), String> {
    let words = words(command)?;
    let at = words.iter().position(|word| SERVERS.contains(&name_of(word)));
    let at = at.ok_or("its command starts neither gunicorn nor uvicorn nor granian")?;
    before(&words[..at], facts)?;
    let (server, path) = (name_of(&words[at]), Path::new(&words[at]));
    if let Some(folder) = path.parent().filter(|folder| folder.ends_with("bin")).and_then(Path::parent) {
        environment_of_program(folder, facts);
    }
    let end = words[at..].iter().position(|word| ["&&", ";", "|", "||", "&"].contains(&word.as_str()));
    let (own, rest) = words[at..].split_at(end.unwrap_or(words.len() - at));
    if !rest.is_empty() {
        facts.leave(&rest.join(" "), "only one server is run; what comes behind it is not");
    }
    let (table, known) = match server {
        "granian" => (flags::GRANIAN, "granian"),
        "uvicorn" => (flags::UVICORN, "gunicorn"),
        _ => (flags::GUNICORN, "gunicorn"),
    };
    facts.take("http_server", known, server);
    arguments(&own[1..], table, server, facts);
    defaults(facts);
    if server == "uvicorn" {
        facts.leave("uvicorn", "Gunicorn runs it here, as its worker class: pip install gunicorn uvicorn-worker");
    }
    if !facts.has("app_module") && !facts.has("gunicorn_config") {
        return Err("its command names no application, as MODULE:ATTRIBUTE".to_owned());
    }
    Ok(())
}

/// A virtual environment's folder, if the program was in one.
fn environment_of_program(folder: &Path, facts: &mut Facts) {
    let system = ["/", "/usr", "/usr/local", ""].map(Path::new);
    if !system.contains(&folder) {
        facts.take("virtual_env", &folder.to_string_lossy(), "the program's folder");
    }
}

/// What the server does when nothing is said, where mcp-launch does something else.
fn defaults(facts: &mut Facts) {
    let has = |ids: &[&str]| ids.iter().any(|id| facts.has(id));
    // A file of Gunicorn's may say it.
    if has(&["gunicorn_config"]) {
        return;
    }
    let (has_address, has_count) =
        (has(&["host", "port", "uds"]), has(&["gunicorn_workers", "granian_workers", "web_concurrency"]));
    if !has_address && !facts.left.iter().any(|left| left.what.starts_with("fd://")) {
        facts.take("host", "127.0.0.1", "the server's default");
        facts.take("port", "8000", "the server's default");
    }
    if !has_count {
        facts.leave(
            "one worker",
            "none was asked for; mcp-launch starts as many as there are cores, so set workers for one",
        );
    }
}

/// The words in front of the server: variables, wrappers, and a command that is run first.
fn before(words: &[String], facts: &mut Facts) -> Result<(), String> {
    let mut first: Vec<&str> = Vec::new();
    let mut wrapper: Vec<&str> = Vec::new();
    for word in words.iter().map(String::as_str) {
        match word {
            "&&" | ";" => {
                if !first.is_empty() {
                    first.push("&&");
                }
                first.append(&mut wrapper);
            }
            "|" | "||" | "&" => {
                return Err(format!("its command has {}, which only a shell understands", quote(word)));
            }
            "exec" => {}
            _ => match word.split_once('=') {
                Some((name, value)) if wrapper.is_empty() && is_variable(name) => variable(name, value, facts),
                _ => wrapper.push(word),
            },
        }
    }
    if !first.is_empty() {
        // `cd` is the working directory.
        match first.as_slice() {
            ["cd", folder] => facts.take("app_root", folder, "cd"),
            ["cd", folder, "&&", rest @ ..] => {
                facts.take("app_root", folder, "cd");
                facts.take("pre_start", &rest.join(" "), "the command in front");
            }
            all => facts.take("pre_start", &all.join(" "), "the command in front"),
        }
    }
    let plain = ["env", "python", "python3", "-m", "uv", "poetry", "pipenv", "run", "-u"];
    if wrapper.iter().any(|word| !plain.contains(&name_of(word))) {
        facts.leave(
            &wrapper.join(" "),
            "a wrapper in front of the server; put it in front of mcp-launch if it is needed",
        );
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// A variable of the environment: an option's, or the app's own. Values of the latter may be secret and are not shown.
pub(super) fn variable(name: &str, value: &str, facts: &mut Facts) {
    match OPTIONS.iter().find(|opt| opt.env.contains(&name) && !opt.secret) {
        Some(opt) => facts.take(opt.id, value, name),
        None => facts.leave(
            &format!("the variable {name}"),
            "it stays in the environment: keep it there, or put it into a file of MCP_LAUNCH_ENV_FILE",
        ),
    }
}

/// The server's own arguments.
fn arguments(words: &[String], table: &[(&[&str], Use)], server: &str, facts: &mut Facts) {
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            facts.take("app_module", word, "the application");
            continue;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ if !word.starts_with("--") && word.len() > 2 && word.is_char_boundary(2) => {
                (&word[..2], Some(&word[2..]))
            }
            _ => (word, None),
        };
        let row = table.iter().find(|(names, _)| names.contains(&name)).map(|(_, what)| *what);
        let Some(what) =
            row.or_else(|| (server != "uvicorn" && flags::SWITCHES.contains(&word)).then_some(Use::Pass))
        else {
            keep(word, &mut words, facts, server);
            continue;
        };
        let value = if flags::has_value(what) { attached.or_else(|| words.next()) } else { None };
        flags::apply(what, name, value, facts);
    }
}

/// A flag that is no option here goes to the server as it is, with its value if it seems to have one. uvicorn's are
/// nothing to Gunicorn.
fn keep<'a>(
    word: &str,
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    facts: &mut Facts,
    server: &str,
) {
    let is_value = |next: &&str| !next.starts_with('-') && !next.contains(':');
    let value = if word.contains('=') { None } else { words.next_if(is_value) };
    let all = std::iter::once(word).chain(value).map(str::to_owned);
    if server == "uvicorn" {
        facts.leave(&all.collect::<Vec<_>>().join(" "), "Gunicorn's worker class has no such setting");
    } else {
        facts.server_args.extend(all);
    }
}
