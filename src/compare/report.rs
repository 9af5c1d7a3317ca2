//! The complete report, for people and for programs. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use super::advice::{Advice, advice};
pub use super::machine::Machine;
use super::measure::Results;
use super::options::{Format, LoadRequest, Options};
use super::rows::{Row, rows};

/// Everything in the report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The application.
    pub app: String,
    /// What was asked for.
    pub request: LoadRequest,
    /// The machine.
    pub machine: Machine,
    /// Which version of mcp-launch.
    pub mcp_launch: &'static str,
    /// The load generator.
    pub load_generator: String,
    /// How often each was started and measured.
    pub rounds: u32,
    /// How long each measurement was.
    pub duration_seconds: f64,
    /// The measurements.
    pub servers: Vec<Results>,
    /// The rows of the table.
    pub table: Vec<TableLine>,
    /// The advice.
    pub recommendations: Vec<Advice>,
    /// Notes on how it was measured.
    pub notes: Vec<String>,
}

/// A row, and how it is shown.
#[derive(Debug, Serialize)]
pub struct TableLine {
    /// What it is about, and the figures.
    #[serde(flatten)]
    pub row: Row,
    /// One text for each server, and one for the difference.
    pub shown: Vec<String>,
}

impl Report {
    /// Puts it together.
    #[must_use]
    pub fn new(
        app: String,
        options: &Options,
        machine: Machine,
        load_generator: String,
        servers: Vec<Results>,
        mut notes: Vec<String>,
    ) -> Self {
        let rows = rows(&servers);
        let recommendations = advice(&servers, &rows);
        for results in &servers {
            if let Some(failure) = &results.failure {
                notes.push(format!(
                    "the measurement of {} was not completed: {}",
                    results.subject.title(),
                    failure.why
                ));
            }
        }
        notes.extend(servers.iter().flat_map(too_short));
        let line = |row: Row| {
            let mut shown: Vec<String> = row.cells.iter().map(super::rows::Cell::text).collect();
            shown.push(row.difference(&servers));
            TableLine { row, shown }
        };
        let table = rows.into_iter().map(line).collect();
        Self {
            app,
            request: options.request.clone(),
            machine,
            mcp_launch: env!("CARGO_PKG_VERSION"),
            load_generator,
            rounds: options.rounds,
            duration_seconds: options.duration.as_secs_f64(),
            servers,
            table,
            recommendations,
            notes,
        }
    }

    /// In the requested format.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        match format {
            Format::Text => self.plain(),
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
            Format::Markdown => self.markdown(),
        }
    }

    fn headings(&self) -> Vec<String> {
        let titles = self.servers.iter().map(|results| results.subject.title());
        ["Metric".to_owned()].into_iter().chain(titles).chain(["Difference".to_owned()]).collect()
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |line: &TableLine| [vec![line.row.label.clone()], line.shown.clone()].concat();
        self.table.iter().map(line).collect()
    }

    /// For each use: the use, the server to choose, and why.
    pub(super) fn advice_lines(&self) -> Vec<Vec<String>> {
        let line = |it: &Advice| vec![it.scenario.to_owned(), it.choice.to_owned(), it.because.clone()];
        self.recommendations.iter().map(line).collect()
    }

    /// What was measured and how, in a few sentences.
    pub(super) fn preface(&self) -> Vec<String> {
        let how = format!(
            "{} with {} on {}: {} of {} s for each number of connections, alternating between the servers; median (minimum–maximum).",
            self.request,
            self.load_generator,
            self.machine,
            if self.rounds == 1 { "one round".to_owned() } else { format!("{} rounds", self.rounds) },
            self.duration_seconds
        );
        let servers = self.servers.iter().map(|results| {
            let subject = &results.subject;
            let class = subject.worker_class.as_ref().map_or_else(String::new, |class| format!(" of {class}"));
            let plural = if subject.workers == 1 { "" } else { "s" };
            format!("{}: {} worker{plural}{class}.", subject.title(), subject.workers)
        });
        [how].into_iter().chain(servers).collect()
    }

    fn plain(&self) -> String {
        let mut text = format!("{}\n", self.app);
        for line in self.preface() {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
        text += &aligned(&self.headings(), &self.lines());
        text += "\nRecommendation by use\n";
        for line in self.advice_lines() {
            let _ = writeln!(text, "  {}: {}\n    {}", line[0], line[1], line[2]);
        }
        for (number, note) in self.notes.iter().enumerate() {
            let _ = writeln!(text, "{}  - {note}", if number == 0 { "\nNotes\n" } else { "" });
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("### `{}`\n\n{}\n\n", self.app, self.preface().join(" "));
        text += &piped(&self.headings(), &self.lines());
        let headings = ["Scenario", "Recommendation", "Because"].map(str::to_owned);
        text += "\n";
        text += &piped(&headings, &self.advice_lines());
        for (number, note) in self.notes.iter().enumerate() {
            let _ = writeln!(text, "{}- {note}", if number == 0 { "\n" } else { "" });
        }
        text
    }
}

/// With fewer responses than connections, some clients never got one.
fn too_short(results: &Results) -> Vec<String> {
    let loads = || results.rounds.iter().flat_map(|round| &round.loads);
    let levels: BTreeSet<u32> =
        loads().filter(|it| it.outcome.answered < u64::from(it.connections)).map(|it| it.connections).collect();
    let note = |level| {
        format!(
            "{}, {level} connections: fewer responses than connections; a longer --duration gives more meaningful figures",
            results.subject.title()
        )
    };
    levels.into_iter().map(note).collect()
}

/// Columns of the same width.
fn aligned(headings: &[String], lines: &[Vec<String>]) -> String {
    let all = || [headings].into_iter().chain(lines.iter().map(Vec::as_slice));
    let width = |column: usize| all().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    for line in all() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// A table in Markdown.
fn piped(headings: &[String], lines: &[Vec<String>]) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = vec!["---".to_owned(); headings.len()];
    let lines = lines.iter().map(|line| row(line)).collect::<String>();
    format!("{}{}{lines}", row(headings), row(&rule).replace(' ', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_pipes_do_not_break_a_table() {
        let headings = ["Metric".to_owned(), "A".to_owned()];
        let lines = [vec!["x".to_owned(), "1 ms – 2".to_owned()], vec!["long name".to_owned(), "a|b".to_owned()]];
        assert_eq!(aligned(&headings, &lines), "Metric     A\nx          1 ms – 2\nlong name  a|b\n");
        let wanted = "| Metric | A |\n|---|---|\n| x | 1 ms – 2 |\n| long name | a\\|b |\n";
        assert_eq!(piped(&headings, &lines), wanted);
    }
}
