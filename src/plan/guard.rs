//! The guard around the app: whether it can be used, and its configuration.

use std::time::Duration;

use super::app::AppTarget;
use super::balance::Dealing;
use super::common::Common;
use super::modules::Module;
use super::threads::{Handlers, InForce};
use super::{
    Balance, Bind, Descriptor, Findings, Inherited, Launch, RequestLimit, gateway, request_limit, request_timeout,
    spin, warm_up,
};
use crate::guard::{Config, Limit, MODULE, MaxRequests, spin_interval};
use crate::host::Host;
use crate::settings::value::{Mode, Server};
use crate::settings::{Resolution, Settings};

/// The longest interval between two heartbeats: `mcp-launch stacks` waits for one.
const SLOWEST_BEAT: Duration = Duration::from_millis(500);
/// The shortest.
const FASTEST_BEAT: Duration = Duration::from_millis(10);
/// How often workers report if they watch each other, so that no clients go to one that has been silent for a second, or
/// if their limits follow what they report.
const FREQUENT_BEAT: Duration = Duration::from_millis(250);
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
    /// Whether the workers serve WSGI apps, if that is known.
    pub wsgi: Option<bool>,
    /// What handles the requests in a worker.
    pub handlers: Handlers,
    /// Whether the guard learns that a worker starts: from the server's lifespan messages, or for WSGI from the server.
    pub has_lifespan: bool,
    /// The public address, and whether it is known to serve TLS.
    pub bind: &'a Bind,
    pub is_https: bool,
    /// How the workers get their listening sockets.
    pub sockets: WorkerSockets,
    /// Why it is not certain that the workers serve ASGI, so that no limit can be promised.
    pub doubt: Option<&'static str>,
    /// After how many requests a worker is replaced.
    pub max_requests: Option<MaxRequests>,
    /// How long an event loop may be silent, if there is a limit.
    pub worker_timeout: Option<Duration>,
    /// How clients can be distributed.
    pub dealing: Dealing,
    /// Why the guard cannot be used.
    pub obstacle: Option<String>,
}

/// How a server's workers get the sockets on which they accept clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerSockets {
    /// All of them share the server's sockets, or their sockets cannot be reached.
    Shared,
    /// Each opens its own, and we can ask for a copy in order to steer clients.
    Own,
    /// Each of this many workers gets one from us.
    Lent { workers: u32, backlog: u32 },
}

impl Around<'_> {
    /// What prevents its use with any server.
    pub fn obstacle(host: &Host) -> Option<String> {
        // It is imported from a descriptor.
        host.limits.no_own_descriptors.then(|| "there is no /proc/self/fd to import it from".into())
    }

    /// Whether it will be used.
    pub fn is_possible(&self, settings: &Settings) -> bool {
        settings.guard.value && self.obstacle.is_none()
    }
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
        let why_not = match (&settings.guard.value, &around.obstacle) {
            (false, _) => Some(settings.guard.origin.to_string()),
            (true, obstacle) => obstacle.clone(),
        };
        if let Some(why_not) = why_not {
            let why = format!("the guard is off ({why_not})");
            warm_up::warn_without_effect(settings, &why, findings);
            request_timeout::warn_without_effect(settings, &why, findings);
            request_limit::warn_without_effect(settings, around.server, &why, findings);
            spin::warn_without_effect(settings, &why, findings);
            findings.decide("guard", "off", why_not);
            findings.decide("balance", "off", "it needs the guard");
            return None;
        }
        let asked = request_limit::asked(settings, around.server, around.has_lifespan, findings);
        let in_force = around.handlers.limit(asked);
        let limit = in_force.limit;
        let decision = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"));
        let because = because(settings, around.server, &in_force);
        if in_force.waits && Common::of(around.server, settings).backpressure.1.is_explicit() {
            findings.warn(format!("backpressure: {because}"));
        }
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
        let stacks = board.is_some().then(|| inherit(Inherited::Stacks));
        if board.is_some() && (among_workers || !listeners.is_empty()) {
            self.balance = Balance::Even;
        }
        let adapts = limit.is_some_and(RequestLimit::adapts);
        let is_frequent = deals || among_workers || adapts;
        let warm_up = warm_up::decide(settings, &around, findings);
        let time_limits = request_timeout::decide(settings, &around, findings);
        spin::decide(settings, findings);
        let config = Config {
            server: around.server,
            app: around.app.text.clone(),
            factory: around.app.factory,
            calls_factories: around.calls_factories,
            worker_class: around.worker_class,
            wsgi: around.wsgi,
            limit: limit.map(|limit| Limit { start: limit.start(), adapts }),
            max_streams: settings.max_streams.value.map(|most| most.0),
            health_path: settings.health_path.value.0.clone(),
            exempt: exempt(settings, around.app),
            warm_up,
            time_limits,
            deals: among_workers,
            board,
            line,
            beat: beat(around.worker_timeout).min(if is_frequent { FREQUENT_BEAT } else { SLOWEST_BEAT }),
            listeners,
            backlog: queue,
            max_requests: around.max_requests,
            poke,
            stacks,
            spin: spin::after(settings).map(spin_interval),
            grace: settings.stop_timeout.0,
        };
        Some(Module { name: MODULE.into(), source: config.source() })
    }
}

fn because(settings: &Settings, server: Server, in_force: &InForce) -> String {
    match (in_force.limit, &in_force.note) {
        (_, Some(note)) if in_force.waits => note.clone(),
        (Some(limit), note) => {
            let note = note.as_deref().map_or_else(String::new, |note| format!(" ({note})"));
            request_limit::explain(limit, Common::of(server, settings).backpressure.1, &note)
        }
        (None, _) => {
            let name = server.word().to_ascii_uppercase();
            format!("{name}_BACKPRESSURE is not set: a worker accepts any number of requests")
        }
    }
}
