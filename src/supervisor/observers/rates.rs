//! How long requests take and how many there are, as it is reported. Pure.

use crate::control::protocol::{Bucket, Histogram, Recent};
use crate::guard::scoreboard::durations::{BOUNDS, Durations, Window};

/// All requests since the start.
pub(super) fn histogram(durations: &Durations) -> Histogram {
    let mut count = 0;
    let buckets = BOUNDS.iter().zip(durations.buckets).map(|(le, within)| {
        count += within;
        Bucket { le: *le, count }
    });
    Histogram { buckets: buckets.collect(), count: durations.count(), sum_seconds: durations.sum.as_secs_f64() }
}

/// The last seconds.
pub(super) fn recent(window: &Window) -> Recent {
    let quantile = |part| window.durations.quantile(part).map(|seconds| rounded(seconds, 1e6));
    Recent {
        seconds: rounded(window.length.as_secs_f64(), 1e3),
        requests_per_second: rounded(window.served, 1e3),
        rejected_per_second: rounded(window.rejected, 1e3),
        p50_seconds: quantile(0.5),
        p99_seconds: quantile(0.99),
    }
}

/// To so many parts of one.
fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_histogram_counts_upwards_and_has_all_in_its_count() {
        let mut durations = Durations { sum: Duration::from_millis(250_004), ..Durations::default() };
        durations.buckets[0] = 3;
        durations.buckets[6] = 4;
        durations.buckets[BOUNDS.len()] = 2;
        let histogram = histogram(&durations);
        let at = |index: usize| (histogram.buckets[index].le, histogram.buckets[index].count);
        assert_eq!([at(0), at(5), at(6), at(36)], [(0.0001, 3), (0.0007, 3), (0.001, 7), (100.0, 7)]);
        assert_eq!((histogram.count, histogram.sum_seconds), (9, 250.004));
    }

    #[test]
    fn without_requests_there_is_no_latency() {
        let length = Duration::from_micros(10_250_400);
        let idle = recent(&Window { length, ..Window::default() });
        assert_eq!(idle, Recent { seconds: 10.25, ..Recent::default() });
        let mut busy = Window { length, served: 12.345_67, rejected: 0.5, ..Window::default() };
        busy.durations.buckets[15] = 3;
        let busy = recent(&busy);
        assert_eq!((busy.requests_per_second, busy.rejected_per_second), (12.346, 0.5));
        assert_eq!((busy.p50_seconds, busy.p99_seconds), (Some(0.025), Some(0.0299)));
    }
}
