//! Reports about settings and plans, for people and for programs.

pub(crate) mod changes;
mod json;
pub(crate) mod redact;
mod style;

use crate::host::Host;
use crate::plan::{Inherited, Plan};
use crate::problem::Problem;
use crate::settings::options::{Entry, Section};
use crate::settings::{Resolution, Shadowed};

use changes::{Change, changes};
pub use json::explain_json;
use style::{Style, words, wrap};

/// The width of the output, in columns.
const WIDTH: usize = 110;

/// Each decision with its reasons, each setting with its source, and what will be run. Secrets are not shown.
#[must_use]
pub fn explain(resolution: &Resolution, host: &Host, plan: Result<&Plan, &[Problem]>, colour: bool) -> String {
    let mut page = Page { text: String::new(), style: Style { colour } };
    match plan {
        Ok(plan) => page.decisions(plan),
        Err(problems) => page.problems(problems),
    }
    let own = plan.map_or(&[][..], |plan| &plan.warnings);
    page.warnings(resolution.warnings.iter().chain(&host.notes).chain(own));
    page.settings(resolution);
    page.native(resolution);
    if let Ok(plan) = plan {
        page.command(plan);
        page.environment(resolution, plan);
    }
    page.text
}

/// A text under construction.
struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.line("");
        }
        let title = self.style.bold(title);
        self.line(&title);
    }

    /// Rows with a name, a value and a remark; long remarks are wrapped.
    fn rows(&mut self, rows: &[(String, String, String)]) {
        let width = |column: fn(&(String, String, String)) -> &String, most: usize| {
            rows.iter().map(|row| column(row).chars().count()).filter(|width| *width <= most).max().unwrap_or(0)
        };
        let (names, values) = (width(|row| &row.0, 32), width(|row| &row.1, 40));
        let indent = names + values + 6;
        for (name, value, remark) in rows {
            let lines = wrap(words(remark), " ", WIDTH.saturating_sub(indent).max(30));
            let mut lines = lines.iter();
            let start = format!("  {name:names$}  {}", self.style.value(&format!("{value:values$}")));
            // If a value is too long for its column, its remark goes below.
            if value.chars().count() <= values {
                let first = lines.next().map_or("", String::as_str);
                self.line(&format!("{start}  {first}"));
            } else {
                self.line(&start);
            }
            for line in lines {
                self.line(&format!("{:indent$}{line}", ""));
            }
        }
    }

    fn decisions(&mut self, plan: &Plan) {
        self.heading("Plan");
        let mut rows = vec![("app".to_owned(), plan.app.clone(), String::new())];
        for reason in &plan.reasons {
            rows.push((reason.topic.to_owned(), redact::text(&reason.decision), redact::text(&reason.because)));
        }
        let tls = if plan.tls { "on" } else { "off" };
        rows.push(("tls".to_owned(), tls.to_owned(), String::new()));
        rows.push(("mode".to_owned(), plan.mode.to_string(), String::new()));
        self.rows(&rows);
    }

    fn problems(&mut self, problems: &[Problem]) {
        let title = if problems.len() == 1 { "Problem" } else { "Problems" };
        self.heading(&format!("{title}: nothing would be started"));
        for problem in problems {
            self.item(&redact::text(&problem.to_string()));
        }
    }

    fn warnings<'a>(&mut self, warnings: impl Iterator<Item = &'a String>) {
        let mut warnings = warnings.peekable();
        if warnings.peek().is_some() {
            self.heading("Warnings");
            warnings.for_each(|warning| self.item(&redact::text(warning)));
        }
    }

    fn item(&mut self, text: &str) {
        for (number, line) in wrap(words(text), " ", WIDTH - 4).iter().enumerate() {
            self.line(&format!("{}{line}", if number == 0 { "  - " } else { "    " }));
        }
    }

    fn settings(&mut self, resolution: &Resolution) {
        let entries = resolution.settings.entries();
        let (chosen, defaults): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.origin.is_explicit());
        self.heading("Settings that were set");
        if chosen.is_empty() {
            self.line("  none");
        }
        let rows: Vec<_> =
            chosen.iter().map(|entry| (entry.opt.path(), redact::text(&entry.value), source(entry))).collect();
        self.rows(&rows);

        self.heading("Defaults");
        let mut sections: Vec<(Section, Vec<String>)> = Vec::new();
        for entry in defaults {
            let pair = format!("{} {}", entry.opt.key, default(entry));
            match sections.iter_mut().find(|(section, _)| *section == entry.opt.section) {
                Some((_, pairs)) => pairs.push(pair),
                None => sections.push((entry.opt.section, vec![pair])),
            }
        }
        for (section, pairs) in sections {
            let name = section.table().unwrap_or("top");
            for (number, line) in wrap(pairs, " · ", WIDTH - 12).iter().enumerate() {
                let name = if number == 0 { name } else { "" };
                let line = self.style.dim(&format!("{name:8}  {line}"));
                self.line(&format!("  {line}"));
            }
        }
    }

    fn native(&mut self, resolution: &Resolution) {
        if !resolution.native.is_empty() {
            self.heading("Variables that the servers read themselves");
            let row = |native: &crate::settings::NativeVariable| {
                let value = redact::variable(&native.name, &native.value);
                (native.name.clone(), value, format!("read by {}", native.server))
            };
            let rows: Vec<_> = resolution.native.iter().map(row).collect();
            self.rows(&rows);
        }
        if !resolution.withheld.is_empty() {
            self.heading("Variables that are withheld from the server");
            let row = |withheld: &crate::settings::Withheld| {
                (withheld.name.clone(), String::new(), withheld.why.to_owned())
            };
            let rows: Vec<_> = resolution.withheld.iter().map(row).collect();
            self.rows(&rows);
        }
    }

    fn command(&mut self, plan: &Plan) {
        self.heading("Command");
        if let Some(cwd) = &plan.cwd {
            self.line(&format!("  in {}", cwd.display()));
        }
        let words = command(plan);
        for (number, line) in words.iter().enumerate() {
            let indent = if number == 0 { "  " } else { "    " };
            let end = if number + 1 == words.len() { "" } else { " \\" };
            self.line(&format!("{indent}{line}{end}"));
        }
        for descriptor in &plan.descriptors {
            let line = format!("descriptor {}: {}", descriptor.number, what(&descriptor.what));
            let line = self.style.dim(&line);
            self.line(&format!("  {line}"));
        }
    }

    fn environment(&mut self, resolution: &Resolution, plan: &Plan) {
        self.heading("Environment, where it differs from this one");
        let changes = changes(&resolution.own_env(), &plan.env);
        if changes.is_empty() {
            self.line("  nowhere");
        }
        for change in changes {
            self.line(&match change {
                Change::Set(name, value) => format!("  + {name}={value}"),
                Change::Removed(name) => format!("  - {name}"),
            });
        }
    }
}

