use super::*;
use crate::guard::scoreboard::State;
use crate::proc::process::Process;
use std::time::Instant;

const NOW: Duration = Duration::from_secs(1000);

fn setting() -> Setting {
    Setting { server: "gunicorn/23.0.0".into(), now: NOW, since_1970: Duration::from_hours(500_000) }
}

fn exit(cause: Cause) -> WorkerExit {
    let pid = Pid::from_raw(41);
    WorkerExit {
        generation: GenerationId(2),
        process: Process {
            pid,
            parent: Pid::from_raw(1),
            group: pid,
            state: 'Z',
            start: 5,
            is_dying: true,
            is_copy: true,
        },
        cause,
        how: match cause {
            Cause::Exit(_) | Cause::Signal(_) => Some(cause),
            Cause::Hung => Some(Cause::Signal(libc::SIGABRT)),
            _ => None,
        },
        age: Duration::from_millis(61_500),
        at: Instant::now(),
        restarts: 1,
        expected: false,
        is_repeat: false,
    }
}

/// A worker with requests that began at these seconds.
fn remains(began: &[u64]) -> Remains {
    let slot = Slot {
        in_flight: 3,
        stuck: 1,
        streams: 2,
        served: 100,
        heartbeat: Duration::from_millis(999_600),
        ..Slot::blank(Pid::from_raw(41), State::Ready)
    };
    let text = began.iter().map(|began| format!("{began}000000000 GET /{began}")).collect::<Vec<_>>().join("\n");
    Remains { slot, report: Some(Report::new(120 << 20, 130 << 20, 1 << 20, text.as_bytes())) }
}

#[test]
fn a_worker_s_record_has_what_it_left_on_the_board() {
    let end =
        of_worker(&exit(Cause::Signal(libc::SIGKILL)), Some(&remains(&[990, 999])), Vec::new(), &setting()).unwrap();
    assert_eq!((&*end.what, end.pid, end.generation, &*end.server), ("worker", 41, 2, "gunicorn/23.0.0"));
    assert_eq!((&*end.cause, end.status, end.signal.as_deref()), ("signal", None, Some("SIGKILL")));
    assert_eq!((end.age_seconds, end.timestamp, end.stopping), (61.5, 1.8e9, false));
    let memory = end.memory.unwrap();
    let growth = memory.growth_bytes_per_minute;
    assert_eq!((memory.rss_bytes, memory.peak_bytes, growth), (120 << 20, 130 << 20, Some(1 << 20)));
    let requests = end.requests.unwrap();
    assert_eq!((requests.in_flight, requests.stuck, requests.streams, requests.served), (3, 1, 2, 100));
    assert!((requests.heartbeat_seconds_ago - 0.4).abs() < 1e-9);
    let oldest: Vec<_> = requests.oldest.iter().map(|it| (&*it.method, &*it.path, it.age_seconds)).collect();
    assert_eq!(oldest, [("GET", "/990", 10.0), ("GET", "/999", 1.0)]);
}

#[test]
fn without_the_guard_there_is_what_the_kernel_says() {
    let end = of_worker(&exit(Cause::Exit(3)), None, Vec::new(), &setting()).unwrap();
    assert_eq!((&*end.cause, end.status, end.signal, end.memory, end.requests), ("exit", Some(3), None, None, None));
}

#[test]
fn a_worker_that_we_ended_says_why_and_how() {
    let end = of_worker(&exit(Cause::Hung), None, Vec::new(), &setting()).unwrap();
    assert_eq!((&*end.cause, end.status, end.signal.as_deref()), ("hung", None, Some("SIGABRT")));
}

