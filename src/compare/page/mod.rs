//! The report as a page with plots: one file, without a script, that can be read on a screen and on paper. Pure.

mod plot;
mod scale;

use std::fmt::Write;

use self::plot::{Across, Plot, Series, Style};
use super::measure::{Measured, Overload, Results, Round};
use super::report::{Report, TableLine};
use super::rows::{Cell, Unit, grouped, shown};
use super::statistics::Summary;

/// Also used by `scripts/bench --html`.
const STYLE: &str = include_str!("report.css");

/// The colour of each server.
const CLASSES: [&str; 2] = ["first", "second"];

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = format!("Gunicorn and Granian: {}", escape(&report.app));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}\
         <h2>Recommendation by use</h2>\n{}<h2>Under load</h2>\n<div class=\"plots\">\n{}</div>\n\
         <h2>At twice the capacity</h2>\n{}<h2>All figures</h2>\n{}{}</body>\n</html>\n",
        each(report.preface(), |line| format!("<p class=\"soft\">{}</p>\n", escape(&line))),
        recommendations(report),
        plots(&report.servers),
        overloads(&report.servers),
        figures(report),
        notes(report),
    )
}

/// What is made of each item, one after the other.
fn each<T>(items: impl IntoIterator<Item = T>, make: impl Fn(T) -> String) -> String {
    items.into_iter().map(make).collect()
}

/// A text as the content of an element or the value of an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn recommendations(report: &Report) -> String {
    let row = |line: Vec<String>| {
        let [scenario, choice, because] = [0, 1, 2].map(|at| escape(&line[at]));
        format!(
            "<tr><th>{scenario}</th><td class=\"text\"><strong>{choice}</strong></td><td class=\"text\">{because}</td></tr>\n"
        )
    };
    let rows = each(report.advice_lines(), row);
    let head = "<thead><tr><th>Use</th><th class=\"text\">Choose</th><th class=\"text\">Because</th></tr></thead>";
    format!("<div class=\"card scroll\"><table>{head}<tbody>\n{rows}</tbody></table></div>\n")
}

fn plots(all: &[Results]) -> String {
    let mut levels: Vec<u32> = all.iter().flat_map(measurements).map(|load| load.connections).collect();
    levels.sort_unstable();
    levels.dedup();
    let of = |value: fn(&Measured) -> Option<f64>| over_load(all, &levels, value);
    let one = |title, unit, value| {
        let lines = of(value).into_iter();
        let series = lines.map(|(server, points)| line(all, server, "", Style::Solid, points)).collect();
        Plot { title, unit, across: connections(&levels), series }.figure()
    };
    let medians = of(|load| load.outcome.p50_ms).into_iter();
    let tails = of(|load| load.outcome.p99_ms).into_iter();
    let latency = medians
        .map(|(server, points)| line(all, server, " p50", Style::Dashed, points))
        .chain(tails.map(|(server, points)| line(all, server, " p99", Style::Solid, points)));
    let latency =
        Plot { title: "Latency", unit: Unit::Milliseconds, across: connections(&levels), series: latency.collect() };
    [
        one("Requests per second", Unit::PerSecond, |load| Some(load.rate())),
        latency.figure(),
        one("CPU time per 1000 requests", Unit::Seconds, Measured::cpu_for_a_thousand),
        memory(all).figure(),
    ]
    .concat()
}

fn connections(levels: &[u32]) -> Across {
    Across::Steps("connections", levels.iter().map(|level| grouped((*level).into())).collect())
}

fn measurements(results: &Results) -> impl Iterator<Item = &Measured> {
    results.rounds.iter().flat_map(|round| &round.loads)
}

/// For each server, by its place, the summary of all rounds at each number of connections.
fn over_load(
    all: &[Results],
    levels: &[u32],
    value: fn(&Measured) -> Option<f64>,
) -> Vec<(usize, Vec<(f64, Summary)>)> {
    let at = |results: &Results, level| {
        let same = measurements(results).filter(|load| load.connections == level);
        Summary::of(&same.filter_map(value).collect::<Vec<_>>())
    };
    let points = |results| {
        let found = (0_u32..).zip(levels).filter_map(|(x, level)| Some((f64::from(x), at(results, *level)?)));
        found.collect()
    };
    all.iter().map(points).enumerate().collect()
}

fn line(all: &[Results], server: usize, what: &str, style: Style, points: Vec<(f64, Summary)>) -> Series {
    Series { name: format!("{}{what}", all[server].subject.server.title()), server, style, points }
}

