use super::*;
use crate::proc::process as processes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};

const LONG: Duration = Duration::from_secs(20);

/// A shell that has children, as a main process of a server has workers.
struct Main(Child);

impl Main {
    /// Starts it with this many workers.
    fn start(workers: usize) -> Self {
        let script = "for worker in $(seq $1); do sleep 600 & done; echo up; while :; do wait; done";
        let mut child = Command::new("sh")
            .args(["-c", script, "main", &workers.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        Self(child)
    }

    fn roster(&self, planned: u32, stage: RosterStage) -> Roster {
        let main = Pid::from_raw(self.0.id().cast_signed());
        Roster { generation: GenerationId(1), main, main_alive: true, planned, stage, known_by: None }
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        for child in processes::children_of(Pid::from_raw(self.0.id().cast_signed())) {
            let _ = child.signal(Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the supervisor's loop does, until the condition holds.
fn run(workers: &mut Workers, mut until: impl FnMut(&Workers, &[WorkerExit]) -> bool) -> Vec<WorkerExit> {
    let (deadline, mut exits) = (Instant::now() + LONG, Vec::new());
    while !until(workers, &exits) {
        assert!(Instant::now() < deadline, "{workers:?}");
        let (handles, next) = workers.interest();
        let mut fds: Vec<_> = handles.iter().map(|handle| PollFd::new(*handle, PollFlags::POLLIN)).collect();
        let wait = next.map_or(LONG, |next| next.saturating_duration_since(Instant::now()));
        poll(&mut fds, PollTimeout::try_from(wait.as_millis() + 1).unwrap()).unwrap();
        let ready = fds.iter().filter(|fd| fd.any() == Some(true)).map(|fd| fd.as_fd().as_raw_fd()).collect();
        exits.extend(workers.advance(&ready, Instant::now()));
    }
    exits
}

fn pids(workers: &Workers) -> Vec<Pid> {
    workers.usage(GenerationId(1)).into_iter().map(|(pid, _)| pid).collect()
}

#[test]
fn deaths_during_a_start_are_counted_and_each_cause_is_reported_once() {
    let main = Main::start(4);
    let mut workers = Workers::default();
    let follow = |workers: &mut Workers, stage| workers.follow(&[main.roster(4, stage)], Instant::now());
    follow(&mut workers, RosterStage::Starting);
    run(&mut workers, |workers, _| pids(workers).len() == 4 && workers.interest().1.is_none());
    let mut repeats = Vec::new();
    for signal in [Signal::SIGKILL, Signal::SIGUSR1, Signal::SIGKILL] {
        kill(pids(&workers)[0], signal).unwrap();
        let exits = run(&mut workers, |_, exits| !exits.is_empty());
        repeats.extend(exits.iter().map(|exit| exit.is_repeat));
    }
    assert_eq!((repeats, workers.record(GenerationId(1)).0), (vec![false, false, true], 3));
    assert_eq!(workers.take_repeats(), []);
    follow(&mut workers, RosterStage::Serving);
    let repeat = Repeat { cause: Cause::Signal(libc::SIGKILL), more: 1 };
    assert_eq!(workers.take_repeats(), [(GenerationId(1), repeat)]);
}

#[test]
fn children_without_the_listening_socket_are_no_workers_while_the_app_may_be_imported() {
    let main = Main::start(1);
    let mut workers = Workers::default();
    let starting = Roster { known_by: Some(1), ..main.roster(1, RosterStage::Starting) };
    workers.follow(&[starting], Instant::now());
    workers.look(Instant::now());
    assert!(pids(&workers).is_empty());
    workers.follow(&[main.roster(1, RosterStage::Serving)], Instant::now());
    workers.look(Instant::now());
    assert_eq!(pids(&workers).len(), 1);
}

/// A child is a copy of the main process at first, also one that is going to be a helper of Python's `multiprocessing`.
#[test]
fn a_helper_that_was_seen_before_it_executed_its_program_is_no_worker() {
    let script = "exec 3<&0; sleep 600 & (read name <&3; exec sh -c 'read line; :' $name <&3) & echo up; \
                  while :; do wait; done";
    let child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut main = Main(child.unwrap());
    main.0.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let mut workers = Workers::default();
    workers.follow(&[main.roster(1, RosterStage::Starting)], Instant::now());
    run(&mut workers, |workers, _| pids(workers).len() == 2);
    main.0.stdin.as_mut().unwrap().write_all(b"multiprocessing.resource_tracker\n").unwrap();
    let exits = run(&mut workers, |workers, _| pids(workers).len() == 1 && workers.interest().1.is_none());
    assert_eq!((exits, workers.record(GenerationId(1))), (vec![], (0, None)));
}

#[test]
fn workers_are_found_when_their_generation_is_ready_and_then_it_is_quiet() {
    let main = Main::start(2);
    let mut workers = Workers::default();
    workers.follow(&[main.roster(2, RosterStage::Starting)], Instant::now());
    workers.follow(&[main.roster(2, RosterStage::Serving)], Instant::now());
    run(&mut workers, |workers, _| pids(workers).len() == 2 && workers.interest().1.is_none());
    assert_eq!(workers.interest().0.len(), 2);
}

#[test]
fn a_death_is_seen_at_once_with_its_cause_and_a_replacement_is_looked_for() {
    let main = Main::start(3);
    let mut workers = Workers::default();
    workers.follow(&[main.roster(3, RosterStage::Starting)], Instant::now());
    workers.follow(&[main.roster(3, RosterStage::Serving)], Instant::now());
    run(&mut workers, |workers, _| pids(workers).len() == 3 && workers.interest().1.is_none());
    for (nth, signal) in [(1, Signal::SIGKILL), (2, Signal::SIGUSR1)] {
        let victim = pids(&workers)[0];
        kill(victim, signal).unwrap();
        let exits = run(&mut workers, |_, exits| !exits.is_empty());
        assert_eq!((exits.len(), exits[0].pid(), exits[0].restarts), (1, victim, nth));
        assert_eq!(exits[0].cause, Cause::Signal(signal as i32));
        assert!(workers.interest().1.is_some(), "a replacement is looked for");
        assert_eq!(workers.record(GenerationId(1)), (nth, Some(exits[0])));
    }
    assert_eq!(workers.ends()["signal"], 2);
}

#[test]
fn one_that_was_asked_to_leave_ends_as_expected_and_the_next_one_does_not() {
    let main = Main::start(2);
    let mut workers = Workers::default();
    workers.follow(&[main.roster(2, RosterStage::Starting)], Instant::now());
    workers.follow(&[main.roster(2, RosterStage::Serving)], Instant::now());
    run(&mut workers, |workers, _| pids(workers).len() == 2 && workers.interest().1.is_none());
    workers.expect_more(GenerationId(1), -1, Instant::now());
    for expected in [true, false] {
        kill(pids(&workers)[0], Signal::SIGTERM).unwrap();
        let exits = run(&mut workers, |_, exits| !exits.is_empty());
        assert_eq!(exits[0].expected, expected);
        assert_eq!(workers.interest().1.is_none(), expected, "a replacement is looked for only where one is to come");
    }
    assert_eq!((workers.planned(GenerationId(1)), workers.record(GenerationId(1)).0), (Some(1), 1));
}

#[test]
fn those_of_a_leaving_generation_end_as_they_should() {
    let main = Main::start(1);
    let mut workers = Workers::default();
    workers.follow(&[main.roster(1, RosterStage::Starting)], Instant::now());
    workers.follow(&[main.roster(1, RosterStage::Serving)], Instant::now());
    run(&mut workers, |workers, _| pids(workers).len() == 1);
    workers.follow(&[main.roster(1, RosterStage::Leaving)], Instant::now());
    kill(pids(&workers)[0], Signal::SIGTERM).unwrap();
    let exits = run(&mut workers, |_, exits| !exits.is_empty());
    assert!(exits[0].expected);
    assert_eq!((workers.record(GenerationId(1)), workers.ends()["signal"]), ((0, None), 0));
    assert_eq!(workers.interest().1, None, "there is no search");
    workers.follow(&[], Instant::now());
    assert!(workers.usage(GenerationId(1)).is_empty());
}
