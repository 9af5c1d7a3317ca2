//! What a worker reports, and what follows from several such reports: how long requests take.

use std::time::Duration;

use super::TOLERANCE;

/// The share of requests that are refused from which on a worker is overloaded.
const OVERLOAD: f64 = 0.05;
/// The part of the limit that is in use on average when a worker is full. A worker that refuses requests with less than
/// that gets them in bursts, for example because its event loop could not run for a moment.
const FULL: f64 = 0.7;
const BURSTS: f64 = 0.25;
/// A window ends when the standard error is this part of the mean, or after this many seconds.
const EXACT: f64 = 0.1;
const LONG_ENOUGH: f64 = 1.0;
/// The fewest reports in a window: from one alone it cannot be seen how much they differ.
const FEWEST: u32 = 2;
/// The shortest window in seconds: heartbeats come every quarter of a second.
const SHORTEST: f64 = 0.2;
/// No request takes less, in seconds. What is divided by the best would otherwise be no number.
const SMALLEST: f64 = 1e-6;
/// After a pause of this length, a window starts anew.
const PAUSE: Duration = Duration::from_secs(1);

/// What a worker has reported. The sums grow from its start on, and wrap around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, on the scoreboard's clock.
    pub at: Duration,
    /// Requests in progress.
    pub in_flight: u32,
    /// Requests that have ended.
    pub ended: u32,
    /// The sum of their latencies in hundredths of a millisecond.
    pub latency: u32,
    /// The sum of the squares of these, in square microseconds.
    pub squares: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// The event loop's latest lag.
    pub lag: Duration,
}

/// What requests take on average, in seconds, and the standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) error: f64,
}

impl Latency {
    pub(super) fn low(self) -> f64 {
        (self.mean - self.error).max(self.mean / 4.0)
    }

    pub(super) fn high(self) -> f64 {
        self.mean + self.error
    }

    /// How many times as long as the best this is, as far as that is certain.
    pub(super) fn excess(self, best: Self) -> f64 {
        self.low() / best.high()
    }

    /// The same, whether or not it is certain.
    pub(super) fn ratio(self, best: Self) -> f64 {
        self.mean / best.mean
    }

    /// Whether the two may be the same, with a tolerance.
    pub(super) fn is_about(self, other: Self) -> bool {
        self.excess(other) <= TOLERANCE && other.excess(self) <= TOLERANCE
    }

    pub(super) fn least(self, other: Self) -> Self {
        if other.mean < self.mean { other } else { self }
    }
}

/// What happened in some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    pub(super) latency: Latency,
    /// The part of it that is the event loop's lag: the least that was reported, because other programs cause more of it.
    pub(super) lag: f64,
    /// How many requests were in progress on average.
    pub(super) busy: f64,
    /// What requests will take that begin now, from their number and how fast they end.
    pub(super) outlook: f64,
    /// Requests that ended, per second, and the part of that which is uncertain.
    pub(super) rate: f64,
    pub(super) rate_error: f64,
    /// Requests that were refused, per second.
    pub(super) refused: f64,
    pub(super) seconds: f64,
    pub(super) end: Duration,
}

impl Window {
    /// What requests take, or will take: the latency lags behind an overload that has just begun.
    pub(super) fn expected(&self) -> Latency {
        let mean = if self.refused > 0.0 { self.latency.mean.max(self.outlook) } else { self.latency.mean };
        Latency { mean, ..self.latency }
    }

    /// Whether more requests come than a worker with this limit can handle, and not only in bursts.
    pub(super) fn is_overload(&self, limit: f64) -> bool {
        self.refused > OVERLOAD * (self.refused + self.rate) && self.refuses_while_full(limit)
    }

    pub(super) fn refuses_while_full(&self, limit: f64) -> bool {
        self.refused > 0.0 && self.busy >= FULL * limit
    }

    /// Whether requests are refused although the limit is in use only now and then. If it hardly is, the refused ones were
    /// something else, for example event streams.
    pub(super) fn has_bursts(&self, limit: f64) -> bool {
        self.refused > 0.0 && (BURSTS * limit..FULL * limit).contains(&self.busy)
    }
}

/// Collects samples for a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    base: Sample,
    pub(super) last: Sample,
    /// In seconds, as the lag; and in square seconds.
    latency: f64,
    squares: f64,
    lag: f64,
    in_flight: f64,
    beats: u32,
    between: Spread,
    rates: Spread,
}

/// How much reports differ: the sums of their weights, of these with the value, and with its square. Requests of one report
/// are alike, because what delays one of them delays the others.
#[derive(Debug, Clone, Copy)]
struct Spread {
    reports: f64,
    weight: f64,
    sum: f64,
    squares: f64,
}

