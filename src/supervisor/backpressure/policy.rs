//! How many requests a worker may have in progress, from what it reports while it is busy. Pure: the input is the
//! scoreboard's contents and the time.
//!
//! A gradient limit, like those of Netflix's concurrency-limits and of Envoy. While requests take no longer than at the
//! worker's best, the limit grows by its square root. If they take longer, they wait somewhere (for a connection of a pool,
//! for the event loop), and the limit shrinks in the same proportion, after a tolerance, plus the square root, which is
//! the queue that remains. What a request takes is its latency as the guard sees it, and the lag of the event loop, which
//! delays it before that.
//!
//! Other programs that take the processors delay requests too, and fewer requests do not help against that. So a limit
//! never falls below what the worker has been seen to handle: its rate of answers under overload times its best latency
//! (the product of bandwidth and delay, as in TCP's BBR). Of the lags in a window the least counts. And a latency is only
//! higher, or a rate lower, if it is by more than reports of the same window differ.
//!
//! The best has to be measured, because a slower back end must not look like a queue. So a worker that refuses requests
//! and seems to have a queue gets a lower limit for a moment ([`Dip`]). If the rate of answers stays, there was nothing but a
//! queue, and the limit is lowered again. If it falls, what requests take then is the worker's best now. A best that is
//! higher than before must be measured twice, and the lower one counts. All workers do this at the same time, because they
//! may share what makes them wait. Envoy allows three requests meanwhile, and Netflix forgets the best from time to time; a
//! lower limit costs little, since a queue is served all the same.
//!
//! The limit only shrinks where requests are refused although the worker is full most of the time. If it is not, they
//! come in bursts, for example when its event loop could not run for a moment, and the limit grows.

mod dip;
mod meter;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ProcessId;
use dip::Dip;
pub use meter::Sample;
use worker::Worker;

/// How much longer than at best requests may take before that counts as a queue.
const TOLERANCE: f64 = 1.25;

/// What a limit may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub least: u32,
    /// At first.
    pub start: u32,
    /// At most.
    pub most: u32,
}

/// The limits of the workers of one generation.
#[derive(Debug)]
pub struct Limiter {
    bounds: Bounds,
    workers: BTreeMap<ProcessId, Worker>,
}

impl Limiter {
    /// For workers with these bounds.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, workers: BTreeMap::new() }
    }

    /// Takes the latest samples of all workers that serve, and returns the limits in force.
    pub fn look(&mut self, samples: &[(ProcessId, Sample)], now: Duration) -> Vec<(ProcessId, u32)> {
        let bounds = self.bounds;
        self.workers.retain(|id, _| samples.iter().any(|(living, _)| living == id));
        let mut is_suspect = false;
        for (id, sample) in samples {
            let worker = self.workers.entry(*id).or_insert_with(|| Worker::new(bounds, *sample));
            is_suspect |= worker.take(*sample, bounds);
        }
        if self.is_dipping() {
            if self.dips().all(|dip| dip.result.is_some() || dip.ends() <= now) {
                self.workers.values_mut().for_each(|worker| worker.conclude(now, bounds));
            }
        } else if is_suspect {
            self.workers.values_mut().for_each(|worker| worker.begin_dip(now, bounds));
        }
        self.workers.iter().map(|(id, worker)| (*id, worker.in_force())).collect()
    }

    fn dips(&self) -> impl Iterator<Item = &Dip> {
        self.workers.values().filter_map(|worker| worker.dip.as_ref())
    }

    fn is_dipping(&self) -> bool {
        self.dips().next().is_some()
    }

    /// When to look again even if no worker reports anything, so that no limit stays low.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.dips().map(Dip::ends).max()
    }

    /// Why the limit of a worker is what it is.
    #[must_use]
    pub fn because(&self, worker: ProcessId) -> String {
        let found = self.workers.get(&worker);
        let Some((worker, best)) = found.and_then(|worker| Some((worker, worker.best?))) else {
            return "it has not been busy yet".into();
        };
        let best = milliseconds(best.mean);
        if let Some(dip) = worker.dip {
            return format!(
                "its best latency is being measured, {} before and {best} at best",
                milliseconds(dip.latency)
            );
        }
        let Some(latest) = worker.latest else { return format!("its best latency was measured: {best}") };
        let (mean, lag) = (milliseconds(latest.latency.mean), milliseconds(latest.lag));
        format!("latency {mean} (event loop lag {lag}), {best} at best")
    }
}

fn milliseconds(seconds: f64) -> String {
    let milliseconds = seconds * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.1}ms") } else { format!("{milliseconds:.0}ms") }
}

#[cfg(test)]
mod tests;
