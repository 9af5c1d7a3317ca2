//! The order of the steps: the servers alternate, so that a machine that drifts favours neither. Pure.

use std::time::Duration;

use super::options::Options;
use crate::settings::value::Server;

/// One start of a server and what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleStep {
    /// Started, to see whether its response is worth measuring.
    Try(Server),
    /// Started and measured with each number of connections; in the last round also reloaded under load.
    Round(Server, u32),
    /// Started and overloaded.
    Stress(Server, u32),
}

impl ScheduleStep {
    /// The server.
    #[must_use]
    pub const fn server(self) -> Server {
        match self {
            Self::Try(server) | Self::Round(server, _) | Self::Stress(server, _) => server,
        }
    }
}

/// Every step, in order.
#[must_use]
pub fn schedule(servers: &[Server], rounds: u32) -> Vec<ScheduleStep> {
    let tries = servers.iter().map(|server| ScheduleStep::Try(*server));
    let rounds = (1..=rounds).flat_map(|round| {
        let measured = servers.iter().map(move |server| ScheduleStep::Round(*server, round));
        measured.chain(servers.iter().map(move |server| ScheduleStep::Stress(*server, round)))
    });
    tries.chain(rounds).collect()
}

/// The load before the first measurement after a start, which is not counted.
#[must_use]
pub fn warm_up(duration: Duration) -> Duration {
    (duration / 4).min(Duration::from_secs(1)).max(Duration::from_millis(100))
}

/// How long a client waits for a response during the overload.
#[must_use]
pub fn patience(duration: Duration) -> Duration {
    (duration / 2).max(Duration::from_secs(1))
}

/// How long the overload lasts: long enough for some clients to give up.
#[must_use]
pub fn overload(duration: Duration) -> Duration {
    duration.max(2 * patience(duration))
}

/// How long the load of a step lasts; starts and stops come on top.
#[must_use]
pub fn load_time(step: ScheduleStep, options: &Options) -> Duration {
    let levels = u32::try_from(options.connections.len()).unwrap_or(u32::MAX);
    match step {
        ScheduleStep::Try(_) => Duration::ZERO,
        ScheduleStep::Round(..) => warm_up(options.duration) + options.duration * levels,
        ScheduleStep::Stress(..) => overload(options.duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Server::{Granian, Gunicorn};

    #[test]
    fn servers_take_turns() {
        let wanted = [
            ScheduleStep::Try(Gunicorn),
            ScheduleStep::Try(Granian),
            ScheduleStep::Round(Gunicorn, 1),
            ScheduleStep::Round(Granian, 1),
            ScheduleStep::Stress(Gunicorn, 1),
            ScheduleStep::Stress(Granian, 1),
            ScheduleStep::Round(Gunicorn, 2),
            ScheduleStep::Round(Granian, 2),
            ScheduleStep::Stress(Gunicorn, 2),
            ScheduleStep::Stress(Granian, 2),
        ];
        assert_eq!(schedule(&[Gunicorn, Granian], 2), wanted);
        assert_eq!(
            schedule(&[Granian], 1),
            [ScheduleStep::Try(Granian), ScheduleStep::Round(Granian, 1), ScheduleStep::Stress(Granian, 1)]
        );
    }

    #[test]
    fn too_many_clients_last_until_some_lose_their_patience() {
        for millis in [100, 1000, 2000, 5000, 60_000] {
            let duration = Duration::from_millis(millis);
            assert!(overload(duration) >= 2 * patience(duration), "{duration:?}");
            assert!(warm_up(duration) <= Duration::from_secs(1).min(duration), "{duration:?}");
        }
    }
}
