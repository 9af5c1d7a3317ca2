mod simulation;

use nix::unistd::Pid;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { least: 4, start: 64, most: 1024 };

fn id(index: usize) -> ProcessId {
    ProcessId { pid: Pid::from_raw(i32::try_from(index).unwrap() + 10), start: 1 }
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_secs(1000) + Duration::from_millis(milliseconds)
}

/// A worker, as it reports itself every quarter of a second.
struct Reports {
    limiter: Limiter,
    sample: Sample,
}

/// What happens in such a time: requests that end and are refused, what they take in milliseconds, and the lag.
#[derive(Clone, Copy)]
struct Beat {
    ended: u32,
    took: u32,
    refused: u64,
    lag: u64,
}

impl Reports {
    fn new() -> Self {
        let mut reports = Self { limiter: Limiter::new(BOUNDS), sample: Sample { at: at(0), ..Sample::default() } };
        reports.limiter.look(&[(id(0), reports.sample)], at(0));
        reports
    }

    /// The limit after it. As many requests are in progress as follows from the rest.
    fn beat(&mut self, beat: Beat) -> u32 {
        let took = u64::from(beat.took) * 1000;
        let sample = &mut self.sample;
        sample.at += Duration::from_millis(250);
        sample.in_flight = beat.ended * beat.took / 250;
        sample.ended += beat.ended;
        sample.latency += beat.ended * beat.took * 100;
        sample.squares += u64::from(beat.ended) * took * took;
        sample.rejected += beat.refused;
        sample.lag = Duration::from_millis(beat.lag);
        self.limiter.look(&[(id(0), *sample)], sample.at)[0].1
    }

    fn because(&self) -> String {
        self.limiter.because(id(0))
    }
}

const LIGHT: Beat = Beat { ended: 125, took: 20, refused: 0, lag: 0 };
const FULL: Beat = Beat { ended: 125, took: 128, refused: 250, lag: 0 };

#[test]
fn a_limit_that_was_lowered_to_measure_the_best_is_restored_when_the_load_ends() {
    let mut reports = Reports::new();
    assert_eq!([LIGHT, LIGHT, FULL].map(|beat| reports.beat(beat)), [64; 3]);
    assert_eq!(reports.limiter.next(), None);
    assert_eq!(reports.beat(FULL), 16);
    assert!(reports.because().contains("is being measured"), "{}", reports.because());
    let due = reports.limiter.next().unwrap();
    let sample = Sample { at: at(1100), ..reports.sample };
    assert_eq!(reports.limiter.look(&[(id(0), sample)], due), [(id(0), 64)]);
    assert_eq!(reports.limiter.next(), None);
}

#[test]
fn the_least_lag_of_the_event_loop_counts_as_latency() {
    let mut reports = Reports::new();
    for beat in [LIGHT; 2] {
        reports.beat(beat);
    }
    for lag in [70, 60] {
        reports.beat(Beat { lag, ..FULL });
    }
    assert!(reports.because().contains("188ms before and 20ms at best"), "{}", reports.because());
}

#[test]
fn a_worker_that_gets_requests_in_bursts_is_not_overloaded() {
    let mut reports = Reports::new();
    let bursts = Beat { took: 60, refused: 20, ..LIGHT };
    let limits: Vec<u32> = [LIGHT; 2].into_iter().chain([bursts; 20]).map(|beat| reports.beat(beat)).collect();
    assert!(limits.is_sorted() && limits[21] > 64, "{limits:?}");
    assert!(limits[21] <= 150, "not above four times what is in progress: {limits:?}");
}

/// Latencies are counted in hundredths of a millisecond.
#[test]
fn requests_that_take_no_time_and_requests_that_take_for_ever_are_limited_too() {
    for (latency, squares, in_flight, lag) in [(0, 0, 20, 0), (u32::MAX / 20, u64::MAX / 20, u32::MAX, u32::MAX)] {
        let mut limiter = Limiter::new(BOUNDS);
        for step in 1..40_u32 {
            let sample = Sample {
                at: at(u64::from(step) * 500),
                in_flight,
                ended: step * 500,
                latency: latency * (step % 20),
                squares: squares * u64::from(step % 20),
                rejected: u64::from(step) * 500,
                lag: Duration::from_micros(lag.into()),
            };
            let limit = limiter.look(&[(id(0), sample)], sample.at)[0].1;
            assert!((BOUNDS.least..=BOUNDS.most).contains(&limit), "{limit}: {}", limiter.because(id(0)));
            assert!(limiter.next().is_none_or(|next| next <= sample.at + Duration::from_hours(1)));
        }
    }
}

#[test]
fn short_latencies_are_told_more_exactly() {
    assert_eq!([0.0051, 0.0201].map(milliseconds), ["5.1ms", "20ms"]);
}

fn any_sample() -> impl Strategy<Value = (u64, u32, u32, u32, u64, u64)> {
    (0..3000_u64, 0..200_u32, 0..500_u32, 0..5_000_000_u32, 0..50_u64, 0..3000_u64)
}

proptest! {
    #[test]
    fn whatever_workers_report_the_limit_stays_in_its_bounds_and_falls_only_with_refusals(
        steps in proptest::collection::vec(any_sample(), 1..60),
        is_refusing: bool,
        odd: u32,
    ) {
        let mut limiter = Limiter::new(BOUNDS);
        let mut sample = Sample { at: at(0), latency: odd, squares: odd.into(), ..Sample::default() };
        let mut highest = 0;
        for (pause, in_flight, ended, latency, rejected, lag) in steps {
            sample = Sample {
                at: sample.at + Duration::from_millis(pause),
                in_flight,
                ended: sample.ended.wrapping_add(ended),
                latency: sample.latency.wrapping_add(ended.wrapping_mul(latency / 10)),
                squares: sample.squares.wrapping_add(u64::from(ended) * u64::from(latency).pow(2)),
                rejected: sample.rejected + if is_refusing { rejected } else { 0 },
                lag: Duration::from_millis(lag),
            };
            let limits = limiter.look(&[(id(0), sample)], sample.at);
            prop_assert_eq!(limits.len(), 1);
            let limit = limits[0].1;
            prop_assert!((BOUNDS.least..=BOUNDS.most).contains(&limit));
            prop_assert!(is_refusing || limit >= highest, "{limit} after {highest}");
            highest = highest.max(limit);
        }
    }
}
