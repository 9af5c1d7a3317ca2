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
        knows_successors: false,
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
        reported: None,
    }
}

#[test]
fn a_worker_within_the_limits_is_left_alone_and_checked_at_intervals() {
    let mut recycler = Recycler::new(rules(), START);
    assert_eq!(recycler.look(START, 2, &[worker(1, 60, 100), worker(2, 1799, 500)], false, ROOM), None);
    assert_eq!(recycler.next(), START + rules().interval);
}

#[test]
fn without_a_limit_of_memory_the_next_look_is_when_the_first_one_comes_of_age() {
    let mut recycler = Recycler::new(Rules { rss: None, ..rules() }, START);
    assert_eq!(recycler.look(START, 2, &[worker(1, 60, 900), worker(2, 1700, 900)], false, ROOM), None);
    assert_eq!(recycler.next(), START + Duration::from_secs(100));
}

#[test]
fn the_oldest_leaves_first_and_the_next_when_there_is_another_in_its_place() {
    let mut recycler = Recycler::new(rules(), START);
    let (old, older, big) = (worker(1, 1801, 1), worker(2, 1805, 1), worker(3, 700, 900));
    assert_eq!(recycler.look(START, 3, &[old, older, big], false, ROOM), Some(Order::Dismiss(older, Excess::Age)));
    assert_eq!(recycler.look(START + STEP, 3, &[old, older, big], false, ROOM), None, "it leaves");
    assert_eq!(recycler.look(START + STEP * 2, 3, &[old, big], false, ROOM), None, "it has ended");
    let starting = Sample { is_ready: false, ..worker(4, 1, 1) };
    assert_eq!(recycler.look(START + STEP * 3, 3, &[old, big, starting], false, ROOM), None, "its successor starts");
    let all = [old, big, worker(4, 2, 1)];
    assert_eq!(recycler.look(START + STEP * 4, 3, &all, false, ROOM), Some(Order::Dismiss(old, Excess::Age)));
}

#[test]
fn who_does_not_finish_in_time_is_killed_once() {
    let mut recycler = Recycler::new(rules(), START);
    let workers = [worker(1, 9, 900), worker(2, 9, 1)];
    assert_eq!(recycler.look(START, 2, &workers, false, ROOM), Some(Order::Dismiss(workers[0], Excess::Rss)));
    let late = START + rules().grace;
    assert_eq!(recycler.look(START + STEP, 2, &workers, false, ROOM), None);
    assert_eq!(recycler.look(START + LEAVES, 2, &workers, false, ROOM), Some(Order::End(workers[0].id)));
    assert_eq!(recycler.look(START + LEAVES + STEP, 2, &workers, false, ROOM), None);
    assert_eq!(recycler.look(late, 2, &workers, false, ROOM), Some(Order::Kill(workers[0].id)));
    assert_eq!(recycler.look(late + STEP, 2, &workers, false, ROOM), None);
}

#[test]
fn who_has_many_streams_has_more_time_to_close_them() {
    let mut recycler = Recycler::new(rules(), START);
    let workers = [Sample { streams: 500, ..worker(1, 9, 900) }, worker(2, 9, 1)];
    assert_eq!(recycler.look(START, 2, &workers, false, ROOM), Some(Order::Dismiss(workers[0], Excess::Rss)));
    assert_eq!(recycler.look(START + STEP * 10, 2, &workers, false, ROOM), None);
    assert_eq!(recycler.look(START + STEP * 11, 2, &workers, false, ROOM), Some(Order::End(workers[0].id)));
}

#[test]
fn with_a_short_grace_half_of_it_is_left_for_the_requests() {
    let mut recycler = Recycler::new(Rules { grace: LEAVES, ..rules() }, START);
    let workers = [worker(1, 9, 900), worker(2, 9, 1)];
    assert!(recycler.look(START, 2, &workers, false, ROOM).is_some());
    assert_eq!(recycler.look(START + LEAVES / 2, 2, &workers, false, ROOM), Some(Order::End(workers[0].id)));
}

#[test]
fn no_worker_leaves_while_another_is_missing_or_too_young() {
    let mut recycler = Recycler::new(rules(), START);
    assert_eq!(recycler.look(START, 2, &[worker(1, 60, 900)], false, ROOM), None);
    assert_eq!(
        recycler.look(START, 2, &[worker(1, 5, 900), worker(2, 5, 100)], false, ROOM),
        None,
        "Granian would give up"
    );
}

