//! How many requests a worker of a WSGI app handles at a time: its threads, and the limit that follows from them.
//!
//! A request occupies a thread, and a refusal needs one too. So the limit in force leaves two threads for that. Threads
//! that were set explicitly and leave fewer all serve, and nobody is refused: further requests wait in the server.

use super::RequestLimit;
use crate::problem::Origin;

/// How many are left to refuse requests.
const SPARE: u64 = 2;
/// The highest number of requests for which there are threads by default.
const MOST: u64 = 64;
/// The default without a limit.
const WITHOUT_LIMIT: u64 = 4;

/// What handles the requests in a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handlers {
    /// An event loop or greenlets: as many as the limit says.
    Unlimited,
    /// One process for one request.
    One,
    /// Threads.
    Threads(Threads),
}

/// The threads of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Threads {
    pub number: u64,
    /// Where the number was set, if it was.
    pub origin: Option<Origin>,
}

impl Threads {
    /// The default for this backpressure.
    pub const fn for_backpressure(backpressure: Option<u64>) -> Self {
        let number = match backpressure {
            Some(limit) if limit < MOST => limit + SPARE,
            Some(_) => MOST + SPARE,
            None => WITHOUT_LIMIT,
        };
        Self { number, origin: None }
    }
}

/// The limit of a worker, and what to add to its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce {
    pub limit: Option<RequestLimit>,
    pub note: Option<String>,
    /// Whether requests beyond the limit wait instead of being refused.
    pub waits: bool,
}

impl Handlers {
    /// The limit that follows from the backpressure.
    pub fn limit(&self, backpressure: Option<RequestLimit>) -> InForce {
        let within = |limit, note| InForce { limit, note, waits: false };
        let waiting =
            |limit, note: String| InForce { limit: Some(RequestLimit::Fixed(limit)), note: Some(note), waits: true };
        match (self, backpressure) {
            (Self::One, _) => {
                let why = "a sync worker handles one request at a time: further ones, also for the health path, wait in the \
                           listen queue; gthread refuses them";
                waiting(1, why.into())
            }
            (Self::Unlimited, limit) | (Self::Threads(_), limit @ None) => within(limit, None),
            (Self::Threads(Threads { number, origin }), Some(limit)) => {
                match (limit.within(number.saturating_sub(SPARE)), origin) {
                    (Some(same), _) if same == limit => within(Some(limit), None),
                    (None, Some(origin)) => waiting(
                        *number,
                        format!(
                            "{number} threads ({origin}) leave no two to refuse requests beyond {}: all of them serve, \
                             and further requests wait",
                            limit.least()
                        ),
                    ),
                    (found, _) => within(
                        Some(found.unwrap_or(RequestLimit::Fixed(number - SPARE))),
                        Some(format!("of {}, because {number} threads must leave two to refuse", limit.most())),
                    ),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(number: u64) -> Handlers {
        Handlers::Threads(Threads { number, origin: Some(Origin::Env("THREADS".into())) })
    }

    fn limit(handlers: &Handlers, backpressure: Option<u64>) -> (Option<u64>, bool) {
        let InForce { limit, waits, .. } = handlers.limit(backpressure.map(RequestLimit::Fixed));
        (limit.and_then(RequestLimit::fixed), waits)
    }

    #[test]
    fn by_default_there_are_two_threads_more_than_requests() {
        for (backpressure, number, limited) in [(None, 4, None), (Some(4), 6, Some(4)), (Some(512), 66, Some(64))] {
            let threads = Threads::for_backpressure(backpressure);
            assert_eq!(threads.number, number);
            assert_eq!(limit(&Handlers::Threads(threads), backpressure), (limited, false));
        }
    }

    #[test]
    fn explicit_threads_leave_two_or_all_serve() {
        assert_eq!(limit(&explicit(18), Some(16)), (Some(16), false));
        assert_eq!(limit(&explicit(17), Some(16)), (Some(17), true));
        assert_eq!(limit(&explicit(8), Some(512)), (Some(8), true));
        assert_eq!(limit(&explicit(8), None), (None, false));
        assert!(
            explicit(8)
                .limit(Some(RequestLimit::Fixed(512)))
                .note
                .unwrap()
                .contains("8 threads (environment THREADS)"),
            "it is said"
        );
    }

    #[test]
    fn a_sync_worker_has_one_and_greenlets_have_what_is_asked_for() {
        assert_eq!(limit(&Handlers::One, Some(16)), (Some(1), true));
        assert_eq!(limit(&Handlers::Unlimited, Some(16)), (Some(16), false));
    }

    #[test]
    fn a_limit_that_adapts_does_so_within_the_threads() {
        let auto = Some(RequestLimit::Adaptive { most: 1024 });
        let limit = |handlers: Handlers| handlers.limit(auto);
        assert_eq!(limit(Handlers::Unlimited).limit, auto);
        let threads = Threads::for_backpressure(Some(1024));
        let InForce { limit: found, note, waits } = limit(Handlers::Threads(threads));
        assert_eq!((found, waits), (Some(RequestLimit::Adaptive { most: 64 }), false));
        assert!(note.unwrap().contains("66 threads must leave two"));
        assert_eq!(limit(explicit(8)).limit, Some(RequestLimit::Adaptive { most: 6 }));
        let InForce { limit: found, note, waits } = limit(explicit(5));
        assert_eq!((found, waits), (Some(RequestLimit::Fixed(5)), true), "not even the lowest limit");
        assert!(note.unwrap().contains("beyond 4"));
    }
}