/// The memory of each round of each server.
#[allow(clippy::cast_precision_loss, reason = "no machine has 2^52 bytes")]
fn memory(all: &[Results]) -> Plot<'static> {
    let points = |round: &Round| {
        let samples = round.memory_over_time.iter();
        samples.filter_map(|sample| Some((sample.seconds, Summary::of(&[sample.total as f64])?))).collect()
    };
    let lines = all.iter().enumerate().flat_map(|(server, results)| {
        results.rounds.iter().enumerate().map(move |(number, round)| Series {
            name: if number == 0 { results.subject.server.title().to_owned() } else { String::new() },
            server,
            style: Style::Many,
            points: points(round),
        })
    });
    Plot {
        title: "Memory of each round",
        unit: Unit::Bytes,
        across: Across::Seconds("seconds since the start"),
        series: lines.collect(),
    }
}

/// How the requests of too many clients ended: class, words, and their number.
type Ending = (&'static str, &'static str, fn(&Overload) -> u64);

const ENDINGS: [Ending; 4] = [
    ("answered", "answered/s", |overload| overload.outcome.answered),
    ("rejected", "refused with 503 at once/s", |overload| overload.outcome.rejected.unwrap_or(0)),
    ("timed-out", "timed out/s", |overload| overload.outcome.timed_out),
    ("failed", "failed otherwise/s", |overload| overload.outcome.failed),
];

fn overloads(all: &[Results]) -> String {
    format!("<div class=\"plots\">\n{}</div>\n", each(all, overload))
}

/// What became of the requests to a server, per second, in the median of its rounds.
fn overload(results: &Results) -> String {
    let Some(first) = results.overloads.first() else { return String::new() };
    let median = |value: &dyn Fn(&Overload) -> Option<f64>| {
        let values: Vec<f64> = results.overloads.iter().filter_map(value).collect();
        Summary::of(&values).map(|summary| summary.median)
    };
    #[allow(clippy::cast_precision_loss, reason = "no count of requests comes near to 2^52")]
    let rates = ENDINGS.map(|(class, words, count)| {
        let rate = median(&|overload| Some(count(overload) as f64 / overload.outcome.seconds.max(0.001)));
        (class, words, rate.unwrap_or(0.0))
    });
    let all: f64 = rates.iter().map(|(.., rate)| rate).sum();
    let (mut bar, mut list, mut from) = (String::new(), String::new(), 0.0);
    for (class, words, rate) in rates {
        let width = rate / all.max(f64::MIN_POSITIVE) * 100.0;
        let _ = write!(bar, "<rect class=\"{class}\" x=\"{from:.3}\" width=\"{width:.3}\" height=\"10\"/>");
        let _ = write!(list, "<li class=\"{class}\"><span>{} {words}</span></li>", shown(rate, Unit::PerSecond));
        from += width;
    }
    let title = escape(&results.subject.title());
    let p99 =
        median(&|overload| overload.outcome.p99_ms).map_or("–".to_owned(), |it| shown(it, Unit::Milliseconds));
    let recovery = median(&|overload| Some(overload.recovery())).unwrap_or(0.0);
    format!(
        "<figure class=\"share\"><figcaption><h3>{title}</h3><p class=\"soft\">{} connections, limit {} in each of {} workers{}</p></figcaption>\
         <svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Shares of the requests to {title}\">{bar}</svg>\
         <ul>{list}</ul><p class=\"soft\">Latency p99 {p99}; recovered after {}; clients waited {} s at most.</p></figure>\n",
        grouped(first.connections.into()),
        grouped(first.limit),
        results.subject.workers,
        if first.limit_was_set { " (set for this test)" } else { "" },
        shown(recovery, Unit::Seconds),
        first.patience_seconds,
    )
}