#[test]
fn the_only_worker_is_replaced_with_its_generation_and_not_again_and_again() {
    let mut recycler = Recycler::new(rules(), START);
    let only = worker(1, 1900, 900);
    assert_eq!(recycler.look(START, 1, &[only], false, ROOM), Some(Order::Renew(only, Excess::Age)));
    assert_eq!(recycler.look(START + Duration::from_mins(1), 1, &[only], false, ROOM), None);
    assert!(recycler.look(START + RENEWAL_PAUSE, 1, &[only], false, ROOM).is_some());
    let now = START + RENEWAL_PAUSE + STEP;
    let mut next = recycler.following(rules(), now);
    let as_big = worker(2, 10, 900);
    assert_eq!(next.look(now, 1, &[as_big], false, ROOM), None, "nor when the next one is no better");
    assert!(next.look(now + RENEWAL_PAUSE, 1, &[as_big], false, ROOM).is_some());
}

#[test]
fn an_only_worker_by_request_is_replaced_by_its_main_process() {
    let mut recycler = Recycler::new(Rules { renews: false, ..rules() }, START);
    let only = worker(1, 1900, 1);
    assert_eq!(recycler.look(START, 1, &[only], false, ROOM), Some(Order::Dismiss(only, Excess::Age)));
}

#[test]
fn a_successor_starts_first_if_the_main_process_can_know_it_and_there_is_memory() {
    let knowing = Rules { knows_successors: true, ..rules() };
    let mut recycler = Recycler::new(knowing, START);
    let (other, big) = (worker(1, 700, 100), worker(2, 650, 900));
    let spent = Sample { reported: Some(Excess::Requests), ..worker(3, 600, 120) };
    let workers = [other, big, spent];
    assert_eq!(recycler.look(START, 3, &workers, false, ROOM), Some(Order::Grow(spent, Excess::Requests)));
    let starting = Sample { is_ready: false, ..worker(4, 1, 50) };
    assert_eq!(recycler.look(START + STEP, 4, &[other, big, spent, starting], false, ROOM), None);
    let all = [other, big, spent, worker(4, 2, 50)];
    let now = START + STEP * 2;
    assert_eq!(recycler.look(now, 4, &all, false, ROOM), Some(Order::Withdraw(spent, Excess::Requests)));
    let later = now + rules().time_to_disconnect(&spent);
    assert_eq!(recycler.look(later, 3, &all, false, ROOM), Some(Order::End(spent.id)));
    assert_eq!(recycler.look(later + STEP, 3, &all, false, ROOM), None, "it finishes its requests");
    let left = [other, big, worker(4, 9, 50)];
    assert_eq!(recycler.look(later + STEP * 2, 3, &left, false, ROOM), Some(Order::Grow(big, Excess::Rss)));
}

#[test]
fn until_there_is_another_in_its_place_it_looks_again_and_again() {
    let mut recycler = Recycler::new(Rules { knows_successors: true, ..rules() }, START);
    let (other, big, successor) = (worker(1, 700, 100), worker(2, 650, 900), worker(3, 1, 50));
    let starting = Sample { is_ready: false, ..successor };
    let seen = [&[other, big][..], &[other, big, starting], &[other, big, successor], &[other], &[other, starting]];
    for (workers, now) in seen.into_iter().zip((0..).map(|step| START + STEP * step)) {
        recycler.look(now, 2.max(workers.len()), workers, false, ROOM);
        assert_eq!(recycler.next(), now + STEP, "{workers:?}");
    }
}

#[test]
fn how_much_memory_is_left_matters_only_when_one_more_may_start() {
    assert!(!Recycler::new(rules(), START).may_grow(), "its main process cannot be told");
    let mut recycler = Recycler::new(Rules { knows_successors: true, ..rules() }, START);
    assert!(recycler.is_idle() && recycler.may_grow());
    assert!(recycler.look(START, 2, &[worker(1, 700, 100), worker(2, 650, 900)], false, ROOM).is_some());
    assert!(!recycler.is_idle() && !recycler.may_grow(), "it starts already");
}

#[test]
fn without_memory_for_one_more_its_successor_starts_when_it_has_ended() {
    let knowing = Rules { knows_successors: true, ..rules() };
    let workers = [worker(1, 700, 100), worker(2, 650, 900)];
    let mut recycler = Recycler::new(knowing, START);
    let room = 100 * MEBI - 1;
    assert_eq!(recycler.look(START, 2, &workers, false, room), Some(Order::Dismiss(workers[1], Excess::Rss)));
    let mut recycler = Recycler::new(knowing, START);
    assert_eq!(recycler.look(START, 2, &workers, false, room + 1), Some(Order::Grow(workers[1], Excess::Rss)));
}

#[test]
fn if_a_worker_ends_before_its_successor_is_ready_the_oldest_leaves_in_its_place() {
    let mut recycler = Recycler::new(Rules { knows_successors: true, ..rules() }, START);
    let (old, big) = (worker(1, 700, 100), worker(2, 650, 900));
    assert_eq!(recycler.look(START, 2, &[old, big], false, ROOM), Some(Order::Grow(big, Excess::Rss)));
    let now = START + STEP;
    assert_eq!(recycler.look(now, 3, &[old, worker(3, 1, 50)], false, ROOM), None, "another one starts for it");
    let all = [old, worker(3, 1, 50), worker(4, 1, 50)];
    assert_eq!(recycler.look(now + STEP, 3, &all, false, ROOM), Some(Order::Withdraw(old, Excess::Rss)));
}

