//! An answer of the launcher, and what it says together with the one before. Pure.

use std::collections::BTreeMap;

use crate::control::protocol::{Status, Worker};

/// What is shown.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) status: Status,
    /// The part of a CPU that each worker used since the answer before, by process.
    cpu: BTreeMap<i32, f64>,
}

/// A worker, as a row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) generation: u32,
    pub(super) worker: &'a Worker,
    /// The part of a CPU that it used since the answer before; none at its first.
    pub(super) cpu: Option<f64>,
}

impl Reading {
    pub(super) const fn new(status: Status) -> Self {
        Self { status, cpu: BTreeMap::new() }
    }

    /// The next answer, after this one.
    pub(super) fn next(&self, status: Status) -> Self {
        // By the launcher's clock, because the answer may have taken its time.
        let seconds = status.launcher.uptime_seconds - self.status.launcher.uptime_seconds;
        if status.launcher.pid != self.status.launcher.pid || seconds <= 0.0 {
            return Self::new(status);
        }
        let before: BTreeMap<i32, &Worker> = workers(&self.status).map(|(_, worker)| (worker.pid, worker)).collect();
        let cpu = workers(&status).filter_map(|(_, worker)| {
            // A younger one has the number of an earlier process.
            let known = before.get(&worker.pid).filter(|known| known.age_seconds <= worker.age_seconds)?;
            Some((worker.pid, ((worker.cpu_seconds - known.cpu_seconds) / seconds).max(0.0)))
        });
        Self { cpu: cpu.collect(), status }
    }

    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let row =
            |(generation, worker): (u32, _)| Row { generation, worker, cpu: self.cpu.get(&worker.pid).copied() };
        workers(&self.status).map(row).collect()
    }
}

/// The workers of all generations, each with the number of its generation.
pub(super) fn workers(status: &Status) -> impl Iterator<Item = (u32, &Worker)> {
    let generations = status.generations.iter();
    generations.flat_map(|generation| generation.workers.iter().map(|worker| (generation.id, worker)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;

    #[test]
    fn the_share_of_the_cpu_needs_two_answers_of_the_same_process() {
        let (mut first, mut second) = (status(), status());
        second.launcher.uptime_seconds += 2.0;
        for worker in second.generations.iter_mut().flat_map(|generation| &mut generation.workers) {
            worker.age_seconds += 2.0;
            worker.cpu_seconds += 1.5;
        }
        // The number of a worker that has ended since.
        first.generations[0].workers[0].age_seconds = 1000.0;
        let reading = Reading::new(first).next(second);
        let cpu: Vec<Option<f64>> = reading.rows().iter().map(|row| row.cpu).collect();
        assert_eq!(cpu, [None, Some(0.75)]);
        let mut restarted = status();
        restarted.launcher.pid += 1;
        restarted.launcher.uptime_seconds += 9.0;
        assert!(reading.next(restarted).rows().iter().all(|row| row.cpu.is_none()));
    }
}
