//! What has happened between two answers of the launcher. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::reading::workers;
use crate::control::protocol::{Generation, Load, Status, Worker, WorkerExit};
use crate::control::table::{cause, span};

/// The most events that are kept.
const MOST: usize = 100;

/// The last events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The latest last: when, in seconds since the start of the launcher, and what.
    events: VecDeque<(f64, String)>,
}

impl Events {
    /// Those that the first answer tells of.
    pub(super) fn new(status: &Status) -> Self {
        let now = status.launcher.uptime_seconds;
        let exits = status.generations.iter().filter_map(|generation| generation.last_exit.as_ref());
        let mut past: Vec<_> = exits.map(|exit| (now - exit.seconds_ago, ended(exit))).collect();
        past.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self { events: past.into() }
    }

    /// Adds what has happened from one answer to the next.
    pub(super) fn add(&mut self, before: &Status, after: &Status) {
        if before.launcher.pid != after.launcher.pid {
            *self = Self::new(after);
            return self.push(after, vec![format!("another launcher has started: pid {}", after.launcher.pid)]);
        }
        self.push(after, of_launcher(before, after));
        self.push(after, of_generations(before, after));
        self.push(after, of_workers(before, after));
    }

    fn push(&mut self, status: &Status, events: Vec<String>) {
        self.events.extend(events.into_iter().map(|event| (status.launcher.uptime_seconds, event)));
        let surplus = self.events.len().saturating_sub(MOST);
        self.events.drain(..surplus);
    }

    /// The last ones as lines, the latest first.
    pub(super) fn lines(&self, now: f64) -> impl Iterator<Item = String> {
        let line = move |(at, event): &(f64, String)| format!("{:>8} ago  {event}", span((now - at).max(0.0)));
        self.events.iter().rev().map(line)
    }
}

fn of_launcher(before: &Status, after: &Status) -> Vec<String> {
    let mut events = Vec::new();
    let (was, is) = (&before.launcher, &after.launcher);
    if was.ready != is.ready || was.phase != is.phase {
        events.push(format!("launcher: {}, {}", is.phase, if is.ready { "ready" } else { "not ready" }));
    }
    if before.failures < after.failures {
        events.push(format!("the server has failed; restarts left: {}", after.restarts_left));
    }
    let is_refusing = |status: &Status| status.recent.rejected_per_second > 0.0;
    if is_refusing(after) && !is_refusing(before) {
        events.push("requests are refused".to_owned());
    }
    events
}

fn of_generations(before: &Status, after: &Status) -> Vec<String> {
    let find = |status: &'_ Status, id: u32| status.generations.iter().position(|generation| generation.id == id);
    let events = after.generations.iter().flat_map(|generation| {
        let was = find(before, generation.id).map(|index| &before.generations[index]);
        of_generation(was, generation)
    });
    let gone = before.generations.iter().filter(|generation| find(after, generation.id).is_none());
    events.chain(gone.map(|generation| format!("generation {}: gone", generation.id))).collect()
}

fn of_generation(was: Option<&Generation>, is: &Generation) -> Vec<String> {
    let mut events = Vec::new();
    if was.is_none_or(|was| was.state != is.state) {
        events.push(format!("generation {}: {}", is.id, is.state));
    }
    let ends = is.restarts - was.map_or(0, |was| was.restarts).min(is.restarts);
    if let Some(exit) = is.last_exit.as_ref().filter(|_| ends > 0) {
        let others = if ends > 1 { format!(", and {} before", ends - 1) } else { String::new() };
        events.push(ended(exit) + &others);
    }
    events
}

fn of_workers(before: &Status, after: &Status) -> Vec<String> {
    let known: BTreeMap<i32, &Worker> = workers(before).map(|(_, worker)| (worker.pid, worker)).collect();
    let events = workers(after).flat_map(|(_, worker)| {
        // A younger one has the number of an earlier process.
        let was = known.get(&worker.pid).filter(|was| was.age_seconds <= worker.age_seconds);
        let events = was.map_or_else(|| vec!["started".to_owned()], |was| of_worker(was, worker));
        events.into_iter().map(|event| format!("worker {}: {event}", worker.pid))
    });
    events.collect()
}

fn of_worker(was: &Worker, is: &Worker) -> Vec<String> {
    let (Some(was), Some(is)) = (&was.load, &is.load) else { return Vec::new() };
    let mut events = Vec::new();
    if was.state != is.state {
        events.push(is.state.clone());
    }
    let is_silent = |load: &Load| load.clients.as_deref() == Some("silent");
    match (is_silent(was), is_silent(is)) {
        (false, true) => events.push("silent".to_owned()),
        (true, false) => events.push("answers again".to_owned()),
        _ => {}
    }
    if was.stuck < is.stuck {
        events.push(format!("{} stuck requests", is.stuck));
    }
    events
}

fn ended(exit: &WorkerExit) -> String {
    format!("worker {} ended: {}, after {}", exit.pid, cause(exit), span(exit.age_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::tests::status;

    fn what(events: &Events) -> Vec<String> {
        events.lines(0.0).map(|line| line.split_once("ago  ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn the_first_answer_tells_of_the_last_ends() {
        let mut status = status();
        status.generations[1].last_exit.as_mut().unwrap().seconds_ago = 30.0;
        let events = Events::new(&status);
        let lines: Vec<String> = events.lines(status.launcher.uptime_seconds).collect();
        assert_eq!(lines[0], "   30.0s ago  worker 7 ended: killed by SIGKILL, after 1m1s");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn what_changes_is_an_event_once() {
        let before = status();
        let mut after = status();
        after.launcher.uptime_seconds += 1.0;
        after.launcher.ready = false;
        after.recent.rejected_per_second = 3.0;
        after.generations.remove(0);
        let generation = &mut after.generations[0];
        generation.state = "orphaned".into();
        generation.restarts += 2;
        let load = generation.workers[0].load.as_mut().unwrap();
        (load.state, load.clients, load.stuck) = ("stopping".into(), Some("leaving".into()), 2);
        let mut young = generation.workers[0].clone();
        young.pid = 50;
        generation.workers.push(young);
        let mut events = Events::default();
        events.add(&before, &after);
        events.add(&after, &after);
        assert_eq!(
            what(&events),
            [
                "worker 50: started",
                "worker 42: 2 stuck requests",
                "worker 42: answers again",
                "worker 42: stopping",
                "generation 1: gone",
                "worker 7 ended: killed by SIGKILL, after 1m1s, and 1 before",
                "generation 2: orphaned",
                "requests are refused",
                "launcher: serving, not ready",
            ]
        );
    }

    #[test]
    fn only_the_last_ones_are_kept_and_another_launcher_begins_anew() {
        let (one, mut other) = (status(), status());
        other.generations[1].state = "draining".into();
        let mut events = Events::default();
        for _ in 0..MOST {
            events.add(&one, &other);
            events.add(&other, &one);
        }
        assert_eq!(events.events.len(), MOST);
        other.launcher.pid = 99;
        events.add(&one, &other);
        assert_eq!(what(&events)[0], "another launcher has started: pid 99");
        assert_eq!(events.events.len(), 3);
    }
}
