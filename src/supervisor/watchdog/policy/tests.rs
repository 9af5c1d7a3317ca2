mod world;

use super::*;
use nix::unistd::Pid;
use proptest::prelude::*;
use world::{Habit, World};

const TIMEOUT: Duration = Duration::from_secs(8);
const BEAT: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_hours(1);

fn process(pid: i32, start: u64) -> ProcessId {
    ProcessId { pid: Pid::from_raw(pid), start }
}

fn hung() -> impl Strategy<Value = Habit> {
    prop_oneof![Just(Habit::Sleeps), Just(Habit::Spins), Just(Habit::Stopped)]
}

#[test]
fn a_healthy_crowd_is_looked_at_once_in_a_while() {
    let mut world = World::new(&[Habit::Works; 8], 0);
    world.run(Duration::from_hours(1));
    assert_eq!(world.verdicts, []);
    let often = 3600 / TIMEOUT.saturating_sub(2 * BEAT).as_secs() + 1;
    assert!(world.looks as u64 <= often, "{} looks", world.looks);
}

#[test]
fn one_that_beats_is_no_suspect_even_if_it_may_not_be_silent_for_long() {
    let mut world = World::new(&[Habit::Works], 0);
    world.watch.rules.timeout = BEAT * 3 / 2;
    world.run(Duration::from_mins(1));
    assert_eq!(world.asked, 0);
}

#[test]
fn after_a_pause_of_the_machine_a_worker_has_ten_seconds_to_go_on() {
    for (at_last, ended) in [(Habit::Works, 0), (Habit::Sleeps, 1)] {
        let mut world = World::new(&[Habit::Works], 0);
        world.run(BEAT);
        world.workers[0].habit = Habit::Sleeps;
        world.pause(Duration::from_hours(1));
        world.run(Duration::from_secs(9));
        assert_eq!(world.verdicts, []);
        world.workers[0].habit = at_last;
        world.run(Duration::from_secs(3));
        assert_eq!(world.ended().len(), ended, "{at_last:?}");
    }
}

#[test]
fn it_is_ending_one_until_there_is_another_in_its_place() {
    let mut world = World::new(&[Habit::Sleeps, Habit::Works], 0);
    world.boot = Duration::from_secs(5);
    assert!(!world.watch.is_ending());
    world.run(TIMEOUT + Duration::from_secs(4));
    assert!(world.ended().len() == 1 && world.watch.is_ending());
    world.run(TIMEOUT);
    assert!(world.ended().len() == 1 && !world.watch.is_ending());
}

#[test]
fn the_next_one_waits_for_a_successor_as_long_as_that_may_take_to_start() {
    let mut world = World::new(&[Habit::Sleeps, Habit::Sleeps], 0);
    world.boot = Duration::from_hours(1);
    world.run(Duration::from_mins(1));
    let waited = world.verdicts[1].0.saturating_sub(world.verdicts[0].0);
    assert!(waited >= world.watch.rules.startup, "{waited:?}");
}

#[test]
fn who_does_not_act_on_sigabrt_is_killed_a_second_later() {
    let mut world = World::new(&[Habit::Spins, Habit::Works], 0);
    world.run(Duration::from_secs(12));
    let found: Vec<_> = world.verdicts.iter().map(|(_, verdict)| verdict.remedy).collect();
    assert_eq!(found, [Remedy::Abort, Remedy::Finish]);
    assert_eq!(world.verdicts[1].0.saturating_sub(world.verdicts[0].0), ABORT_GRACE);
    let [(_, first), (_, last)] = world.verdicts[..] else { unreachable!() };
    assert_eq!(last.silent, first.silent + ABORT_GRACE);
    assert!(first.cpu > Duration::from_secs(1) && first.silent >= TIMEOUT && !first.is_starting, "{first:?}");
}

#[test]
fn a_stopped_worker_is_killed_at_once_as_it_could_not_write_anything() {
    let mut world = World::new(&[Habit::Stopped, Habit::Works], 0);
    world.run(Duration::from_secs(10));
    assert_eq!(world.verdicts.iter().map(|(_, verdict)| verdict.remedy).collect::<Vec<_>>(), [Remedy::Kill]);
}

#[test]
fn who_waits_for_his_output_to_be_read_is_reported_now_and_then() {
    let mut world = World::new(&[Habit::Writes, Habit::Works], 0);
    world.run(Duration::from_mins(25));
    let found: Vec<_> = world.verdicts.iter().map(|(_, verdict)| verdict.remedy).collect();
    assert_eq!(found, [Remedy::Report; 3]);
}

