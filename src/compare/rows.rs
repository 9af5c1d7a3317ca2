//! Turns measurements into the rows of the table: the figures of each server, and whether they differ. Pure.

use serde::Serialize;

use super::measure::{Measured, Memory, Overload, Reload, Results, Round};
use super::statistics::{FEWEST, Summary, difference};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// For programs: `requests_per_second_64`.
    pub key: String,
    /// For people.
    pub label: String,
    /// What each server has, in the order of the results.
    pub cells: Vec<Cell>,
    /// Whether the servers differ.
    pub verdict: Verdict,
}

/// What one server has in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// A figure of each round.
    Figures {
        /// Their summary.
        #[serde(flatten)]
        summary: Summary,
        /// Their unit.
        unit: Unit,
    },
    /// A text instead of figures.
    Text(String),
    /// It was not measured.
    Missing,
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Per second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// Whether the servers differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// One is better, by this share of the other's figure.
    Better {
        /// Its place in the results.
        which: usize,
        /// 0.2: 20 % more, or less, than the other.
        by: f64,
        /// Whether more is what is better.
        more: bool,
    },
    /// The rounds of one server differ as much as the two servers.
    NoDifference,
    /// There are too few rounds to tell.
    TooFewRounds,
    /// There is nothing to compare.
    NotCompared,
}

/// Whether more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// All rows.
#[must_use]
pub fn rows(all: &[Results]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut levels: Vec<u32> = loads(all).map(|load| load.connections).collect();
    levels.sort_unstable();
    levels.dedup();
    for level in levels {
        let at = |round: &Round| round.loads.iter().find(|load| load.connections == level).cloned();
        let name = match level {
            1 => "1 connection".to_owned(),
            more => format!("{more} connections"),
        };
        let mut add = |key: &str, label: &str, unit, better, value: &dyn Fn(&Measured) -> Option<f64>| {
            let of = each_round(|round| at(round).as_ref().and_then(value));
            rows.push(figures(all, &format!("{key}_{level}"), &format!("{label}, {name}"), unit, Some(better), &of));
        };
        add("requests_per_second", "Requests/s", Unit::PerSecond, Better::More, &|load| Some(load.rate()));
        add("p50", "Latency p50", Unit::Milliseconds, Better::Less, &|load| load.outcome.p50_ms);
        add("p99", "Latency p99", Unit::Milliseconds, Better::Less, &|load| load.outcome.p99_ms);
        add("cpu", "CPU per 1000 requests", Unit::Seconds, Better::Less, &Measured::cpu_for_a_thousand);
        rows.push(failures(all, level, &name));
    }
    let start = each_round(|round| Some(round.start_seconds));
    rows.push(figures(all, "start", "Start to first response", Unit::Seconds, Some(Better::Less), &start));
    for (key, label, of) in [
        ("idle", "idle", (|round| round.idle) as fn(&Round) -> Memory),
        ("loaded", "under load", |round| round.loaded),
        ("after", "after", |round| round.after),
    ] {
        let mut add = |key: &str, what: &str, value: &dyn Fn(&Results) -> Vec<f64>| {
            let label = format!("Memory {label}, {what}");
            rows.push(figures(all, key, &label, Unit::Bytes, Some(Better::Less), value));
        };
        let key = format!("memory_{key}");
        add(&key, "total", &each_round(|round| Some(bytes(of(round).total))));
        add(&format!("{key}_worker"), "per worker", &each_round(|round| Some(bytes(of(round).worker))));
    }
    rows.extend(overload_rows(all));
    rows.extend(reload_rows(all));
    rows
}

/// A figure of each round that has it.
fn each_round(value: impl Fn(&Round) -> Option<f64>) -> impl Fn(&Results) -> Vec<f64> {
    move |results| results.rounds.iter().filter_map(&value).collect()
}

/// A figure of each overload that has it.
fn each_overload(value: impl Fn(&Overload) -> Option<f64>) -> impl Fn(&Results) -> Vec<f64> {
    move |results| results.overloads.iter().filter_map(&value).collect()
}

fn loads(all: &[Results]) -> impl Iterator<Item = &Measured> {
    all.iter().flat_map(|results| &results.rounds).flat_map(|round| &round.loads)
}

#[allow(clippy::cast_precision_loss, reason = "no machine has 2^52 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