#[test]
fn no_worker_is_asked_to_leave_while_a_hung_one_is_being_killed() {
    let mut recycler = Recycler::new(rules(), START);
    let workers = [worker(1, 60, 900), worker(2, 60, 1)];
    assert_eq!(recycler.look(START, 2, &workers, true, ROOM), None);
    assert!(recycler.next() > START);
    assert!(recycler.look(recycler.next(), 2, &workers, false, ROOM).is_some());
}

#[test]
fn a_limit_that_is_less_than_any_worker_needs_does_not_keep_them_coming_and_going() {
    let mut recycler = Recycler::new(rules(), START);
    let mut dismissed = 0;
    let (mut now, mut number) = (START, 2);
    let mut workers = vec![worker(1, 10, 900), worker(2, 10, 900)];
    while now < START + Duration::from_hours(1) {
        if let Some(Order::Dismiss(gone, _)) = recycler.look(now, 2, &workers, false, ROOM) {
            dismissed += 1;
            number += 1;
            workers.retain(|worker| worker.id != gone.id);
            workers.push(worker(number, 0, 900));
        }
        let span = recycler.next().saturating_sub(now);
        assert!(span >= STEP);
        now += span;
        for worker in &mut workers {
            worker.age += span;
        }
    }
    assert!((10..=61).contains(&dismissed), "{dismissed} in an hour");
}

#[test]
fn the_pause_for_such_a_limit_continues_in_the_next_generation() {
    let mut recycler = Recycler::new(rules(), START);
    assert!(recycler.look(START, 2, &[worker(1, 10, 900), worker(2, 10, 900)], false, ROOM).is_some());
    let mut next = recycler.following(rules(), START + STEP);
    let as_big = [worker(3, 10, 900), worker(4, 10, 900)];
    assert_eq!(next.look(START + STEP, 2, &as_big, false, ROOM), None);
    assert!(next.look(START + YOUNG_PAUSE, 2, &as_big, false, ROOM).is_some());
}

#[test]
fn those_that_have_become_large_slowly_are_replaced_without_a_pause() {
    let mut recycler = Recycler::new(rules(), START);
    let (larger, large) = (worker(1, YOUNG.as_secs(), 901), worker(2, YOUNG.as_secs(), 900));
    let order = recycler.look(START, 2, &[larger, large], false, ROOM);
    assert_eq!(order, Some(Order::Dismiss(larger, Excess::Rss)));
    let order = recycler.look(START + STEP, 2, &[worker(3, 1, 100), large], false, ROOM);
    assert_eq!(order, Some(Order::Dismiss(large, Excess::Rss)));
}

proptest! {
    #[test]
    fn all_others_are_ready_whenever_one_is_asked_to_leave(
        seen in proptest::collection::vec((0u64..4000, 0u64..1000, any::<bool>()), 1..6),
        planned in 1usize..6,
    ) {
        let numbered = seen.iter().zip(1..);
        let workers: Vec<Sample> = numbered
            .map(|((age, size, is_ready), number)| Sample { is_ready: *is_ready, ..worker(number, *age, *size) })
            .collect();
        let mut recycler = Recycler::new(rules(), START);
        match recycler.look(START, planned, &workers, false, ROOM) {
            Some(Order::Dismiss(gone, _)) => {
                prop_assert!(planned > 1 && gone.is_ready);
                let others = workers.iter().filter(|worker| worker.is_ready && worker.id != gone.id).count();
                prop_assert!(others + 1 >= planned);
            }
            Some(Order::Renew(..)) => prop_assert_eq!(planned, 1),
            Some(_) => prop_assert!(false),
            None => {}
        }
        prop_assert!(recycler.next() > START);
    }
}

#[test]
fn a_worker_with_stuck_requests_comes_first_and_is_looked_at_again_when_it_is_old_enough() {
    let by_requests = Rules { rss: None, age: None, pace: Duration::from_secs(6), ..rules() };
    let stuck = |age| Sample { reported: Some(Excess::Stuck), ..worker(1, age, 100) };
    let spent = Sample { reported: Some(Excess::Requests), ..worker(2, 600, 100) };
    let mut recycler = Recycler::new(by_requests, START);
    assert_eq!(recycler.look(START, 2, &[stuck(4), worker(2, 600, 100)], false, ROOM), None, "too young");
    assert_eq!(recycler.next(), START + Duration::from_secs(2));
    let now = recycler.next();
    let order = recycler.look(now, 2, &[stuck(6), spent], false, ROOM);
    assert_eq!(order, Some(Order::Dismiss(stuck(6), Excess::Stuck)));
}
