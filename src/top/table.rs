//! The columns of the table of workers, and its order. Pure.

use std::cmp::Ordering;

use super::reading::Row;
use crate::control::protocol::Load;
use crate::control::table::{brief, size, span};

/// What is in a cell; none if it is not known.
type Cell = fn(&Row<'_>) -> Option<String>;
/// What rows are sorted by.
type Key = fn(&Row<'_>) -> Option<f64>;

/// A column.
#[derive(Debug)]
struct Column {
    title: &'static str,
    /// At least this wide, so that the columns stay where they are with usual contents.
    width: usize,
    cell: Cell,
    /// For sorting, the largest first. None for words, which are sorted as such.
    key: Option<Key>,
}

/// The most important ones first: a narrow terminal does not show those on the right.
const COLUMNS: [Column; 18] = [
    of_numbers("WORKER", 6, |row| Some(row.worker.pid.to_string()), |row| Some(-f64::from(row.worker.pid))),
    of_numbers("GEN", 3, |row| Some(row.generation.to_string()), |row| Some(row.generation.into())),
    of_words("STATE", 5, |row| Some(load(row)?.state.clone())),
    of_words("CLIENTS", 7, |row| load(row)?.clients.clone()),
    of_numbers(
        "REQ/S",
        6,
        |row| Some(format!("{:.1}", load(row)?.recent.requests_per_second)),
        |row| Some(load(row)?.recent.requests_per_second),
    ),
    of_numbers("BUSY", 4, |row| Some(load(row)?.in_flight.to_string()), |row| Some(load(row)?.in_flight.into())),
    of_numbers("P50", 6, |row| load(row)?.recent.p50_seconds.map(brief), |row| load(row)?.recent.p50_seconds),
    of_numbers("P99", 6, |row| load(row)?.recent.p99_seconds.map(brief), |row| load(row)?.recent.p99_seconds),
    of_numbers("CPU%", 5, |row| Some(format!("{:.1}", 100.0 * row.cpu?)), |row| row.cpu),
    of_numbers("MEMORY", 6, |row| Some(size(row.worker.rss_bytes)), memory),
    of_numbers("LAG", 6, |row| Some(brief(load(row)?.lag_seconds)), |row| Some(load(row)?.lag_seconds)),
    of_numbers("LIMIT", 5, |row| Some(load(row)?.limit?.to_string()), |row| Some(load(row)?.limit?.into())),
    of_numbers("STREAMS", 7, |row| Some(load(row)?.streams.to_string()), |row| Some(load(row)?.streams.into())),
    of_numbers(
        "CONNS",
        5,
        |row| Some(load(row)?.connections?.to_string()),
        |row| Some(load(row)?.connections?.into()),
    ),
    of_numbers(
        "REFUSED/S",
        9,
        |row| Some(format!("{:.1}", load(row)?.recent.rejected_per_second)),
        |row| Some(load(row)?.recent.rejected_per_second),
    ),
    of_numbers("STUCK", 5, |row| Some(load(row)?.stuck.to_string()), |row| Some(load(row)?.stuck.into())),
    of_numbers(
        "SEEN",
        6,
        |row| Some(brief(load(row)?.heartbeat_seconds_ago)),
        |row| Some(load(row)?.heartbeat_seconds_ago),
    ),
    of_numbers("AGE", 6, |row| Some(span(row.worker.age_seconds)), |row| Some(row.worker.age_seconds)),
];

const fn of_words(title: &'static str, width: usize, cell: Cell) -> Column {
    Column { title, width, cell, key: None }
}

const fn of_numbers(title: &'static str, width: usize, cell: Cell, key: Key) -> Column {
    Column { title, width, cell, key: Some(key) }
}

const fn load<'a>(row: &Row<'a>) -> Option<&'a Load> {
    row.worker.load.as_ref()
}

#[allow(clippy::cast_precision_loss, clippy::unnecessary_wraps, reason = "it is compared, as other cells are")]
fn memory(row: &Row<'_>) -> Option<f64> {
    Some(row.worker.rss_bytes as f64)
}

/// By which column the rows are sorted: at first by the first one, in the order of process numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sorting {
    column: usize,
    is_reversed: bool,
}

impl Sorting {
    /// Sorts by the next column of those that are shown, or the one before.
    pub(super) const fn move_by(&mut self, forward: bool, shown: usize) {
        let last = shown.saturating_sub(1);
        self.column = match (forward, self.column) {
            (true, column) if column >= last => 0,
            (true, column) => column + 1,
            (false, 0) => last,
            (false, column) => column - 1,
        };
    }