fn figures(
    all: &[Results],
    key: &str,
    label: &str,
    unit: Unit,
    better: Option<Better>,
    values: &dyn Fn(&Results) -> Vec<f64>,
) -> Row {
    let samples: Vec<Vec<f64>> = all.iter().map(values).collect();
    let cell =
        |sample: &Vec<f64>| Summary::of(sample).map_or(Cell::Missing, |summary| Cell::Figures { summary, unit });
    let verdict = match samples.as_slice() {
        [first, second] if !first.is_empty() && !second.is_empty() => {
            better.map_or(Verdict::NotCompared, |better| verdict(first, second, better))
        }
        _ => Verdict::NotCompared,
    };
    Row { key: key.into(), label: label.into(), cells: samples.iter().map(cell).collect(), verdict }
}

fn verdict(first: &[f64], second: &[f64], better: Better) -> Verdict {
    if first.len().min(second.len()) < FEWEST {
        return Verdict::TooFewRounds;
    }
    let Some(ratio) = difference(first, second) else { return Verdict::NoDifference };
    let which = usize::from((ratio > 1.0) == (better == Better::More));
    let of_the_other = if which == 1 { ratio } else { 1.0 / ratio };
    Verdict::Better { which, by: (of_the_other - 1.0).abs(), more: better == Better::More }
}

fn text_row(all: &[Results], key: &str, label: String, cell: impl Fn(&Results) -> Option<String>) -> Row {
    let cells = all.iter().map(|results| cell(results).map_or(Cell::Missing, Cell::Text)).collect();
    Row { key: key.into(), label, cells, verdict: Verdict::NotCompared }
}

/// Sums over all rounds, because a single failure among millions of requests matters.
fn failures(all: &[Results], level: u32, name: &str) -> Row {
    text_row(all, &format!("failures_{level}"), format!("Errors / 503s, {name}"), |results| {
        let rounds = results.rounds.iter().flat_map(|round| &round.loads);
        let loads: Vec<&Measured> = rounds.filter(|load| load.connections == level).collect();
        let errors: u64 = loads.iter().map(|load| load.outcome.failed + load.outcome.timed_out).sum();
        let rejected: Option<u64> = loads.iter().map(|load| load.outcome.rejected).sum();
        let rejected = rejected.map_or_else(|| "among them".to_owned(), grouped);
        (!loads.is_empty()).then(|| format!("{} / {rejected}", grouped(errors)))
    })
}

fn overload_rows(all: &[Results]) -> Vec<Row> {
    let Some(first) = all.iter().find_map(|results| results.overloads.first()) else { return Vec::new() };
    let label = |what: &str| format!("At twice the capacity: {what}");
    let rate = |count: u64, overload: &Overload| bytes(count) / overload.outcome.seconds.max(0.001);
    let row = |key: &str, what: &str, unit, better, value: &dyn Fn(&Overload) -> Option<f64>| {
        figures(all, &format!("overload_{key}"), &label(what), unit, better, &each_overload(value))
    };
    let (more, less) = (Some(Better::More), Some(Better::Less));
    let timed_out = format!("timed out ({} s)/s", first.patience_seconds);
    vec![
        text_row(all, "overload_connections", label("connections"), |results| {
            let it = results.overloads.first()?;
            let set = if it.limit_was_set { ", set for this test" } else { "" };
            Some(format!("{} (limit {} per worker{set})", grouped(it.connections.into()), it.limit))
        }),
        row("answered", "answered/s", Unit::PerSecond, more, &|it| Some(rate(it.outcome.answered, it))),
        row("rejected", "503 at once/s", Unit::PerSecond, None, &|it| Some(rate(it.outcome.rejected?, it))),
        row("timed_out", &timed_out, Unit::PerSecond, less, &|it| Some(rate(it.outcome.timed_out, it))),
        row("failed", "other failures/s", Unit::PerSecond, less, &|it| Some(rate(it.outcome.failed, it))),
        row("p99", "latency p99", Unit::Milliseconds, less, &|it| it.outcome.p99_ms),
        row("recovery", "recovered after", Unit::Seconds, less, &|it| Some(it.recovery())),
    ]
}

fn reload_rows(all: &[Results]) -> Vec<Row> {
    if all.iter().all(|results| results.reload.is_none()) {
        return Vec::new();
    }
    let row = |key: &str, label: &str, cell: &dyn Fn(&Reload) -> String| {
        text_row(all, key, format!("Reload under load: {label}"), |results| results.reload.as_ref().map(cell))
    };
    vec![
        row("reload_failed", "failed requests", &|it| {
            let causes: Vec<String> = it.causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
            let causes = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) };
            format!("{} of {}{causes}", grouped(it.failed), grouped(it.requests))
        }),
        row("reload_seconds", "took", &|it| match &it.kept {
            None => shown(it.seconds, Unit::Seconds),
            Some(why) => format!("not reloaded: {why}"),
        }),
    ]
}

