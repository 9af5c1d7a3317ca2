//! A moment in which a worker has a lower limit, so that it is seen what its requests take without a queue.

use std::time::Duration;

use super::meter::{Meter, Sample, Window};

/// For how many seconds it is measured if it is not clear whether it does.
const UNCLEAR: f64 = 1.5;
/// How long a measurement of the best may take, or this many latencies.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENT_TIMES: f64 = 6.0;
const MOST_PATIENCE: Duration = Duration::from_hours(1);

/// A measurement of the best with a lower limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dip {
    pub(super) limit: f64,
    since: Duration,
    /// The limit before, and the one before the first of several dips.
    pub(super) before: f64,
    pub(super) first: f64,
    /// What the limits before led to: the latency in seconds at last, and the rate of answers on average.
    pub(super) latency: f64,
    pub(super) rate: f64,
    /// How long it took until there were no more requests than the lower limit.
    drained: Option<Duration>,
    /// Whether the requests that end now began with the lower limit.
    is_clean: bool,
    pub(super) result: Option<Window>,
}

impl Dip {
    /// From a limit to a lower one. The former leads to this rate of answers on average, and to this window at last.
    pub(super) fn begin(before: f64, limit: f64, rate: f64, window: &Window, now: Duration) -> Self {
        let latency = window.expected().mean;
        Self { limit, since: now, before, first: before, latency, rate, drained: None, is_clean: false, result: None }
    }

    /// From there to an even lower one, after this window.
    pub(super) fn next(&self, limit: f64, window: &Window, now: Duration) -> Self {
        let rate = self.rate.midpoint(window.rate);
        Self { first: self.first, ..Self::begin(self.limit, limit, rate, window, now) }
    }

    /// If the lower limit achieves this rate of answers, the rest was a queue. Without one, the rate is as much lower as the
    /// limit.
    pub(super) fn same_rate(&self) -> f64 {
        self.rate * f64::midpoint(1.0, self.limit / self.before)
    }

    pub(super) fn take(&mut self, sample: Sample, meter: &mut Meter) {
        if self.is_clean {
            let same_rate = self.same_rate();
            let is_clear = |window: &Window| {
                (window.rate - same_rate).abs() > window.rate * window.rate_error || window.seconds >= UNCLEAR
            };
            self.result = meter.window().filter(is_clear);
            return;
        }
        let elapsed = sample.at.saturating_sub(self.since);
        if f64::from(sample.in_flight) > self.limit {
            return;
        }
        // Those that ended until then, and as long afterwards, had waited behind more requests.
        let drained = *self.drained.get_or_insert(elapsed);
        if elapsed >= (2 * drained).min(seconds(self.latency)) {
            self.is_clean = true;
            *meter = Meter::new(sample);
        }
    }

    /// When it ends without a result.
    pub(super) fn ends(&self) -> Duration {
        self.since + PATIENCE.max(seconds(PATIENT_TIMES * self.latency))
    }
}

/// The numbers come from workers, which may write anything.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number.min(MOST_PATIENCE.as_secs_f64())).unwrap_or(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    /// From a limit of 64 to this one, at which there are no requests from before any more.
    fn clean(limit: f64, rate: f64) -> Dip {
        Dip { is_clean: true, ..Dip::begin(64.0, limit, rate, &Window::BUSY, START) }
    }

    /// For how many milliseconds it is measured if this many requests end in each quarter of a second.
    fn measured(mut dip: Dip, ended: u32) -> u64 {
        let mut sample = Sample { at: START, ..Sample::default() };
        let mut meter = Meter::new(sample);
        (250..5000)
            .step_by(250)
            .find(|milliseconds| {
                sample.at = START + Duration::from_millis(*milliseconds);
                (sample.ended, sample.latency) = (sample.ended + ended, sample.latency + ended * 2000);
                sample.squares += u64::from(ended) * 20_000 * 20_000;
                meter.add(sample);
                dip.take(sample, &mut meter);
                dip.result.is_some()
            })
            .unwrap()
    }

    #[test]
    fn a_rate_half_way_to_one_as_much_lower_as_the_limit_is_the_same() {
        assert!((clean(16.0, 100.0).same_rate() - 62.5).abs() < 1e-6);
    }

    #[test]
    fn it_is_measured_longer_if_it_is_not_clear_whether_the_rate_stays() {
        assert_eq!(measured(clean(64.0, 40.0), 20), 500, "it is twice as high");
        assert_eq!(measured(clean(64.0, 40.0), 5), 500, "it is half as high");
        assert_eq!(measured(clean(64.0, 40.0), 10), 1500, "it is what it has to be");
    }

    #[test]
    fn it_waits_for_requests_that_take_long() {
        let ends = |mean| {
            let mut window = Window::BUSY;
            window.latency.mean = mean;
            Dip::begin(64.0, 16.0, 100.0, &window, START).ends()
        };
        assert_eq!([0.02, 2.0].map(ends), [PATIENCE, Duration::from_secs(12)].map(|patience| START + patience));
    }
}
