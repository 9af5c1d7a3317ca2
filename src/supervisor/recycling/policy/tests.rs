use super::*;
use nix::unistd::Pid;
use proptest::prelude::*;

const START: Duration = Duration::from_hours(1);
const ROOM: u64 = u64::MAX;
const MEBI: u64 = 1 << 20;

fn rules() -> Rules {
    Rules {
        rss: Some(500 * MEBI),
        age: Some(Duration::from_mins(30)),
        grace: Duration::from_secs(25),
        pace: Duration::from_secs(6),
        interval: Duration::from_secs(30),
        resizes: false,
        renews: true,
    }
}

fn worker(number: i32, age_seconds: u64, mebibytes: u64) -> Sample {
    let id = ProcessId { pid: Pid::from_raw(number), start: 1 };
    Sample {
        id,
        age: Duration::from_secs(age_seconds),
        rss: mebibytes * MEBI,
        streams: 0,
        is_ready: true,
        is_spent: false,
    }
}

#[test]
fn who_is_within_the_limits_is_left_alone_and_looked_at_now_and_then() {
    let mut limits = Limits::new(rules(), START);
    assert_eq!(limits.look(START, 2, &[worker(1, 60, 100), worker(2, 1799, 500)], false, ROOM), None);
    assert_eq!(limits.next(), START + rules().interval);
}

#[test]
fn without_a_limit_of_memory_the_next_look_is_when_the_first_one_comes_of_age() {
    let mut limits = Limits::new(Rules { rss: None, ..rules() }, START);
    assert_eq!(limits.look(START, 2, &[worker(1, 60, 900), worker(2, 1700, 900)], false, ROOM), None);
    assert_eq!(limits.next(), START + Duration::from_secs(100));
}

#[test]
fn the_oldest_goes_first_and_the_next_when_there_is_another_in_its_place() {
    let mut limits = Limits::new(rules(), START);
    let (old, older, big) = (worker(1, 1801, 1), worker(2, 1805, 1), worker(3, 700, 900));
    assert_eq!(limits.look(START, 3, &[old, older, big], false, ROOM), Some(Order::Dismiss(older, Excess::Age)));
    assert_eq!(limits.look(START + STEP, 3, &[old, older, big], false, ROOM), None, "it leaves");
    assert_eq!(limits.look(START + STEP * 2, 3, &[old, big], false, ROOM), None, "it is gone");
    let starting = Sample { is_ready: false, ..worker(4, 1, 1) };
    assert_eq!(limits.look(START + STEP * 3, 3, &[old, big, starting], false, ROOM), None, "its successor starts");
    let all = [old, big, worker(4, 2, 1)];
    assert_eq!(limits.look(START + STEP * 4, 3, &all, false, ROOM), Some(Order::Dismiss(old, Excess::Age)));
}

#[test]
fn who_does_not_finish_in_time_is_killed_once() {
    let mut limits = Limits::new(rules(), START);
    let workers = [worker(1, 9, 900), worker(2, 9, 1)];
    assert_eq!(limits.look(START, 2, &workers, false, ROOM), Some(Order::Dismiss(workers[0], Excess::Rss)));
    let late = START + rules().grace;
    assert_eq!(limits.look(START + STEP, 2, &workers, false, ROOM), None);
    assert_eq!(limits.look(START + LEAVES, 2, &workers, false, ROOM), Some(Order::End(workers[0].id)));
    assert_eq!(limits.look(START + LEAVES + STEP, 2, &workers, false, ROOM), None);
    assert_eq!(limits.look(late, 2, &workers, false, ROOM), Some(Order::Kill(workers[0].id)));
    assert_eq!(limits.look(late + STEP, 2, &workers, false, ROOM), None);
}

#[test]
fn who_has_many_streams_has_more_time_to_close_them() {
    let mut limits = Limits::new(rules(), START);
    let workers = [Sample { streams: 500, ..worker(1, 9, 900) }, worker(2, 9, 1)];
    assert_eq!(limits.look(START, 2, &workers, false, ROOM), Some(Order::Dismiss(workers[0], Excess::Rss)));
    assert_eq!(limits.look(START + STEP * 10, 2, &workers, false, ROOM), None);
    assert_eq!(limits.look(START + STEP * 11, 2, &workers, false, ROOM), Some(Order::End(workers[0].id)));
}

#[test]
fn nobody_goes_while_another_is_missing_or_too_young() {
    let mut limits = Limits::new(rules(), START);
    assert_eq!(limits.look(START, 2, &[worker(1, 60, 900)], false, ROOM), None);
    assert_eq!(
        limits.look(START, 2, &[worker(1, 5, 900), worker(2, 5, 100)], false, ROOM),
        None,
        "Granian would give up"
    );
}

