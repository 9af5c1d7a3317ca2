//! What is shown, as lines of text. Pure.

use super::events::Events;
use super::reading::{Reading, workers};
use super::table::{Sorting, Table, table};
use crate::control::protocol::Status;
use crate::control::table::{generation_head, rates, span};

/// The most events that are shown.
const MOST_EVENTS: usize = 8;
const BOLD: &str = "1";
const DIM: &str = "2";
const REVERSE: &str = "7";
const RED: &str = "31";

/// What the user sees of a reading.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) reading: &'a Reading,
    pub(super) events: &'a Events,
    pub(super) sorting: Sorting,
    /// How many workers have been scrolled away.
    pub(super) offset: usize,
    /// Instead of the keys: why there are no new numbers.
    pub(super) notice: Option<&'a str>,
    /// Whether to use colours.
    pub(super) colour: bool,
}

/// What was drawn.
#[derive(Debug)]
pub(super) struct Frame {
    /// The lines, with escape sequences for their looks, at most as many and as long as asked for.
    pub(super) lines: Vec<String>,
    /// How many columns the table has.
    pub(super) columns: usize,
    /// How far the workers can be scrolled.
    pub(super) most_offset: usize,
}

/// Everything as plain text.
pub(super) fn plain(reading: &Reading) -> Vec<String> {
    let mut lines = head(&reading.status);
    let table = table(reading.rows(), Sorting::default(), usize::MAX);
    if !table.rows.is_empty() {
        lines.push(table.head.concat());
        lines.extend(table.rows);
    }
    lines
}

/// The screen, of this size.
pub(super) fn draw(view: &View<'_>, width: usize, height: usize) -> Frame {
    let status = &view.reading.status;
    let mut lines: Vec<String> = head(status)
        .iter()
        .enumerate()
        .map(|(index, line)| paint(if index == 0 { BOLD } else { "" }, line, width))
        .collect();
    let table = table(view.reading.rows(), view.sorting, width);
    // Besides these: an empty line, the table's head, the last line.
    let room = height.saturating_sub(lines.len() + 3);
    let events: Vec<String> =
        view.events.lines(status.launcher.uptime_seconds).take(MOST_EVENTS.min(room / 3)).collect();
    let for_events = if events.is_empty() { 0 } else { events.len() + 1 };
    let for_rows = room.saturating_sub(for_events);
    let most_offset = table.rows.len().saturating_sub(for_rows);
    let rows = table.rows.iter().skip(view.offset.min(most_offset)).take(for_rows);
    lines.push(String::new());
    lines.push(titles(&table.head, width));
    lines.extend(rows.map(|row| paint("", row, width)));
    if !events.is_empty() {
        lines.push(String::new());
        lines.extend(events.iter().map(|event| paint("", event, width)));
    }
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), String::new());
    lines.push(last_line(view, &table, most_offset, width));
    Frame { lines, columns: table.columns, most_offset }
}

/// What stands above the table.
fn head(status: &Status) -> Vec<String> {
    let launcher = &status.launcher;
    let ready = if launcher.ready { "ready" } else { "not ready" };
    let loads = || workers(status).filter_map(|(_, worker)| worker.load.as_ref());
    let mut lines = vec![
        format!(
            "mcp-launch {}  pid {}  up {}  {}, {ready}  {}",
            launcher.version,
            launcher.pid,
            span(launcher.uptime_seconds),
            launcher.phase,
            status.address
        ),
        format!(
            "{}  busy {}  streams {}  restarts left {}  failures {}",
            rates(&status.recent).unwrap_or_else(|| "no worker reports its requests".to_owned()),
            loads().map(|load| load.in_flight).sum::<u32>(),
            loads().map(|load| load.streams).sum::<u32>(),
            status.restarts_left,
            status.failures
        ),
    ];
    lines.extend(status.generations.iter().map(generation_head));
    lines
}

/// The head of the table, where the column by which it is sorted stands out.
fn titles([before, sorted, behind]: &[String; 3], width: usize) -> String {
    let rest = width.saturating_sub(before.len());
    let behind_width = rest.saturating_sub(sorted.len());
    [paint(REVERSE, before, width), paint("1;4;7", sorted, rest), paint(REVERSE, behind, behind_width)].concat()
}

fn last_line(view: &View<'_>, table: &Table, most_offset: usize, width: usize) -> String {
    if let Some(notice) = view.notice {
        return paint(if view.colour { RED } else { BOLD }, notice, width);
    }
    let scroll =
        if most_offset > 0 { format!("  up/down: scroll ({} workers)", table.rows.len()) } else { String::new() };
    paint(DIM, &format!("q: quit  left/right: sort by {}  r: reverse{scroll}", table.head[1].trim()), width)
}

/// A text as wide as there is room, in this style; without what would move the cursor.
fn paint(style: &str, text: &str, width: usize) -> String {
    let text: String =
        text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(width).collect();
    if style.is_empty() || text.is_empty() { text } else { format!("\u{1b}[{style}m{text}\u{1b}[0m") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;

    /// Without escape sequences.
    fn bare(line: &str) -> String {
        let mut parts = line.split("\u{1b}[");
        let first = parts.next().unwrap_or_default().to_owned();
        first + &parts.map(|part| part.split_once('m').unwrap().1).collect::<String>()
    }

    fn view<'a>(reading: &'a Reading, events: &'a Events) -> View<'a> {
        View { reading, events, sorting: Sorting::default(), offset: 0, notice: None, colour: false }
    }

    #[test]
    fn plain_text_has_all_columns_and_no_escapes() {
        let text = plain(&Reading::new(status())).join("\n");
        for part in [
            "mcp-launch 0.1.0  pid 1  up 1h2m  serving, ready  0.0.0.0:4444\n\
             12.3 requests/s, 0.0 rejected/s, p50 12ms, p99 1.2s  busy 14  streams 6  restarts left 5  failures 0\n",
            "generation 2  granian/2.8.7  serving  age 1h1m  main 41  workers 1/2  restarts 1\nWORKER GEN STATE",
            "\n    42   2 ready",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_screen_has_no_more_than_its_size() {
        let mut large = status();
        let worker = large.generations[1].workers[0].clone();
        large.generations[1].workers =
            (100..140).map(|pid| crate::control::protocol::Worker { pid, ..worker.clone() }).collect();
        large.address = "unix:/a\u{1b}[2J".into();
        let (reading, events) = (Reading::new(large), Events::new(&status()));
        for (width, height) in [(80, 24), (200, 60), (20, 10), (1, 1), (5, 3), (79, 7)] {
            let frame = draw(&view(&reading, &events), width, height);
            assert_eq!(frame.lines.len(), height);
            let lines: Vec<String> = frame.lines.iter().map(|line| bare(line)).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width && !line.contains('\u{1b}')), "{lines:?}");
        }
        let frame = draw(&View { offset: 1000, ..view(&reading, &events) }, 80, 24);
        let text: Vec<String> = frame.lines.iter().map(|line| bare(line)).collect();
        assert!(text.iter().any(|line| line.starts_with("   139   2 ready")), "the last worker: {text:#?}");
        assert!(text.iter().any(|line| line.contains("killed by SIGKILL")), "{text:#?}");
        assert_eq!(text[23], "q: quit  left/right: sort by WORKER  r: reverse  up/down: scroll (41 workers)");
        let frame = draw(&View { notice: Some("no answer"), ..view(&reading, &events) }, 80, 24);
        assert_eq!(bare(&frame.lines[23]), "no answer");
    }
}
