//! One worker: its limit, and what is known of it.

use std::time::Duration;

use super::dip::Dip;
use super::meter::{Latency, Meter, Sample, Window};
use super::{Bounds, TOLERANCE};

/// The lowest factor by which a limit changes at a time.
const STEEPEST: f64 = 0.5;
/// From which excess on the best is measured again.
const SUSPECT: f64 = 1.2;
/// Up to which excess requests take as long as at best.
const NONE: f64 = 1.1;
/// The part of the rate of answers from which on it is obvious that a lower limit achieves the same.
const OBVIOUS: f64 = 0.9;
/// The interval between two measurements of the best. It begins again with the first if there was a queue, and doubles if
/// there was none; if requests suddenly take much longer, it is shorter.
const CHECK_FIRST: Duration = Duration::from_secs(2);
const CHECK_SOON: Duration = Duration::from_secs(2);
const CHECK_AGAIN: Duration = Duration::from_secs(8);
/// How far the known rate of answers moves to a higher one with each window in which there was overload, and to a lower one.
const RISES: f64 = 0.3;
const FADES: f64 = 0.05;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    limit: f64,
    meter: Meter,
    /// The lowest latency, and when it was measured with half the limit.
    pub(super) best: Option<Latency>,
    checked: Option<Duration>,
    /// When the next measurement is due after that.
    interval: Duration,
    /// A best that is higher than the one before, and has yet to be confirmed.
    higher: Option<Latency>,
    /// The rate of answers under overload: on average, of so many windows; and the one that it is known to handle, which
    /// follows a lower one slowly, because that may be the limit's own doing.
    usual: f64,
    windows: f64,
    peak: f64,
    /// The last window.
    pub(super) latest: Option<Window>,
    pub(super) dip: Option<Dip>,
}

impl Worker {
    pub(super) fn new(bounds: Bounds, sample: Sample) -> Self {
        let limit = f64::from(bounds.start);
        let meter = Meter::new(sample);
        Self {
            limit,
            meter,
            best: None,
            checked: None,
            interval: CHECK_FIRST,
            higher: None,
            usual: 0.0,
            windows: 0.0,
            peak: 0.0,
            latest: None,
            dip: None,
        }
    }

    /// Takes a sample, and returns whether the best should be measured.
    pub(super) fn take(&mut self, sample: Sample, bounds: Bounds) -> bool {
        if !self.meter.add(sample) {
            return false;
        }
        if let Some(dip) = &mut self.dip {
            if dip.result.is_none() {
                dip.take(sample, &mut self.meter);
            }
            return false;
        }
        let Some(window) = self.meter.window() else { return false };
        self.meter = Meter::new(sample);
        self.judge(window, bounds)
    }

    /// Adjusts the limit to what happened, unless the best should be measured first.
    fn judge(&mut self, window: Window, bounds: Bounds) -> bool {
        self.latest = Some(window);
        let best = self.best_with(window.latency);
        if window.is_overload(self.limit) {
            self.handles(window.rate);
            let excess = window.expected().excess(best);
            let (interval, suspect) = self.check(excess);
            if self.checked.is_none_or(|at| window.end.saturating_sub(at) >= interval) {
                if !self.can_dip(bounds) {
                    self.set_best(window.latency, window.end);
                } else if excess > suspect {
                    return true;
                }
            }
        }
        let wanted = self.wanted(&window, best);
        let is_used = window.refused > 0.0 || window.busy >= self.limit / 2.0;
        if window.refuses_while_full(self.limit) || is_used && wanted > self.limit {
            self.set(wanted, bounds);
        } else if window.has_bursts(self.limit) {
            self.set(self.grown(), bounds);
        }
        false
    }

    /// Takes a rate of answers under overload.
    fn handles(&mut self, rate: f64) {
        self.windows += 1.0;
        self.usual += RISES.max(1.0 / self.windows) * (rate - self.usual);
        self.peak += if rate > self.peak { RISES.max(1.0 / self.windows) } else { FADES } * (rate - self.peak);
    }

    /// The best, after requests took this long.
    fn best_with(&mut self, latency: Latency) -> Latency {
        match self.best {
            Some(best) if latency.high() >= best.mean => best,
            best => {
                // Much lower than what was measured: the back end has changed.
                self.checked =
                    self.checked.filter(|_| best.is_some_and(|best| TOLERANCE * latency.high() > best.mean));
                self.higher = None;
                *self.best.insert(latency)
            }
        }
    }

    /// The time between two measurements of the best, and the excess from which on it is measured.
    fn check(&self, excess: f64) -> (Duration, f64) {
        match self.checked {
            None => (Duration::ZERO, 0.0),
            Some(_) if excess > TOLERANCE / STEEPEST => (self.interval.min(CHECK_SOON), SUSPECT),
            Some(_) => (self.interval, SUSPECT),
        }
    }