/// Where a value comes from and what it overrides.
fn source(entry: &Entry) -> String {
    let shadows = |shadowed: &Shadowed| format!("shadows {} from {}", redact::text(&shadowed.text), shadowed.origin);
    let shadowed = entry.shadowed.iter().map(shadows);
    [entry.origin.to_string()].into_iter().chain(shadowed).collect::<Vec<_>>().join("; ")
}

/// A default, with the documentation's text if it is computed.
fn default<'a>(entry: &'a Entry) -> &'a str {
    if entry.opt.default_note.is_empty() { &entry.value } else { entry.opt.default_note }
}

fn what(inherited: &Inherited) -> String {
    match inherited {
        Inherited::Listener => "the listening socket".into(),
        Inherited::FurtherListener(index) => format!("the listening socket for further address {}", index + 1),
        Inherited::ProbeListener => "a private listening socket for readiness probes".into(),
        Inherited::Scoreboard => "shared memory in which the workers report their state".into(),
        Inherited::WorkerListener => "the listening socket of one worker".into(),
        Inherited::Stacks => {
            "shared memory in which the workers tell what they are doing, for `mcp-launch stacks`".into()
        }
        Inherited::Wakeup => "a pipe through which a worker wakes the launcher".into(),
        Inherited::Successors => "a pipe that tells the main process which workers have a successor".into(),
        Inherited::BorrowedSockets => "a channel for borrowing copies of the workers' listening sockets".into(),
        Inherited::Pair => "certificate chain and private key, in memory".into(),
        Inherited::Authority => "CA certificates for verifying clients, in memory".into(),
        Inherited::Modules(modules) => {
            let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
            format!("Python modules in memory: {}", names.join(", "))
        }
    }
}

/// The command, quoted for a shell, with a line for each flag and its value.
fn command(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let argv: Vec<String> = plan.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    for (word, shown) in argv.iter().zip(redact::arguments(&argv)) {
        let is_app = *word == plan.target;
        let word = shown;
        let quoted = shlex::try_quote(&word).map_or_else(|_| word.clone(), std::borrow::Cow::into_owned);
        match lines.last_mut() {
            Some(line) if line.starts_with('-') && !line.contains(' ') && !word.starts_with("--") && !is_app => {
                *line = format!("{line} {quoted}");
            }
            _ => lines.push(quoted),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