/// A count for people: `12,345`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure for people, with three significant digits.
#[must_use]
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond => number(value),
        Unit::Milliseconds if value >= 1000.0 => format!("{} s", number(value / 1e3)),
        Unit::Milliseconds => format!("{} ms", number(value)),
        Unit::Seconds if value < 0.1 => format!("{} ms", number(value * 1e3)),
        Unit::Seconds => format!("{} s", number(value)),
        Unit::Bytes => format!("{} MiB", number(value / f64::from(1 << 20))),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and never negative")]
fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value.round() as u64),
    }
}

impl Cell {
    /// For people: the median, with minimum and maximum where they differ.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Missing => "–".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Figures { summary: Summary { median, least, most, count }, unit } => {
                let median = shown(*median, *unit);
                if *count < 2 {
                    return median;
                }
                // Minimum and maximum in the unit of the median, which is not repeated.
                let (least, most) = (shown(*least, *unit), shown(*most, *unit));
                let unit_of = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
                match unit_of(&median) {
                    Some(unit) if unit_of(&least).as_ref() == Some(&unit) && unit_of(&most) == Some(unit.clone()) => {
                        format!(
                            "{median} ({}–{})",
                            least.trim_end_matches(&unit).trim_end(),
                            most.trim_end_matches(&unit).trim_end()
                        )
                    }
                    _ => format!("{median} ({least}–{most})"),
                }
            }
        }
    }
}

impl Row {
    /// The difference for people.
    #[must_use]
    pub fn difference(&self, all: &[Results]) -> String {
        match self.verdict {
            Verdict::NotCompared => String::new(),
            Verdict::NoDifference => "no difference".to_owned(),
            Verdict::TooFewRounds => "too few rounds".to_owned(),
            Verdict::Better { which, by, more } => {
                let name = all.get(which).map_or("", |results| results.subject.server.title());
                let by = match by * 100.0 {
                    // The other's figure is zero.
                    by if !by.is_finite() => return format!("{name} alone"),
                    by if by < 10.0 => format!("{by:.1}"),
                    by => grouped(rounded(by)),
                };
                format!("{name} {by} % {}", if more { "more" } else { "less" })
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and never negative")]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_that_count() {
        for (value, unit, wanted) in [
            (20_639.4, Unit::PerSecond, "20,639"),
            (7.984, Unit::PerSecond, "7.98"),
            (0.325, Unit::Milliseconds, "0.33 ms"),
            (1500.0, Unit::Milliseconds, "1.50 s"),
            (0.0525, Unit::Seconds, "52.5 ms"),
            (12.0, Unit::Seconds, "12.0 s"),
            (48_758_784.0, Unit::Bytes, "46.5 MiB"),
        ] {
            assert_eq!(shown(value, unit), wanted);
        }
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_cell_has_the_median_and_the_spread() {
        let text = |values: &[f64], unit| Cell::Figures { summary: Summary::of(values).unwrap(), unit }.text();
        assert_eq!(text(&[1.0, 2.0, 4.0], Unit::Milliseconds), "2.00 ms (1.00–4.00)");
        assert_eq!(text(&[1.0, 2.0, 4000.0], Unit::Milliseconds), "2.00 ms (1.00 ms–4.00 s)");
        assert_eq!(text(&[100.0, 200.0], Unit::PerSecond), "150 (100–200)");
        assert_eq!(text(&[5.0], Unit::PerSecond), "5.00");
        assert_eq!(Cell::Missing.text(), "–");
    }

    #[test]
    fn more_requests_are_better_and_more_memory_is_not() {
        let (few, many) = ([100.0, 101.0, 102.0], [200.0, 202.0, 204.0]);
        let better = |first, second, better| match verdict(first, second, better) {
            Verdict::Better { which, by, .. } => Some((which, (by * 100.0).round() / 100.0)),
            _ => None,
        };
        assert_eq!(better(&few, &many, Better::More), Some((1, 1.0)));
        assert_eq!(better(&many, &few, Better::More), Some((0, 1.0)));
        assert_eq!(better(&few, &many, Better::Less), Some((0, 0.5)));
        assert_eq!(better(&few, &few, Better::Less), None);
        assert_eq!(verdict(&few[..2], &many, Better::More), Verdict::TooFewRounds);
    }
}