impl Spread {
    const NONE: Self = Self { reports: 0.0, weight: 0.0, sum: 0.0, squares: 0.0 };

    /// Adds a sum, and in how many parts it is.
    fn add(&mut self, weight: f64, sum: f64) {
        if weight > 0.0 {
            self.reports += 1.0;
            self.weight += weight;
            self.sum += sum;
            self.squares += sum * sum / weight;
        }
    }

    /// The standard error of the mean of all.
    fn error(&self) -> f64 {
        if self.reports < 2.0 {
            return 0.0;
        }
        let mean = self.sum / self.weight;
        let variance = (self.squares / self.weight - mean * mean).max(0.0);
        (variance / (self.reports - 1.0)).sqrt()
    }
}

impl Meter {
    pub(super) const fn new(sample: Sample) -> Self {
        Self {
            base: sample,
            last: sample,
            latency: 0.0,
            squares: 0.0,
            lag: f64::INFINITY,
            in_flight: 0.0,
            beats: 0,
            between: Spread::NONE,
            rates: Spread::NONE,
        }
    }

    /// Adds a sample, unless it is known.
    #[allow(clippy::cast_precision_loss, reason = "what is added in a moment is small")]
    pub(super) fn add(&mut self, sample: Sample) -> bool {
        if sample.at <= self.last.at {
            return false;
        }
        if sample.at.saturating_sub(self.last.at).saturating_sub(sample.lag) > PAUSE {
            *self = Self::new(sample);
        } else {
            let latency = f64::from(sample.latency.wrapping_sub(self.last.latency)) / 1e5;
            let ended = f64::from(sample.ended.wrapping_sub(self.last.ended));
            self.between.add(ended, latency);
            self.rates.add(sample.at.saturating_sub(self.last.at).as_secs_f64(), ended);
            self.latency += latency;
            self.squares += sample.squares.wrapping_sub(self.last.squares) as f64 / 1e12;
            self.last = sample;
            self.lag = self.lag.min(sample.lag.as_secs_f64());
            self.in_flight += f64::from(sample.in_flight);
            self.beats += 1;
        }
        true
    }

    /// The window up to now, if it is long enough.
    #[allow(clippy::cast_precision_loss, reason = "so many requests are not refused in a window")]
    pub(super) fn window(&self) -> Option<Window> {
        let (from, to) = (&self.base, &self.last);
        let seconds = to.at.saturating_sub(from.at).as_secs_f64();
        let count = to.ended.wrapping_sub(from.ended);
        if count == 0 || self.beats < FEWEST {
            return None;
        }
        let (ended, in_flight, lag) = (f64::from(count), self.in_flight / f64::from(self.beats), self.lag);
        let mean = self.latency / ended;
        let deviation = (self.squares / ended - mean * mean).max(0.0).sqrt();
        // The time in which most requests end.
        let most = mean + 2.0 * deviation;
        let error = (deviation / ended.sqrt()).max(self.between.error());
        let is_exact = error <= EXACT * mean && seconds >= SHORTEST.max(most);
        if !is_exact && seconds < LONG_ENOUGH.max(2.0 * most) {
            return None;
        }
        let latency = Latency { mean: (mean + lag).max(SMALLEST), error };
        let (rate, refused) = (ended / seconds, to.rejected.saturating_sub(from.rejected) as f64 / seconds);
        let (busy, outlook) = ((self.latency / seconds).max(in_flight), in_flight / rate + lag);
        let rate_error = self.rates.error() / rate;
        Some(Window { latency, lag, busy, outlook, rate, rate_error, refused, seconds, end: to.at })
    }
}

#[cfg(test)]
impl Window {
    /// Of a worker that has 64 requests in progress all the time and refuses none.
    pub(super) const BUSY: Self = Self {
        latency: Latency { mean: 0.02, error: 0.0 },
        lag: 0.0,
        busy: 64.0,
        outlook: 0.02,
        rate: 100.0,
        rate_error: 0.0,
        refused: 0.0,
        seconds: 1.0,
        end: Duration::from_secs(1000),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-6
    }

    /// Reports every so many milliseconds, each of requests that took so many.
    struct Reports {
        meter: Meter,
        sample: Sample,
    }

    impl Reports {
        fn new() -> Self {
            let sample = Sample { at: Duration::from_secs(1000), ..Sample::default() };
            Self { meter: Meter::new(sample), sample }
        }

        fn add(&mut self, after: u64, took: &[u32], extra: Sample) -> Option<Window> {
            self.sample = Sample {
                at: self.sample.at + Duration::from_millis(after),
                ended: self.sample.ended + u32::try_from(took.len()).unwrap(),
                latency: self.sample.latency + took.iter().map(|took| took * 100).sum::<u32>(),
                squares: self.sample.squares + took.iter().map(|took| (u64::from(*took) * 1000).pow(2)).sum::<u64>(),
                rejected: self.sample.rejected + extra.rejected,
                ..extra
            };
            assert!(self.meter.add(self.sample));
            self.meter.window()
        }
    }