    /// The limit that a window asks for.
    fn wanted(&self, window: &Window, best: Latency) -> f64 {
        let (ratio, excess) = (window.expected().ratio(best), window.expected().excess(best));
        if ratio <= NONE {
            return self.grown();
        }
        if ratio > TOLERANCE && excess <= TOLERANCE {
            // It may have changed, but that is not certain.
            return self.limit;
        }
        let shrunk = self.limit * (TOLERANCE / excess).clamp(STEEPEST, 1.0) + self.limit.sqrt();
        shrunk.max(self.handled(best).min(self.limit))
    }

    /// What the worker has been seen to handle without a queue, and a small queue.
    fn handled(&self, best: Latency) -> f64 {
        TOLERANCE * self.peak * best.mean + self.limit.sqrt()
    }

    fn grown(&self) -> f64 {
        self.limit + self.limit.sqrt().max(self.limit / 4.0)
    }

    fn set(&mut self, limit: f64, bounds: Bounds) {
        self.limit = limit.clamp(bounds.least.into(), bounds.most.into());
    }

    fn set_best(&mut self, latency: Latency, now: Duration) {
        self.best = Some(latency);
        self.checked = Some(now);
        self.higher = None;
    }

    /// Whether there is room for a lower limit.
    fn can_dip(&self, bounds: Bounds) -> bool {
        self.limit >= TOLERANCE * f64::from(bounds.least)
    }

    /// A limit with which the best can be measured. As long as nothing is known, the steps are larger; if requests take as
    /// long as at best already, they are smaller.
    fn lowered(&self, limit: f64, latency: Latency, bounds: Bounds) -> f64 {
        let part = match self.checked.and(self.best) {
            None => 0.25,
            Some(best) if latency.is_about(best) => 0.7,
            Some(_) => 0.5,
        };
        (part * limit).max(bounds.least.into())
    }

    /// Begins to measure the best, if the worker is overloaded.
    pub(super) fn begin_dip(&mut self, now: Duration, bounds: Bounds) {
        let Some(latest) = self.latest.filter(|latest| latest.is_overload(self.limit)) else { return };
        if self.can_dip(bounds) {
            let lower = self.lowered(self.limit, latest.latency, bounds);
            self.dip = Some(Dip::begin(self.limit, lower, self.usual, &latest, now));
        }
    }

    /// Ends the measurement, or begins the next one with an even lower limit.
    pub(super) fn conclude(&mut self, now: Duration, bounds: Bounds) {
        let Some(dip) = self.dip.take() else { return };
        self.meter = Meter::new(self.meter.last);
        self.limit = dip.before;
        // Without refusals there is no overload any more, and nothing was measured.
        let Some(window) = dip.result.filter(|window| window.refused > 0.0) else { return };
        if dip.limit > bounds.least.into() && self.had_queue(&dip, &window) {
            self.limit = dip.limit;
            self.dip = Some(dip.next(self.lowered(dip.limit, window.latency, bounds), &window, now));
            return;
        }
        (self.usual, self.peak) = (dip.rate, dip.rate);
        self.latest = None;
        let Some(best) = self.confirmed(window.latency) else {
            (self.checked, self.interval) = (Some(now), CHECK_FIRST);
            return;
        };
        let is_new = self.best.is_none_or(|before| !best.is_about(before));
        self.set_best(best, now);
        self.interval = if is_new { CHECK_FIRST } else { CHECK_AGAIN.min(2 * self.interval) };
        self.set(self.handled(best).min(dip.first), bounds);
    }

    /// Whether the limit before the dip let requests wait. If they take as long as at best, that must be obvious.
    fn had_queue(&self, dip: &Dip, lower: &Window) -> bool {
        let is_best = self.checked.and(self.best).is_some_and(|best| lower.latency.is_about(best));
        lower.rate >= dip.same_rate() && (!is_best || lower.rate >= OBVIOUS * dip.rate)
    }

    /// What was measured, unless it is higher than the best before, for the first time.
    fn confirmed(&mut self, found: Latency) -> Option<Latency> {
        let is_higher = self.checked.and(self.best).is_some_and(|best| found.ratio(best) > TOLERANCE);
        match self.higher.take() {
            None if is_higher => {
                self.higher = Some(found);
                None
            }
            Some(before) if is_higher => Some(found.least(before)),
            _ => Some(found),
        }
    }

    pub(super) fn in_force(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between the bounds")]
        let whole = self.dip.map_or(self.limit, |dip| dip.limit) as u32;
        whole
    }
}

#[cfg(test)]
mod tests;