#[test]
fn the_only_worker_is_replaced_with_its_generation_and_not_again_and_again() {
    let mut limits = Limits::new(rules(), START);
    let only = worker(1, 1900, 900);
    assert_eq!(limits.look(START, 1, &[only], false, ROOM), Some(Order::Renew(only, Excess::Age)));
    assert_eq!(limits.look(START + Duration::from_mins(1), 1, &[only], false, ROOM), None);
    assert!(limits.look(START + RENEWAL_PAUSE, 1, &[only], false, ROOM).is_some());
    let now = START + RENEWAL_PAUSE + STEP;
    let mut next = limits.following(rules(), now);
    let as_big = worker(2, 10, 900);
    assert_eq!(next.look(now, 1, &[as_big], false, ROOM), None, "nor when the next one is no better");
    assert!(next.look(now + RENEWAL_PAUSE, 1, &[as_big], false, ROOM).is_some());
}

#[test]
fn a_worker_that_is_alone_because_somebody_wants_it_so_is_replaced_by_its_main_process() {
    let mut limits = Limits::new(Rules { renews: false, ..rules() }, START);
    let only = worker(1, 1900, 1);
    assert_eq!(limits.look(START, 1, &[only], false, ROOM), Some(Order::Dismiss(only, Excess::Age)));
}

#[test]
fn a_successor_comes_first_where_the_main_process_can_be_told_and_there_is_memory() {
    let resizing = Rules { resizes: true, ..rules() };
    let mut limits = Limits::new(resizing, START);
    let (spent, other) = (Sample { is_spent: true, ..worker(2, 600, 100) }, worker(1, 700, 100));
    let workers = [spent, other];
    assert_eq!(limits.look(START, 2, &workers, false, ROOM), Some(Order::Grow(other, Excess::Requests)));
    let starting = Sample { is_ready: false, ..worker(3, 1, 50) };
    assert_eq!(limits.look(START + STEP, 3, &[spent, other, starting], false, ROOM), None);
    let all = [spent, other, worker(3, 2, 50)];
    let now = START + STEP * 2;
    assert_eq!(limits.look(now, 3, &all, false, ROOM), Some(Order::Withdraw(other, Excess::Requests)));
    let later = now + rules().time_to_part(&other);
    assert_eq!(limits.look(later, 3, &all, false, ROOM), Some(Order::Shrink(other.id)));
    assert_eq!(limits.look(later + STEP, 2, &all, false, ROOM), None, "it finishes what it has");
    let left = [spent, worker(3, 9, 50)];
    assert_eq!(limits.look(later + STEP * 2, 2, &left, false, ROOM), Some(Order::Grow(spent, Excess::Requests)));
    let mut limits = Limits::new(resizing, START);
    assert_eq!(limits.look(START, 2, &workers, false, 0), Some(Order::Dismiss(spent, Excess::Requests)));
}

#[test]
fn nobody_is_told_to_leave_while_a_hung_worker_is_being_ended() {
    let mut limits = Limits::new(rules(), START);
    let workers = [worker(1, 60, 900), worker(2, 60, 1)];
    assert_eq!(limits.look(START, 2, &workers, true, ROOM), None);
    assert!(limits.next() > START);
    assert!(limits.look(limits.next(), 2, &workers, false, ROOM).is_some());
}

#[test]
fn a_limit_that_is_less_than_any_worker_needs_does_not_keep_them_coming_and_going() {
    let mut limits = Limits::new(rules(), START);
    let mut dismissed = 0;
    let (mut now, mut number) = (START, 2);
    let mut workers = vec![worker(1, 10, 900), worker(2, 10, 900)];
    while now < START + Duration::from_hours(1) {
        if let Some(Order::Dismiss(gone, _)) = limits.look(now, 2, &workers, false, ROOM) {
            dismissed += 1;
            number += 1;
            workers.retain(|worker| worker.id != gone.id);
            workers.push(worker(number, 0, 900));
        }
        let span = limits.next().saturating_sub(now);
        assert!(span >= STEP);
        now += span;
        for worker in &mut workers {
            worker.age += span;
        }
    }
    assert!((10..=61).contains(&dismissed), "{dismissed} in an hour");
}

proptest! {
    #[test]
    fn all_others_are_ready_whenever_one_is_told_to_leave(
        seen in proptest::collection::vec((0u64..4000, 0u64..1000, any::<bool>()), 1..6),
        planned in 1usize..6,
    ) {
        let numbered = seen.iter().zip(1..);
        let workers: Vec<Sample> = numbered
            .map(|((age, size, is_ready), number)| Sample { is_ready: *is_ready, ..worker(number, *age, *size) })
            .collect();
        let mut limits = Limits::new(rules(), START);
        match limits.look(START, planned, &workers, false, ROOM) {
            Some(Order::Dismiss(gone, _)) => {
                prop_assert!(planned > 1 && gone.is_ready);
                let others = workers.iter().filter(|worker| worker.is_ready && worker.id != gone.id).count();
                prop_assert!(others + 1 >= planned);
            }
            Some(Order::Renew(..)) => prop_assert_eq!(planned, 1),
            Some(_) => prop_assert!(false),
            None => {}
        }
        prop_assert!(limits.next() > START);
    }
}