#[test]
fn a_worker_that_was_asked_to_end_and_did_has_no_record_and_one_that_was_cut_short_has() {
    let leaving = |cause| WorkerExit { expected: true, ..exit(cause) };
    for (exit, has_record) in [
        (leaving(Cause::Exit(0)), false),
        (leaving(Cause::Signal(libc::SIGTERM)), false),
        (leaving(Cause::Signal(libc::SIGKILL)), true),
        (leaving(Cause::Oom), true),
        (leaving(Cause::Exit(1)), true),
        (exit(Cause::Exit(0)), true),
        (exit(Cause::Age), true),
        (WorkerExit { is_repeat: true, ..exit(Cause::Exit(3)) }, false),
    ] {
        let end = of_worker(&exit, None, Vec::new(), &setting());
        assert_eq!(end.as_ref().map(|end| end.stopping), has_record.then_some(exit.expected), "{exit:?}");
    }
}

fn server(progress: Progress, outcome: Outcome, is_oom: bool) -> ServerExit {
    ServerExit {
        generation: GenerationId(2),
        pid: Pid::from_raw(40),
        outcome,
        is_oom,
        why: None,
        progress,
        age: Duration::from_secs(5),
        workers: Vec::new(),
    }
}

#[test]
fn a_server_s_cause_says_how_far_it_had_come() {
    use Outcome::{Exited, NoWorkers, NotReady, Signaled};
    use Progress::{Replaced, Serving, Starting, Stopping};
    for (progress, outcome, is_oom, expected) in [
        (Starting, Exited(3), false, Some(("boot-failed", Some(3), None))),
        (Starting, Signaled(11), false, Some(("boot-failed", None, Some("SIGSEGV")))),
        (Starting, NotReady, false, Some(("not-ready", None, None))),
        (Starting, Outcome::KeepsDying, false, Some(("keeps-dying", None, None))),
        (Serving, Exited(1), false, Some(("exit", Some(1), None))),
        (Serving, Signaled(9), false, Some(("signal", None, Some("SIGKILL")))),
        (Serving, Signaled(9), true, Some(("oom", None, Some("SIGKILL")))),
        (Serving, NoWorkers, false, Some(("no-workers", None, None))),
        (Replaced, Exited(0), false, Some(("replaced", Some(0), None))),
        (Replaced, Signaled(9), false, Some(("replaced", None, Some("SIGKILL")))),
        (Stopping, Exited(0), false, None),
        (Stopping, Signaled(15), false, None),
        (Stopping, Signaled(9), false, Some(("signal", None, Some("SIGKILL")))),
    ] {
        let end = of_server(&server(progress, outcome, is_oom), &setting());
        let told = end.as_ref().map(|end| (&*end.cause, end.status, end.signal.as_deref()));
        assert_eq!(told, expected, "{progress:?} {outcome:?}");
    }
}

#[test]
fn a_server_that_took_its_workers_along_tells_what_they_were_doing() {
    let workers = vec![remains(&[999, 980]), remains(&(0..30).map(|at| 990 - at).collect::<Vec<_>>())];
    let exit = ServerExit { workers, ..server(Progress::Serving, Outcome::Signaled(9), false) };
    let requests = of_server(&exit, &setting()).unwrap().requests.unwrap();
    assert_eq!((requests.in_flight, requests.streams), (6, 4));
    let ages: Vec<f64> = requests.oldest.iter().map(|request| request.age_seconds).collect();
    assert_eq!((ages.len(), ages[0]), (MOST_REQUESTS, 39.0));
    assert!(ages.is_sorted_by(|one, next| one >= next), "{ages:?}");
}

#[test]
fn the_innermost_frames_are_told_as_far_as_there_is_room() {
    let frame = |line| Frame { file: "/app/".to_owned() + &"x".repeat(200), line, function: "f".into() };
    let thread = |frames: u64| ThreadStack {
        id: "0x1".into(),
        name: None,
        frames: (0..frames).map(frame).collect(),
        is_cut: false,
    };
    let lines = |frames| innermost(&thread(frames)).iter().map(|frame| frame.line).collect::<Vec<_>>();
    assert_eq!(lines(3), [0, 1, 2]);
    assert_eq!(lines(100), [94, 95, 96, 97, 98, 99]);
    let json = serde_json::to_string(&innermost(&thread(100))).unwrap();
    assert!(json.len() < 1700, "{}", json.len());
}