#[test]
fn who_gets_no_processor_has_twice_the_time() {
    let mut world = World::new(&[Habit::Starves, Habit::Works], 0);
    world.run((TIMEOUT * 2).saturating_sub(Duration::from_millis(100)));
    assert_eq!(world.verdicts, []);
    world.run(Duration::from_secs(2));
    assert_eq!(world.ended().len(), 1);
}

#[test]
fn who_was_kept_from_the_processor_for_half_of_the_time_is_starved() {
    let (elapsed, half) = (Duration::from_secs(2), Duration::from_secs(1));
    let starved = ThreadStats { delay: half, ..SLEEPING };
    let waiting = ThreadStats { is_runnable: true, ..SLEEPING };
    for (now, expected) in [
        (SLEEPING, false),
        (ThreadStats { delay: half / 2, ..SLEEPING }, false),
        (starved, true),
        (waiting, true),
        (ThreadStats { cpu: ENOUGH_CPU, ..starved }, false),
        (ThreadStats { state: 'T', ..waiting }, false),
    ] {
        assert_eq!(is_starved(&now, &SLEEPING, elapsed), expected, "{now:?}");
    }
}

#[test]
fn of_whom_the_kernel_says_nothing_nothing_is_done_on_a_guess() {
    let mut world = World::new(&[Habit::Sleeps], 0);
    let samples = [world.workers[0].sample];
    let mut now = START;
    while now < START + TIMEOUT * 3 {
        assert_eq!(world.watch.look(now, 1, &samples, |_| None), []);
        let next = world.watch.next().unwrap();
        assert!(next > now, "it would look all the time");
        now = next;
    }
}

#[test]
fn a_worker_that_does_not_get_ready_has_the_startup_timeout() {
    let mut world = World::new(&[Habit::NeverReady, Habit::Works], 0);
    world.run(Duration::from_secs(19));
    assert_eq!(world.verdicts, []);
    world.run(Duration::from_secs(2));
    assert_eq!(world.ended().len(), 1);
    assert!(world.verdicts[0].1.is_starting);
}

#[test]
fn a_worker_that_hangs_as_soon_as_it_is_ready_is_found_in_time_too() {
    let mut world = World::new(&[Habit::NeverReady], 0);
    world.run(Duration::from_secs(5));
    let worker = &mut world.workers[0];
    worker.habit = Habit::Sleeps;
    let stamp = worker.sample.stamp.as_mut().unwrap();
    (stamp.state, stamp.heartbeat) = (State::Ready, world.now);
    world.run(TIMEOUT + Duration::from_secs(2));
    assert_eq!(world.ended().len(), 1);
}

#[test]
fn without_a_slot_it_is_a_worker_only_where_all_take_one() {
    for (all_take_slots, found) in [(true, 1), (false, 0)] {
        let mut world = World::new(&[Habit::Works], 0);
        world.watch.rules.all_take_slots = all_take_slots;
        let id = process(77, 77);
        let nothing = Duration::ZERO;
        let idle = ThreadStats { cpu: nothing, delay: nothing, state: 'S', is_runnable: false, is_writing: false };
        let mut verdicts = Vec::new();
        while world.now < START + Duration::from_secs(25) {
            world.workers[0].live(world.now, Duration::ZERO);
            let samples = [world.workers[0].sample, Sample { id, started: START, stamp: None }];
            verdicts.extend(world.watch.look(world.now, 1, &samples, |_| Some(idle)));
            let next = world.watch.next().unwrap();
            assert!(next > world.now, "it would look all the time");
            world.now = next;
        }
        assert_eq!(verdicts.len(), found, "{verdicts:?}");
    }
}