/// The table, with the spread of each figure.
fn figures(report: &Report) -> String {
    let titles = each(&report.servers, |results| format!("<th>{}</th>", escape(&results.subject.title())));
    let rows = each(&report.table, figure);
    format!(
        "<div class=\"card scroll\"><table class=\"strips\"><thead><tr><th>Metric</th><th class=\"strip text\">Rounds</th>{titles}\
         <th>Difference</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )
}

fn figure(line: &TableLine) -> String {
    let cells = each(&line.shown, |cell| format!("<td>{}</td>", escape(cell)));
    format!(
        "<tr><th>{}</th><td class=\"strip\">{}</td>{cells}</tr>\n",
        escape(&line.row.label),
        strip(&line.row.cells)
    )
}

/// Medians and spread on one axis, which begins at zero: the servers below each other.
fn strip(cells: &[Cell]) -> String {
    let summaries = || {
        cells.iter().enumerate().filter_map(|(server, cell)| match cell {
            Cell::Figures { summary, .. } => Some((server, *summary)),
            _ => None,
        })
    };
    let most = summaries().map(|(_, summary)| summary.most).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let x = |value: f64| value / most * 100.0;
    let mut text = String::from(
        "<svg viewBox=\"0 0 100 20\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"20\"/><line class=\"track\" x1=\"0\" y1=\"10\" x2=\"100\" y2=\"10\"/>",
    );
    for (server, Summary { median, least, most, .. }) in summaries() {
        let y = if server == 0 { 6 } else { 14 };
        let _ = write!(
            text,
            "<g class=\"{}\"><line class=\"range\" x1=\"{:.2}\" y1=\"{y}\" x2=\"{:.2}\" y2=\"{y}\"/>\
             <line class=\"median\" x1=\"{3:.2}\" y1=\"{4}\" x2=\"{3:.2}\" y2=\"{5}\"/></g>",
            CLASSES[server % CLASSES.len()],
            x(least),
            x(most),
            x(median),
            y - 4,
            y + 4
        );
    }
    text + "</svg>"
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    let notes = each(&report.notes, |note| format!("<li>{}</li>\n", escape(note)));
    format!("<h2>Notes</h2>\n<ul class=\"notes\">\n{notes}</ul>\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compare::advice::tests::{overload, results};
    use crate::compare::options::{Format, LoadRequest, Options};
    use crate::compare::report::Machine;
    use crate::settings::value::Server;

    fn report(app: &str, all: Vec<Results>) -> Report {
        let request = LoadRequest { method: "GET".into(), path: "/".into(), headers: Vec::new(), body: None };
        let options = Options {
            request,
            connections: vec![64],
            duration: Duration::from_secs(1),
            rounds: 3,
            format: Format::Text,
            html: None,
        };
        let machine = Machine {
            cores: 2,
            cpu: "a \"processor\" & more".into(),
            memory: 4 << 30,
            system: "Linux".into(),
            kernel: "6".into(),
            busy_percent: 0.0,
        };
        Report::new(app.into(), &options, machine, "wrk <4>".into(), all, vec!["a note: 1 < 2".into()])
    }

    fn both() -> Vec<Results> {
        [(Server::Gunicorn, 100), (Server::Granian, 200)]
            .map(|(server, rate)| {
                let rates = [rate, rate + 1, rate + 2];
                results(server, rates, 50 << 20, Some(overload(100, 300, 0, Some(0.1))))
            })
            .into()
    }

    /// The names of elements in the order in which they are opened and closed, without those that have no end.
    fn tags(page: &str) -> impl Iterator<Item = &str> {
        let tags = page.split('<').skip(1).map(|rest| rest.split_once('>').expect("no > after a <").0);
        let tags = tags.filter(|tag| !tag.starts_with("meta") && !tag.starts_with('!') && !tag.ends_with('/'));
        tags.map(|tag| tag.split(' ').next().unwrap_or_default())
    }

    #[test]
    fn the_page_is_well_formed_and_shows_text_as_text() {
        let page = page(&report("<script>alert(1)</script>", both()));
        let mut open = Vec::new();
        for tag in tags(&page) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "after {open:?}"),
                None => open.push(tag),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(page.contains("wrk &lt;4&gt;") && page.contains("1 &lt; 2"));
        for word in ["http://", "https://", "url(", "@import", "NaN", "inf "] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn every_plot_has_both_servers() {
        let page = page(&report("app", both()));
        for title in ["Requests per second", "Latency", "CPU time per 1000 requests", "Memory of each round"] {
            let (_, plot) = page.split_once(&format!("<h3>{title}</h3>")).unwrap_or_else(|| panic!("no {title}"));
            let plot = plot.split("</figure>").next().unwrap();
            assert!(plot.contains("series first") && plot.contains("series second"), "{title}: {plot}");
            assert!(plot.contains(">Gunicorn") && plot.contains(">Granian"), "{title}: {plot}");
        }
        // A quarter of the requests to each were answered.
        assert_eq!(page.matches("<rect class=\"answered\" x=\"0.000\" width=\"25.000\"").count(), 2, "{page}");
    }

    #[test]
    fn a_server_without_figures_leaves_the_other_one() {
        let mut all = both();
        all[1].rounds.clear();
        all[1].overloads.clear();
        let page = page(&report("app", all));
        assert!(page.contains("Requests per second") && page.contains("At twice the capacity"));
        assert!(!page.contains("NaN"), "{page}");
    }
}
