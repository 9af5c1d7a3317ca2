use super::*;

const BOUNDS: Bounds = Bounds { least: 4, start: 64, most: 1024 };
const NOW: Duration = Duration::from_secs(1000);
/// A window of a worker that is full and refuses requests, which take as long as at best.
const FULL: Window = Window { refused: 100.0, end: NOW, ..Window::BUSY };

fn taking(mean: f64) -> Latency {
    Latency { mean, error: 0.0 }
}

/// A worker whose best was measured just now.
fn known() -> Worker {
    let mut worker = Worker::new(BOUNDS, Sample::default());
    worker.set_best(taking(0.02), NOW);
    worker
}

/// One that had the limit 64 and answered 100 requests per second, and has a lower limit for a moment.
fn dipping(limit: f64, best: Option<Latency>) -> (Worker, Dip) {
    let mut worker = Worker::new(BOUNDS, Sample::default());
    if let Some(best) = best {
        worker.set_best(best, NOW);
    }
    let dip = Dip::begin(64.0, limit, 100.0, &FULL, NOW);
    worker.dip = Some(dip);
    (worker, dip)
}

#[test]
fn the_limit_shrinks_if_requests_take_longer_and_some_are_refused() {
    let mut worker = known();
    assert!(!worker.judge(Window { latency: taking(0.1), ..FULL }, BOUNDS), "measured just now");
    assert!(worker.limit < 64.0, "{}", worker.limit);
}

#[test]
fn the_limit_grows_if_it_is_used_by_half_and_requests_take_no_longer_than_at_best() {
    for (busy, grows) in [(20.0, false), (40.0, true)] {
        let mut worker = known();
        worker.judge(Window { busy, ..Window::BUSY }, BOUNDS);
        assert_eq!(worker.limit > 64.0, grows, "{busy} in progress");
    }
}

#[test]
fn the_limit_grows_for_short_bursts_if_requests_take_no_longer_than_at_best() {
    let mut worker = known();
    worker.judge(Window { busy: 2.0, ..FULL }, BOUNDS);
    assert!(worker.limit > 64.0, "{}", worker.limit);
}

#[test]
fn a_latency_that_is_higher_without_certainty_changes_nothing() {
    let worker = known();
    let latency = Latency { mean: 0.06, error: 0.04 };
    let wanted = worker.wanted(&Window { latency, ..FULL }, taking(0.02));
    assert!((wanted - worker.limit).abs() < 1e-6, "{wanted}");
}

#[test]
fn the_limit_never_shrinks_below_what_the_worker_was_seen_to_handle() {
    let mut worker = known();
    worker.handles(2000.0);
    let wanted = worker.wanted(&Window { latency: taking(1.0), ..FULL }, taking(0.02));
    assert!(wanted >= 2000.0 * 0.02 * TOLERANCE, "{wanted}");
}

#[test]
fn the_rate_that_it_handles_rises_soon_and_fades_slowly() {
    let mut worker = known();
    (0..10).for_each(|_| worker.handles(100.0));
    assert!((99.0..101.0).contains(&worker.peak), "{}", worker.peak);
    worker.handles(200.0);
    assert!((125.0..135.0).contains(&worker.peak), "{}", worker.peak);
    worker.handles(100.0);
    assert!((125.0..130.0).contains(&worker.peak), "{}", worker.peak);
}

#[test]
fn a_latency_far_below_the_best_has_it_measured_again() {
    for (mean, is_checked) in [(0.018, true), (0.005, false)] {
        let mut worker = known();
        assert_eq!(worker.best_with(taking(mean)), taking(mean));
        assert_eq!(worker.checked.is_some(), is_checked, "{mean} instead of 0.02");
    }
}

#[test]
fn at_the_least_limit_what_requests_take_is_the_best() {
    for (start, is_measured) in [(4, false), (5, true)] {
        let bounds = Bounds { start, ..BOUNDS };
        let mut worker = Worker::new(bounds, Sample::default());
        assert_eq!(worker.judge(FULL, bounds), is_measured, "with a limit of {start}");
        assert_eq!(worker.checked.is_none(), is_measured);
    }
}

#[test]
fn a_queue_leads_to_an_even_lower_limit_down_to_the_least() {
    for (limit, next) in [(16.0, Some(4)), (4.0, None)] {
        let (mut worker, mut dip) = dipping(limit, None);
        dip.result = Some(FULL);
        worker.dip = Some(dip);
        worker.conclude(NOW, BOUNDS);
        assert_eq!(worker.dip.map(|_| worker.in_force()), next, "after {limit}");
    }
}

#[test]
fn where_requests_take_as_long_as_at_best_a_queue_must_be_obvious() {
    let had_queue = |best, rate| {
        let (worker, dip) = dipping(16.0, best);
        worker.had_queue(&dip, &Window { rate, ..FULL })
    };
    assert_eq!([50.0, 80.0, 95.0].map(|rate| had_queue(None, rate)), [false, true, true]);
    assert_eq!([50.0, 80.0, 95.0].map(|rate| had_queue(Some(taking(0.02)), rate)), [false, false, true]);
}

#[test]
fn a_higher_best_must_be_measured_twice_and_the_lower_one_counts() {
    for second in [0.04, 0.05] {
        let mut worker = known();
        assert_eq!(worker.confirmed(taking(0.04)), None);
        assert_eq!(worker.confirmed(taking(second)), Some(taking(0.04)));
    }
    assert_eq!(known().confirmed(taking(0.024)), Some(taking(0.024)), "it is about the same");
}
