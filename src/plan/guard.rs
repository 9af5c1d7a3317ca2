//! The guard around the app: whether it can be used, and its configuration.

use std::time::Duration;

use super::app::AppTarget;
use super::balance::Dealing;
use super::common::Common;
use super::modules::Module;
use super::{Descriptor, Findings, Inherited, Launch, gateway};
use crate::guard::{Config, MODULE, MaxRequests};
use crate::host::Host;
use crate::settings::value::{Mode, Server};
use crate::settings::{Resolution, Settings};

/// The longest interval between two heartbeats.
const SLOWEST_BEAT: Duration = Duration::from_secs(1);
/// The shortest.
const FASTEST_BEAT: Duration = Duration::from_millis(10);
/// Where workers watch each other so that clients are not dealt to one that is silent for a second.
const DEALING_BEAT: Duration = Duration::from_millis(250);
/// Number of heartbeats within the time after which a worker counts as hung.
const BEATS: u32 = 4;

/// What is known about a server and its environment, as far as the guard is concerned.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub server: Server,
    pub app: &'a AppTarget,
    /// Whether the app is called to find out whether it is a factory.
    pub calls_factories: bool,
    /// The worker class that was set explicitly.
    pub worker_class: Option<String>,
    /// Whether the server tells the app when it starts and stops.
    pub has_lifespan: bool,
    /// How the workers come to their listening sockets.
    pub sockets: WorkerSockets,
    /// Why it is not known whether the workers serve ASGI, so that no limit can be promised.
    pub doubt: Option<&'static str>,
    /// After how many requests a worker is replaced.
    pub max_requests: Option<MaxRequests>,
    /// How long an event loop may be silent, if that is watched.
    pub worker_timeout: Option<Duration>,
    /// How clients can be dealt out.
    pub dealing: Dealing,
    /// Why the guard cannot be used.
    pub obstacle: Option<String>,
}

/// How a server's workers come to the sockets at which clients arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerSockets {
    /// All of them share what the server has, or nobody can reach theirs.
    Shared,
    /// Each opens its own, and can be asked for a copy for steering clients.
    Own,
    /// Each of so many workers gets one from us.
    Lent { workers: u32, backlog: u32 },
}

impl Around<'_> {
    /// What prevents its use, whatever the server.
    pub fn obstacle(host: &Host) -> Option<String> {
        // It is imported from a descriptor.
        host.limits.no_own_descriptors.then(|| "there is no /proc/self/fd to import it from".into())
    }

    /// Whether it will be used.
    pub fn is_possible(&self, settings: &Settings) -> bool {
        settings.guard.value && self.obstacle.is_none()
    }
}

/// How many requests a worker may have in flight, if a setting or a default says so.
pub(super) fn limit(settings: &Settings, server: Server) -> Option<u64> {
    Common::of(server, settings).backpressure.0
}

/// Beginnings of paths that are never refused.
fn exempt(settings: &Settings, app: &AppTarget) -> Vec<String> {
    if app.is_gateway && !settings.guard_exempt.is_explicit() {
        return gateway::EXEMPT.map(str::to_owned).into();
    }
    settings.guard_exempt.value.0.iter().map(|prefix| prefix.0.clone()).collect()
}

fn beat(timeout: Option<Duration>) -> Duration {
    timeout.map_or(SLOWEST_BEAT, |timeout| (timeout / BEATS).clamp(FASTEST_BEAT, SLOWEST_BEAT))
}

impl Launch {
    /// Puts the guard around the app if it can be used, and returns its module.
    pub(super) fn guard(
        &mut self,
        around: Around,
        resolution: &Resolution,
        findings: &mut Findings,
    ) -> Option<Module> {
        let settings = &resolution.settings;
        let why_not = match (&settings.guard.value, around.obstacle) {
            (false, _) => Some(settings.guard.origin.to_string()),
            (true, obstacle) => obstacle,
        };
        if let Some(why_not) = why_not {
            findings.decide("guard", "off", why_not);
            findings.decide("balance", "off", "it needs the guard");
            return None;
        }
        let limit = limit(settings, around.server);
        let decision = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"));
        let because = because(settings, around.server);
        if let Some(doubt) = around.doubt {
            findings.decide("guard", format!("{decision} if the workers serve ASGI"), format!("{because}; {doubt}"));
        } else {
            findings.decide("guard", decision, because);
            self.limit = limit;
        }
        let among_workers = around.dealing.decide(settings, findings);
        let board = (settings.mode.value == Mode::Supervise && around.has_lifespan).then(|| {
            let number = self.next_number(resolution);
            self.descriptors.push(Descriptor { number, what: Inherited::Scoreboard });
            number
        });
        let mut inherit = |what: Inherited| {
            let number = self.next_number(resolution);
            self.descriptors.push(Descriptor { number, what });
            number
        };
        let (mut line, mut listeners, mut deals, mut queue) = (None, Vec::new(), false, 0);
        match around.sockets {
            WorkerSockets::Own if board.is_some() => line = Some(inherit(Inherited::BorrowedSockets)),
            WorkerSockets::Lent { workers, backlog } if board.is_some() => {
                queue = backlog;
                listeners = (0..workers).map(|_| inherit(Inherited::WorkerListener)).collect();
                deals = workers > 1;
            }
            _ => {}
        }
        let poke = board.is_some().then(|| inherit(Inherited::Wakeup));
        let config = Config {
            server: around.server,
            app: around.app.text.clone(),
            factory: around.app.factory,
            calls_factories: around.calls_factories,
            worker_class: around.worker_class,
            limit,
            max_streams: settings.max_streams.value.map(|most| most.0),
            health_path: settings.health_path.value.0.clone(),
            exempt: exempt(settings, around.app),
            deals: among_workers,
            board,
            line,
            beat: beat(around.worker_timeout).min(if deals { DEALING_BEAT } else { SLOWEST_BEAT }),
            listeners,
            backlog: queue,
            max_requests: around.max_requests,
            poke,
            grace: settings.stop_timeout.0,
        };
        Some(Module { name: MODULE.into(), source: config.source() })
    }
}

fn because(settings: &Settings, server: Server) -> String {
    if let (Some(_), origin) = Common::of(server, settings).backpressure {
        return format!("{origin}: further requests in a worker are answered 503 at once");
    }
    let name = server.word().to_ascii_uppercase();
    format!("{name}_BACKPRESSURE is not set: a worker accepts any number of requests")
}