    /// Turns the order round.
    pub(super) const fn reverse(&mut self) {
        self.is_reversed = !self.is_reversed;
    }

    fn compare(self, one: &Row<'_>, other: &Row<'_>) -> Ordering {
        let Column { cell, key, .. } = &COLUMNS[self.column];
        let order = match key {
            // Unknown numbers come last.
            Some(key) => {
                let [one, other] = [one, other].map(|row| key(row).unwrap_or(f64::MIN));
                other.total_cmp(&one)
            }
            None => cell(one).cmp(&cell(other)),
        };
        let order = if self.is_reversed { order.reverse() } else { order };
        order.then(one.worker.pid.cmp(&other.worker.pid))
    }
}

/// The table as texts: a head and rows of the same width.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The titles before the column that the rows are sorted by, its own, and those behind.
    pub(super) head: [String; 3],
    pub(super) rows: Vec<String>,
    /// How many columns there are.
    pub(super) columns: usize,
}

/// The columns that are known and fit into this width, at least one; the rows in their order.
pub(super) fn table(mut rows: Vec<Row<'_>>, sorting: Sorting, width: usize) -> Table {
    rows.sort_by(|one, other| sorting.compare(one, other));
    let cells: Vec<Vec<Option<String>>> =
        rows.iter().map(|row| COLUMNS.iter().map(|column| (column.cell)(row)).collect()).collect();
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let widest = cells.iter().filter_map(|row| row[index].as_ref()).map(String::len).max();
            column.title.len().max(column.width).max(widest.unwrap_or(0))
        })
        .collect();
    let fits = |count: &usize| widths[..*count].iter().sum::<usize>() + count - 1 <= width;
    let columns = (1..=COLUMNS.len()).rev().find(fits).unwrap_or(1);
    let line = |cells: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect()
    };
    let titles = line(&mut COLUMNS[..columns].iter().map(|column| column.title));
    let sorted = sorting.column.min(columns - 1);
    let before = titles[..sorted].iter().map(|title| title.clone() + " ").collect();
    let behind = titles[sorted + 1..].iter().map(|title| " ".to_owned() + title).collect();
    let rows =
        cells.iter().map(|row| line(&mut row[..columns].iter().map(|cell| cell.as_deref().unwrap_or("-"))).join(" "));
    Table { head: [before, titles[sorted].clone(), behind], rows: rows.collect(), columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;
    use crate::top::reading::Reading;

    #[test]
    fn columns_on_the_right_give_way() {
        let reading = Reading::new(status());
        let shown = |width| table(reading.rows(), Sorting::default(), width);
        let whole = shown(200);
        assert_eq!(whole.columns, COLUMNS.len());
        assert_eq!(
            whole.head.concat(),
            "WORKER GEN STATE CLIENTS  REQ/S BUSY    P50    P99  CPU% MEMORY    LAG LIMIT STREAMS CONNS REFUSED/S STUCK   \
             SEEN    AGE"
        );
        assert_eq!(
            whole.rows[1],
            "    42   2 ready  silent   12.3    7   12ms   1.2s     - 120.0M  1.2ms    64       3    12       0.0     0  \
             440ms  59.9s"
        );
        for width in 1..140 {
            let narrow = shown(width);
            assert!(narrow.rows.iter().all(|row| row.len() <= width.max(6)), "{narrow:?}");
            assert_eq!(narrow.rows[0].len(), narrow.head.concat().len());
        }
        assert_eq!(shown(80).head.concat().len(), 76);
    }

    #[test]
    fn rows_are_sorted_by_the_chosen_column() {
        let mut status = status();
        status.generations[0].workers[0].rss_bytes *= 2;
        status.generations[1].workers[0].load = None;
        let reading = Reading::new(status);
        let order = |sorting| -> Vec<i32> {
            let mut rows = reading.rows();
            rows.sort_by(|one, other| Sorting::compare(sorting, one, other));
            rows.iter().map(|row| row.worker.pid).collect()
        };
        let mut sorting = Sorting::default();
        assert_eq!(order(sorting), [32, 42], "by process");
        sorting.reverse();
        assert_eq!(order(sorting), [42, 32]);
        sorting.reverse();
        for (index, column) in COLUMNS.iter().enumerate() {
            let wanted = if ["GEN", "STATE", "CLIENTS"].contains(&column.title) { [42, 32] } else { [32, 42] };
            assert_eq!(order(sorting), wanted, "{}", column.title);
            assert_eq!(sorting.column, index);
            sorting.move_by(true, COLUMNS.len());
        }
        assert_eq!(sorting, Sorting::default(), "round and round");
        sorting.move_by(false, 5);
        assert_eq!(sorting.column, 4);
    }
}