    #[test]
    fn what_differs_by_less_than_the_reports_do_is_no_excess() {
        let (best, higher) = (Latency { mean: 1.0, error: 0.25 }, Latency { mean: 2.0, error: 0.5 });
        assert!(is_near(higher.excess(best), 1.2) && is_near(higher.ratio(best), 2.0));
        let hardly_known = Latency { mean: 2.0, error: 10.0 };
        assert!(is_near(hardly_known.low(), 0.5), "a latency is never nothing");
    }

    #[test]
    fn the_lower_of_two_is_the_least_in_either_order() {
        let (low, high) = (Latency { mean: 1.0, error: 0.0 }, Latency { mean: 2.0, error: 0.0 });
        assert_eq!((low.least(high), high.least(low)), (low, low));
    }

    #[test]
    fn what_requests_will_take_counts_only_if_some_are_refused() {
        let window = Window { outlook: 0.5, ..Window::BUSY };
        assert!(is_near(window.expected().mean, 0.02));
        assert!(is_near(Window { refused: 1.0, ..window }.expected().mean, 0.5));
    }

    #[test]
    fn one_refusal_in_twenty_is_an_overload_if_the_worker_is_full() {
        let refusing = |refused| Window { refused, ..Window::BUSY };
        assert!(!refusing(5.0).is_overload(64.0) && refusing(6.0).is_overload(64.0));
        assert!(!refusing(6.0).is_overload(128.0), "it is half full");
    }

    #[test]
    fn bursts_use_the_limit_now_and_then() {
        let has_bursts = |busy| Window { refused: 1.0, busy, ..Window::BUSY }.has_bursts(64.0);
        assert_eq!([10.0, 20.0, 40.0, 50.0].map(has_bursts), [false, true, true, false]);
        assert!(!Window { busy: 20.0, ..Window::BUSY }.has_bursts(64.0), "none is refused");
    }

    #[test]
    fn the_mean_is_as_uncertain_as_reports_differ_and_those_without_requests_do_not_count() {
        let mut spread = Spread::NONE;
        spread.add(1.0, 1.0);
        assert!(is_near(spread.error(), 0.0), "one alone tells nothing");
        spread.add(0.0, 0.0);
        spread.add(1.0, 3.0);
        assert!(is_near(spread.error(), 1.0));
        spread.add(1.0, 2.0);
        assert!(is_near(spread.error(), (1.0_f64 / 3.0).sqrt()));
    }

    #[test]
    fn the_mean_is_also_as_uncertain_as_requests_differ() {
        let mut reports = Reports::new();
        let window = (0..5).find_map(|_| reports.add(250, &[10, 30], Sample::default())).unwrap();
        assert!(is_near(window.latency.mean, 0.02) && is_near(window.latency.error, 0.01 / 8.0_f64.sqrt()));
    }

    #[test]
    fn a_window_is_long_enough_for_most_requests_to_end_twice() {
        let mut reports = Reports::new();
        let found = [1, 2, 3].map(|_| reports.add(1000, &[750, 1250], Sample::default()).is_some());
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn what_happened_is_counted_by_the_second() {
        let mut reports = Reports::new();
        let extra = Sample { in_flight: 10, rejected: 2, lag: Duration::from_millis(100), ..Sample::default() };
        assert_eq!(reports.add(250, &[20; 5], extra), None);
        let window = reports.add(250, &[20; 5], extra).unwrap();
        assert!(is_near(window.rate, 20.0) && is_near(window.refused, 8.0) && is_near(window.seconds, 0.5));
        assert!(is_near(window.outlook, 10.0 / 20.0 + 0.1), "as many are in progress, and the event loop lags");
    }

    #[test]
    fn how_many_were_in_progress_between_reports_follows_from_what_they_took() {
        let mut reports = Reports::new();
        let windows = [1, 2].map(|_| reports.add(250, &[100; 5], Sample::default()));
        assert!(is_near(windows[1].unwrap().busy, 2.0), "{windows:?}");
    }

    #[test]
    fn after_a_pause_a_window_begins_anew_unless_the_event_loop_was_late() {
        for (lag, is_known) in [(0, false), (500, true)] {
            let mut reports = Reports::new();
            reports.add(250, &[20; 5], Sample::default());
            let extra = Sample { lag: Duration::from_millis(lag), ..Sample::default() };
            assert_eq!(reports.add(1200, &[20; 5], extra).is_some(), is_known, "{lag} ms late");
        }
    }
}