proptest! {
    #[test]
    fn a_hung_worker_is_killed_in_time_and_no_other(
        habits in proptest::collection::vec(prop_oneof![4 => Just(Habit::Works), 1 => hung()], 1..9),
        pace in prop_oneof![Just(0), Just(6)],
    ) {
        let mut world = World::new(&habits, pace);
        let bad: Vec<ProcessId> =
            world.workers.iter().filter(|worker| worker.habit != Habit::Works).map(|it| it.sample.id).collect();
        // After the first, each waits for the successor of the one before, and for the pace.
        let each = Duration::from_secs(pace) + world.boot + ABORT_GRACE + STEP * 4;
        let count = u32::try_from(bad.len()).unwrap();
        world.run(TIMEOUT + Duration::from_millis(1100) + each * count.saturating_sub(1));
        let mut ended = world.ended();
        ended.sort();
        prop_assert_eq!(ended, bad);
        for (at, verdict) in &world.verdicts {
            prop_assert!(verdict.silent >= TIMEOUT, "{at:?} {verdict:?}");
        }
    }

    #[test]
    fn they_are_ended_one_at_a_time_and_not_too_fast(
        habits in proptest::collection::vec(hung(), 2..9),
        boot in 0_u64..5_000,
        pace in prop_oneof![Just(0), Just(6)],
    ) {
        let mut world = World::new(&habits, pace);
        world.boot = Duration::from_millis(boot);
        world.run(Duration::from_mins(3));
        prop_assert_eq!(world.ended().len(), habits.len());
        let mut first = BTreeMap::new();
        for (at, verdict) in &world.verdicts {
            first.entry(verdict.id).or_insert(*at);
        }
        let mut times: Vec<Duration> = first.into_values().collect();
        times.sort();
        for pair in times.windows(2) {
            prop_assert!(pair[1].saturating_sub(pair[0]) >= world.boot.max(Duration::from_secs(pace)), "{times:?}");
        }
    }

    #[test]
    fn a_machine_that_stops_and_continues_has_no_hung_workers(
        spells in proptest::collection::vec((0_u64..30_000, 0_u64..100_000), 1..20),
        count in 1_usize..9,
    ) {
        let mut world = World::new(&vec![Habit::Works; count], 0);
        for (runs, pauses) in spells {
            world.run(Duration::from_millis(runs));
            world.pause(Duration::from_millis(pauses));
            // The watch may be the first to run.
            world.look();
        }
        world.run(Duration::from_mins(1));
        prop_assert_eq!(world.verdicts, []);
    }
}

#[test]
fn an_only_worker_is_watched_after_its_replacement_too() {
    let mut watch = Liveness::new(World::new(&[], 0).watch.rules, START);
    let stamp =
        |state, heartbeat| Stamp { state, claimed: START, heartbeat, no_lifespan: false, traceback_on_abort: false };
    let sample = |id: u64, stamp| Sample { id: process(9, id), started: START, stamp };
    let mut look = |now: Duration, samples: &[Sample]| {
        let stats = |_| Some(SLEEPING);
        (watch.look(now, 1, samples, stats), watch.next())
    };
    look(START, &[sample(1, Some(stamp(State::Ready, START)))]);
    // It has ended, and its successor is found before it has a slot: there is another check although nothing happens.
    assert!(look(START + BEAT, &[]).1.is_some());
    let (verdicts, next) = look(START + BEAT, &[sample(2, None)]);
    assert!(verdicts.is_empty() && next.is_some());
    let mut now = START + BEAT;
    for _ in 0..200 {
        let (verdicts, next) = look(now, &[sample(2, Some(stamp(State::Ready, START + BEAT)))]);
        if let [verdict] = verdicts[..] {
            assert_eq!(verdict.id.start, 2);
            return;
        }
        now = next.expect("it is watched");
    }
    panic!("a worker that stands still is never found");
}

#[test]
fn a_worker_that_hangs_before_it_has_a_slot_is_found_without_looking_all_the_time() {
    let rules = Rules { all_take_slots: true, ..World::new(&[], 0).watch.rules };
    let ready = Stamp {
        state: State::Ready,
        claimed: START,
        heartbeat: START,
        no_lifespan: false,
        traceback_on_abort: false,
    };
    for other_stays in [true, false] {
        let mut watch = Liveness::new(rules, START);
        let (mut now, mut looks) = (START, 0_u32);
        loop {
            // The age of a process is measured on another clock, so its start seems to move.
            let jitter = Duration::from_millis(u64::from(looks % 10));
            let hung = Sample { id: process(2, 2), started: START + jitter, stamp: None };
            let other = Sample { id: process(1, 1), started: START, stamp: Some(Stamp { heartbeat: now, ..ready }) };
            let samples = if other_stays || looks == 0 { vec![other, hung] } else { vec![hung] };
            let verdicts = watch.look(now, 2, &samples, |_| Some(SLEEPING));
            if let [verdict] = verdicts[..] {
                assert!(verdict.id.start == 2 && verdict.is_starting);
                break;
            }
            looks += 1;
            assert!(looks < 60 && now < START + rules.startup * 2, "not found with {looks} looks");
            now = watch.next().unwrap();
        }
    }
}

const SLEEPING: ThreadStats =
    ThreadStats { cpu: Duration::ZERO, delay: Duration::ZERO, state: 'S', is_runnable: false, is_writing: false };
