//! Which server for which use, based only on what was measured. The uses are those of the gateway's decision record
//! on its servers. Pure.

use serde::Serialize;

use super::load::Outcome;
use super::measure::{Overload, Results};
use super::rows::{Row, Verdict, grouped};
use super::statistics::{FEWEST, Summary, difference};

/// The advice for one use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The use.
    pub scenario: &'static str,
    /// `gunicorn`, `granian`, `either` or `unknown`.
    pub choose: &'static str,
    /// The same for people.
    #[serde(skip)]
    pub choice: &'static str,
    /// The figures behind it.
    pub because: String,
}

/// For all uses.
#[must_use]
pub fn advice(all: &[Results], rows: &[Row]) -> Vec<Advice> {
    let begins = |prefix: &'static str| move |row: &&Row| row.key.starts_with(prefix);
    let of = |prefix| rows.iter().filter(begins(prefix)).collect::<Vec<_>>();
    let loaded: Vec<&Row> = rows.iter().filter(|row| row.key == "memory_loaded").collect();
    let (work, tails) = ([of("requests_per_second"), of("cpu_")].concat(), of("p99"));
    let give = |scenario, (which, because): (Choice, String)| {
        let (choose, choice) = match which {
            Choice::Unknown => ("unknown", "not known"),
            Choice::Either => ("either", "either"),
            Choice::One(which) => (all[which].subject.server.word(), all[which].subject.server.title()),
        };
        Advice { scenario, choose, choice, because }
    };
    vec![
        give("Memory-constrained environment", weigh(all, &loaded)),
        give("Load spikes, bursty traffic", spikes(all)),
        give("HTTP/2 without a proxy", http2(all)),
        give("Predictable traffic", weigh(all, &work)),
        give("Low latency", weigh(all, &tails)),
    ]
}

/// Which server to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// There is nothing to base a choice on.
    Unknown,
    /// They are equally good.
    Either,
    /// The one at this place in the results.
    One(usize),
}

/// Based on rows of figures: a server is chosen if it is better in at least half of them and worse in none. Among
/// many rows, one will differ by chance sooner or later.
fn weigh(all: &[Results], rows: &[&Row]) -> (Choice, String) {
    if rows.iter().any(|row| row.verdict == Verdict::TooFewRounds) {
        return (Choice::Unknown, "too few rounds to tell a difference from chance".to_owned());
    }
    let compared = || rows.iter().filter(|row| row.verdict != Verdict::NotCompared);
    if compared().next().is_none() {
        return (Choice::Unknown, "not measured on both servers".to_owned());
    }
    let better: Vec<usize> = compared()
        .filter_map(|row| match row.verdict {
            Verdict::Better { which, .. } => Some(which),
            _ => None,
        })
        .collect();
    let Some(first) = better.first().copied() else {
        let labels: Vec<&str> = compared().map(|row| row.label.as_str()).collect();
        return (Choice::Either, format!("no difference in: {}", labels.join("; ")));
    };
    let reasons: Vec<String> = compared()
        .filter(|row| matches!(row.verdict, Verdict::Better { .. }))
        .map(|row| format!("{}: {}", row.label, row.difference(all)))
        .collect();
    let reasons = reasons.join("; ");
    if better.iter().any(|which| *which != first) {
        (Choice::Either, format!("each is better at something: {reasons}"))
    } else if 2 * better.len() < compared().count() {
        (Choice::Either, format!("mostly no difference, except: {reasons}"))
    } else {
        (Choice::One(first), reasons)
    }
}

/// A relevant difference in lost requests: one in a hundred.
const LOST: f64 = 0.01;
/// A relevant difference in recovery, in seconds.
const LONGER: f64 = 1.0;

/// Based on what happens beyond the capacity: a response or an immediate refusal is good, waiting for nothing is not.
fn spikes(all: &[Results]) -> (Choice, String) {
    let [first, second] = all else { return (Choice::Unknown, "not measured on both servers".to_owned()) };
    let count = first.overloads.len().min(second.overloads.len());
    if count == 0 {
        return (Choice::Unknown, "not measured on both servers".to_owned());
    }
    let because = format!("{}; {}", beyond_capacity(first), beyond_capacity(second));
    if count < FEWEST {
        return (Choice::Unknown, format!("too few rounds to tell a difference from chance: {because}"));
    }
    let less = |margin: f64, of: fn(&Overload) -> f64| {
        let [a, b] = [first, second].map(|results| results.overloads.iter().map(of).collect::<Vec<_>>());
        let apart = Summary::of(&a)?.median - Summary::of(&b)?.median;
        (difference(&a, &b).is_some() && apart.abs() > margin).then_some(usize::from(apart > 0.0))
    };
    let better = less(LOST, Overload::lost_share).or_else(|| less(LONGER, Overload::recovery));
    (better.map_or(Choice::Either, Choice::One), because)
}

/// The outcome of requests beyond the capacity, in all rounds.
fn beyond_capacity(results: &Results) -> String {
    let set = results.overloads.iter().find(|it| it.limit_was_set);
    let set =
        set.map_or_else(String::new, |it| format!(" (with a limit of {} per worker, set for this test)", it.limit));
    let sum = |of: fn(&Outcome) -> u64| grouped(results.overloads.iter().map(|it| of(&it.outcome)).sum());
    format!(
        "{}{set}: {} answered, {} refused at once, {} failed",
        results.subject.server.title(),
        sum(|it| it.answered),
        sum(|it| it.rejected.unwrap_or(0)),
        sum(|it| it.timed_out + it.failed),
    )
}

