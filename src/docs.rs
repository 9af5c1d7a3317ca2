//! Documentation that is generated from the option table: the reference in `config/README.md`, the example file, the man
//! page and the completions. A test fails when one of the files is stale.

use std::fmt::Write;
use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::cli;
use crate::problem::Exit;
use crate::settings::options::{Heading, OPTIONS, Opt, Section};

/// Every option in Markdown, one table per heading.
#[must_use]
pub fn settings_reference() -> String {
    let mut text = String::new();
    for heading in Heading::ALL {
        let rows: Vec<_> = OPTIONS.iter().filter(|opt| opt.heading == heading).map(row).collect();
        let head = "| environment | flag | file key | default | meaning |\n|---|---|---|---|---|";
        let _ = write!(text, "### {}\n\n{head}\n{}\n\n", heading.title(), rows.join("\n"));
    }
    text
}

fn row(opt: &Opt) -> String {
    let variables = opt.env.iter().map(|name| code(name)).collect::<Vec<_>>().join(", else ");
    let mut flags = Vec::from_iter(opt.short.map(|short| code(&format!("-{short}"))));
    flags.extend(opt.flag.map(|flag| code(&format!("--{flag}"))));
    flags.extend(opt.specific_flag().filter(|_| opt.shares_flag()).map(|flag| code(&format!("--{flag}"))));
    let default = if opt.default_note.is_empty() { code(opt.default_text()) } else { cell(opt.default_note) };
    let choices = (opt.choices)();
    let words = if choices.is_empty() || opt.is_switch() {
        String::new()
    } else {
        format!(" ({})", choices.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "))
    };
    let since = match (opt.section.server(), opt.since) {
        (Some(server), since) if !since.is_empty() => format!(" Since {server} {since}."),
        _ => String::new(),
    };
    let meaning = format!("{}{words}{since}", cell(opt.help));
    format!("| {variables} | {} | {} | {default} | {meaning} |", flags.join(", "), code(&opt.path()))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('~', "\\~")
}

/// The first lines of the example file.
const EXAMPLE_HEAD: &str = "\
# All settings of mcp-launch with their defaults. Remove the # in front of a key to set it.
#
# mcp-launch reads the file named by --config, else MCP_LAUNCH_CONFIG, else ./mcp-launch.toml, else
# /etc/mcp-launch.toml.
# The environment takes precedence over the file, and the command line over both.
";

/// A configuration file with every key commented out, its meaning, the values that are allowed and its default.
#[must_use]
pub fn example_toml() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    for section in Section::ALL {
        if let Some(table) = section.table() {
            let _ = write!(text, "\n[{table}]\n");
        }
        for opt in OPTIONS.iter().filter(|opt| opt.section == section) {
            let _ = write!(text, "\n# {}\n", opt.help);
            let _ = writeln!(text, "# Allowed: {}.{}", (opt.expected)(), note(opt));
            let _ = writeln!(text, "#{} = {}", opt.key, literal(opt));
        }
    }
    text
}

/// What the default value alone does not say.
fn note(opt: &Opt) -> String {
    let note = opt.default_note;
    if note.is_empty() { String::new() } else { format!(" Default: {note}.") }
}

/// The default as TOML: a number, a boolean, or else a string.
fn literal(opt: &Opt) -> String {
    let text = if opt.default.is_empty() { "none" } else { opt.default };
    match text.parse::<u32>() {
        Ok(number) => number.to_string(),
        Err(_) if opt.is_switch() && text != "auto" => (opt.canonical)(text).unwrap_or_default(),
        Err(_) => format!("{text:?}"),
    }
}

/// The man page, in roff.
///
/// # Errors
/// Writing to a vector does not fail.
pub fn man_page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(cli::command());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut more = Roff::new();
    more.control("SH", ["COMMANDS"]);
    let mut command = cli::command();
    command.build();
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let usage = command.render_usage().to_string();
        entry(&mut more, usage.trim_start_matches("Usage: "), &command_text(command));
    }
    more.control("SH", ["ENVIRONMENT"]);
    more.text([roman("An empty variable counts as unset. Of several names, the first one that is set is used.")]);
    entry(&mut more, "MCP_LAUNCH_CONFIG", "The configuration file, unless --config names one.");
    for opt in OPTIONS {
        let text = format!("{} Allowed: {}. Default: {}.", opt.help, (opt.expected)(), opt.default_text());
        entry(&mut more, &opt.env.join(", "), &text);
    }
    more.control("SH", ["FILES"]);
    entry(&mut more, "./mcp-launch.toml, /etc/mcp-launch.toml", "The configuration file; the first one that exists.");
    more.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUSES {
        entry(&mut more, status, meaning);
    }
    for (exit, meaning) in EXITS {
        entry(&mut more, &exit.code().to_string(), meaning);
    }
    more.to_writer(&mut page)?;
    Ok(page)
}

/// What a command does, and its own flags. Flags under a heading are options and are listed elsewhere.
fn command_text(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let own = command.get_arguments().filter(|arg| arg.get_help_heading().is_none() && arg.get_id() != "help");
    let flags = own.filter_map(|arg| Some(format!(" --{}: {}.", arg.get_long()?, arg.get_help()?)));
    format!("{about}.{}", flags.collect::<String>())
}

/// Statuses that come from the server or the kernel.
const EXIT_STATUSES: [(&str, &str); 3] = [
    ("0", "The server stopped as requested, or the answer is yes."),
    ("143", "The server was asked to stop but had to be killed."),
    ("N", "The server's own status; 128 plus the signal number if a signal ended it."),
];

/// Statuses of mcp-launch itself.
const EXITS: [(Exit, &str); 8] = [
    (Exit::No, "health, status, reload: no; compare: a server could not be measured."),
    (Exit::Usage, "The command line could not be understood."),
    (Exit::NoLauncher, "health, status, top, reload: no launcher was found."),
    (Exit::NotReady, "The server was not ready in time."),
    (Exit::Taken, "Another instance holds the lock."),
    (Exit::Settings, "The settings are invalid."),
    (Exit::NotExecutable, "The server cannot be executed."),
    (Exit::NotFound, "The server was not found."),
];

fn entry(to: &mut Roff, term: &str, text: &str) {
    to.control("TP", None::<&str>);
    let lines: [Vec<Inline>; 2] = [vec![bold(term)], vec![roman(text)]];
    for line in lines {
        to.text(line);
    }
}

/// The completion script for a shell.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "mcp-launch", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_man_page_names_every_variable_and_exit_status() {
        let page = String::from_utf8(man_page().unwrap()).unwrap();
        for heading in [".SH COMMANDS", ".SH ENVIRONMENT", ".SH \"EXIT STATUS\"", ".SH OPTIONS"] {
            assert!(page.contains(heading), "{heading}");
        }
        for name in OPTIONS.iter().flat_map(|opt| opt.env) {
            assert!(page.contains(name), "{name}");
        }
        assert!(page.contains("78"));
    }

    #[test]
    fn completions_offer_flags_and_words() {
        let script = String::from_utf8(completions(Shell::Bash)).unwrap();
        for part in ["--granian-workers", "--http1-buffer-size", "gunicorn granian auto", "explain"] {
            assert!(script.contains(part), "{part}");
        }
    }
}
