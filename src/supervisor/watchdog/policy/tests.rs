use super::*;
use nix::unistd::Pid;
use proptest::prelude::*;

const TIMEOUT: Duration = Duration::from_secs(8);
const BEAT: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_hours(1);

fn process(pid: i32, start: u64) -> ProcessId {
    ProcessId { pid: Pid::from_raw(pid), start }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Works,
    /// Waits for something that does not happen.
    Sleeps,
    /// Uses all the CPU time that it gets.
    Spins,
    Stopped,
    /// Is runnable, and gets no CPU.
    Starves,
    /// Waits until its output is read.
    Writes,
    NeverReady,
}

#[derive(Debug, Clone, Copy)]
struct Worker {
    sample: Sample,
    habit: Habit,
    condition: ThreadStats,
}

/// A machine with workers, and a watch over them that runs when it is due.
struct World {
    now: Duration,
    watch: Liveness,
    workers: Vec<Worker>,
    planned: usize,
    verdicts: Vec<(Duration, Verdict)>,
    looks: usize,
    boot: Duration,
    births: u64,
}

impl World {
    fn new(habits: &[Habit], pace: u64) -> Self {
        let rules = Rules {
            timeout: TIMEOUT,
            startup: Duration::from_secs(20),
            pace: Duration::from_secs(pace),
            all_take_slots: true,
        };
        let mut world = Self {
            now: START,
            watch: Liveness::new(rules, START),
            workers: Vec::new(),
            planned: habits.len(),
            verdicts: Vec::new(),
            looks: 0,
            boot: Duration::from_secs(1),
            births: 0,
        };
        for habit in habits {
            world.birth(*habit);
        }
        world
    }

    fn birth(&mut self, habit: Habit) {
        self.births += 1;
        let id = process(i32::try_from(self.births).unwrap(), self.births);
        let nothing = Duration::ZERO;
        let condition =
            ThreadStats { cpu: nothing, delay: nothing, state: 'S', is_runnable: false, is_writing: false };
        let state = if habit == Habit::NeverReady { State::Starting } else { State::Ready };
        let stamp =
            Stamp { state, claimed: self.now, heartbeat: self.now, no_lifespan: false, traceback_on_abort: true };
        let started = self.now;
        self.workers.push(Worker { sample: Sample { id, started, stamp: Some(stamp) }, habit, condition });
    }

    /// All processes are stopped, the watch included.
    fn pause(&mut self, span: Duration) {
        self.now += span;
    }

    fn run(&mut self, span: Duration) {
        let tick = Duration::from_millis(50);
        let end = self.now + span;
        while self.now < end {
            self.now += tick;
            for worker in &mut self.workers {
                worker.live(self.now, tick);
            }
            if self.watch.next().is_some_and(|next| next <= self.now) {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        self.looks += 1;
        let samples: Vec<Sample> = self.workers.iter().map(|worker| worker.sample).collect();
        let workers = self.workers.clone();
        let condition = |id| Some(workers.iter().find(|worker| worker.sample.id == id)?.condition);
        for verdict in self.watch.look(self.now, self.planned, &samples, condition) {
            self.verdicts.push((self.now, verdict));
            let found = self.workers.iter().position(|worker| worker.sample.id == verdict.id).unwrap();
            // Only a sleeping worker gets SIGABRT.
            let dies = match verdict.remedy {
                Remedy::Report => false,
                Remedy::Abort => self.workers[found].habit == Habit::Sleeps,
                Remedy::Kill | Remedy::Finish => true,
            };
            if dies {
                self.workers.remove(found);
                self.birth(Habit::Works);
                let boot = self.boot;
                let born = self.workers.last_mut().unwrap().sample.stamp.as_mut().unwrap();
                born.state = State::Starting;
                born.heartbeat = self.now + boot;
                // Its appearance is noticed.
                let samples: Vec<Sample> = self.workers.iter().map(|worker| worker.sample).collect();
                assert_eq!(self.watch.look(self.now, self.planned, &samples, |_| None), []);
            }
        }
    }

    fn ended(&self) -> Vec<ProcessId> {
        let dead = |verdict: &&(Duration, Verdict)| verdict.1.remedy != Remedy::Report;
        let mut ids: Vec<ProcessId> = self.verdicts.iter().filter(dead).map(|(_, verdict)| verdict.id).collect();
        ids.dedup();
        ids
    }
}

impl Worker {
    fn live(&mut self, now: Duration, tick: Duration) {
        let stamp = self.sample.stamp.as_mut().unwrap();
        self.condition.state = if self.habit == Habit::Stopped { 'T' } else { 'S' };
        self.condition.is_writing = self.habit == Habit::Writes;
        self.condition.is_runnable = matches!(self.habit, Habit::Spins | Habit::Starves);
        match self.habit {
            Habit::Works if stamp.state == State::Starting && now >= stamp.heartbeat => stamp.state = State::Ready,
            Habit::Works if stamp.state == State::Ready && now >= stamp.heartbeat + BEAT => stamp.heartbeat = now,
            Habit::Spins => self.condition.cpu += tick,
            Habit::Starves => self.condition.delay += tick,
            _ => {}
        }
    }
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
fn who_does_not_act_on_sigabrt_is_killed_a_second_later() {
    let mut world = World::new(&[Habit::Spins, Habit::Works], 0);
    world.run(Duration::from_secs(12));
    let found: Vec<_> = world.verdicts.iter().map(|(_, verdict)| verdict.remedy).collect();
    assert_eq!(found, [Remedy::Abort, Remedy::Finish]);
    assert_eq!(world.verdicts[1].0.saturating_sub(world.verdicts[0].0), ABORT_GRACE);
    let first = world.verdicts[0].1;
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
            world.now = world.watch.next().unwrap().max(world.now);
            world.workers[0].live(world.now, Duration::ZERO);
            let samples = [world.workers[0].sample, Sample { id, started: START, stamp: None }];
            verdicts.extend(world.watch.look(world.now, 1, &samples, |_| Some(idle)));
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
    let mut watch = Liveness::new(rules, START);
    let ready = Stamp {
        state: State::Ready,
        claimed: START,
        heartbeat: START,
        no_lifespan: false,
        traceback_on_abort: false,
    };
    let (mut now, mut looks) = (START, 0_u32);
    loop {
        // The age of a process is measured on another clock, so its start seems to move.
        let jitter = Duration::from_millis(u64::from(looks % 10));
        let hung = Sample { id: process(2, 2), started: START + jitter, stamp: None };
        let other = Sample { id: process(1, 1), started: START, stamp: Some(Stamp { heartbeat: now, ..ready }) };
        let verdicts = watch.look(now, 2, &[other, hung], |_| Some(SLEEPING));
        if let [verdict] = verdicts[..] {
            assert!(verdict.id.start == 2 && verdict.is_starting);
            break;
        }
        looks += 1;
        assert!(now < START + rules.startup * 2, "it is never found");
        now = watch.next().unwrap();
    }
    assert!(looks < 60, "{looks} looks");
}

const SLEEPING: ThreadStats =
    ThreadStats { cpu: Duration::ZERO, delay: Duration::ZERO, state: 'S', is_runnable: false, is_writing: false };