fn http2(all: &[Results]) -> (Choice, String) {
    let [Some(first), Some(second)] = [0, 1].map(|which| all.get(which).and_then(|it| it.http2)) else {
        return (Choice::Unknown, "not tried on both servers".to_owned());
    };
    let says = |which: usize, speaks: bool| {
        format!("{} {} it", all[which].subject.server.title(), if speaks { "speaks" } else { "does not speak" })
    };
    let because = format!("{}, {}", says(0, first), says(1, second));
    match (first, second) {
        (true, false) => (Choice::One(0), because),
        (false, true) => (Choice::One(1), because),
        (true, true) => (Choice::Either, because),
        (false, false) => (Choice::Unknown, because),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::measure::{Measured, Memory, MemorySample, OverloadLimit, Round, Subject};
    use crate::compare::rows::rows;
    use crate::settings::value::Server;

    pub(in crate::compare) fn results(
        server: Server,
        rate: [u64; 3],
        memory: u64,
        overload: Option<Overload>,
    ) -> Results {
        let subject = Subject {
            server,
            version: None,
            worker_class: None,
            workers: 2,
            limit: Some(10),
            overload_limit: OverloadLimit { in_force: 10, backpressure: None },
            flags: Vec::new(),
            operands: Vec::new(),
        };
        let round = |answered| {
            let memory = Memory { total: memory, worker: memory / 2 };
            let outcome = Outcome {
                seconds: 1.0,
                answered,
                rejected: Some(0),
                p50_ms: Some(1.0),
                p99_ms: Some(2.0),
                ..Outcome::default()
            };
            let loads = vec![Measured { connections: 64, outcome, cpu_seconds: 1.0 }];
            Round {
                start_seconds: 1.0,
                idle: memory,
                loaded: memory,
                after: memory,
                memory_over_time: vec![MemorySample { seconds: 1.5, connections: None, total: memory.total }],
                loads,
            }
        };
        let mut results = Results::none(subject);
        results.rounds = rate.map(round).into();
        results.overloads = overload.map_or_else(Vec::new, |it| vec![it; 3]);
        results.http2 = Some(server == Server::Granian);
        results
    }

    pub(in crate::compare) fn overload(
        answered: u64,
        rejected: u64,
        timed_out: u64,
        recovery: Option<f64>,
    ) -> Overload {
        let outcome = Outcome { answered, rejected: Some(rejected), timed_out, ..Outcome::default() };
        Overload {
            limit: 10,
            limit_was_set: false,
            capacity: 20,
            connections: 40,
            patience_seconds: 1.0,
            outcome,
            recovery_seconds: recovery,
        }
    }

    fn chosen(gunicorn: Results, granian: Results) -> Vec<&'static str> {
        let all = [gunicorn, granian];
        let rows = rows(&all);
        advice(&all, &rows).into_iter().map(|advice| advice.choose).collect()
    }

    #[test]
    fn what_was_measured_decides() {
        let gunicorn = results(Server::Gunicorn, [100, 101, 102], 100, Some(overload(100, 0, 50, Some(0.1))));
        let granian = results(Server::Granian, [200, 201, 202], 150, Some(overload(100, 900, 0, Some(0.1))));
        assert_eq!(chosen(gunicorn, granian), ["gunicorn", "granian", "granian", "granian", "either"]);
        // The same figures the other way round, to show that neither server is favoured.
        let gunicorn = results(Server::Gunicorn, [200, 201, 202], 150, Some(overload(100, 900, 0, Some(0.1))));
        let granian = results(Server::Granian, [100, 101, 102], 100, Some(overload(100, 0, 50, Some(0.1))));
        assert_eq!(chosen(gunicorn, granian), ["granian", "gunicorn", "granian", "gunicorn", "either"]);
    }

    #[test]
    fn without_a_difference_either_will_do() {
        let one = |server| results(server, [100, 101, 102], 100, Some(overload(100, 100, 0, Some(0.1))));
        assert_eq!(chosen(one(Server::Gunicorn), one(Server::Granian))[..2], ["either", "either"]);
        assert_eq!(chosen(one(Server::Gunicorn), one(Server::Granian))[3..], ["either", "either"]);
    }

    #[test]
    fn one_row_among_many_decides_nothing() {
        let all = [Server::Gunicorn, Server::Granian].map(|server| results(server, [1; 3], 1, None));
        let row = |verdict| Row { key: "p99".into(), label: "a".into(), cells: Vec::new(), verdict };
        let better = |which| row(Verdict::Better { which, by: 0.1, more: false });
        let same = row(Verdict::NoDifference);
        let choice = |rows: &[&Row]| weigh(&all, rows).0;
        assert_eq!(choice(&[&better(1)]), Choice::One(1));
        assert_eq!(choice(&[&better(1), &same]), Choice::One(1));
        assert_eq!(choice(&[&better(1), &same, &same]), Choice::Either);
        assert_eq!(choice(&[&better(1), &better(0)]), Choice::Either);
    }

    #[test]
    fn a_recovery_that_takes_long_is_no_protection() {
        let one = |server, recovery| results(server, [1; 3], 1, Some(overload(100, 100, 0, recovery)));
        assert_eq!(chosen(one(Server::Gunicorn, None), one(Server::Granian, Some(0.2)))[1], "granian");
        assert_eq!(chosen(one(Server::Gunicorn, Some(0.5)), one(Server::Granian, Some(0.2)))[1], "either");
    }

    #[test]
    fn nothing_is_advised_on_what_was_not_measured() {
        let gunicorn = results(Server::Gunicorn, [1; 3], 1, None);
        let mut granian = Results::none(results(Server::Granian, [1; 3], 1, None).subject);
        granian.http2 = None;
        assert_eq!(chosen(gunicorn, granian), ["unknown"; 5]);
    }
}
