//! How many requests there are, and how long they take.

use serde::{Deserialize, Serialize};

/// The outcome of requests, including event streams and web sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Requests that the app has finished. Up to date to within a second.
    pub served: u64,
    /// Requests that were answered 503 because the worker was at its limit.
    pub rejected: u64,
}

/// How long requests took, from when the worker had them to the end of what the app did for them. Without those that were
/// refused, open event streams that answer a GET, web sockets, the health path and exempt ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many requests there were.
    pub count: u64,
    /// The sum.
    pub sum_seconds: f64,
    /// How many took at most so long, shortest first.
    pub buckets: Vec<Bucket>,
}

/// How many requests took at most so long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// How long, in seconds.
    pub le: f64,
    /// How many, those of the buckets before included.
    pub count: u64,
}

/// What happened in about the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// How long it was exactly: less than ten if the worker is younger.
    pub seconds: f64,
    /// Requests that the app has finished.
    pub requests_per_second: f64,
    /// Requests that were refused.
    pub rejected_per_second: f64,
    /// Half of the requests that ended, of those in the histogram, took at most so long. None if there was none.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took at most so long.
    pub p99_seconds: Option<f64>,
}
