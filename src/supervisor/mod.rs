//! Supervision: a pure state machine ([`machine`]), components that observe and report, and a loop between them.
//!
//! The [`World`] has all shared state. [`machine`] decides what happens to generations: events go in, actions come out.
//! [`effects`] is the only place that acts on processes and sockets, and decides nothing. Everything else is a
//! [`Component`](component::Component): it owns its state, declares what it waits for, and in its turn looks at the
//! world and returns events, or actions by a policy of its own. [`event_loop`] connects them.
//!
//! To add a component, write its file and add it to [`Supervisor::new`].
//!
//! The launcher is a subreaper (or PID 1), so every process that loses its parent becomes its child, and having no
//! children means having no descendants. Processes are signalled through a pidfd, and only if both pid and start time
//! are those of the intended process. If the launcher is killed, the kernel sends TERM to the main process.

mod background;
pub mod backpressure;
mod blocked_loops;
mod closing;
mod component;
pub mod dealing;
mod effects;
pub mod ends;
mod event_loop;
mod executing;
mod file_watch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generation_start;
mod headcount;
mod host_limits;
pub mod machine;
mod observers;
mod planning;
pub mod presence;
mod readiness;
mod reaper;
pub mod recycling;
mod retire;
mod signals;
pub mod spin;
pub mod stacks;
mod steering;
mod stray_sockets;
pub mod watchdog;
mod worker_watch;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::control::server::ControlServer;
use crate::guard::scoreboard::Scoreboard;
use crate::guard::stacks::StackMemory;
use crate::ids::{GenerationId, PlanId, ProcessId};
use crate::plan::{Bind, Inherited, Plan, SocketOwner};
use crate::run::adopt_orphans;
use crate::run::listener::borrowed::BorrowedSockets;
use crate::run::listener::{Listeners, Way};
use crate::run::memfd::credentials::FilesInMemory;
use crate::run::notify::Notifier;
use crate::run::signals::Signals;
use crate::run::termination::TerminationLog;
use crate::sys::SignalState;
use crate::sys::spawn::ExecReport;
use backpressure::Limiters;
use component::Component;
use dealing::wakeup::Wakeup;
use ends::Ends;
use machine::State;
use machine::plan_facts::{Choice, PlanFacts};
use observers::totals::Totals;
use planning::Planning;
use recycling::successors::Successors;
use stacks::Inquiries;
use workers::Workers;

pub use observers::log::server_name;
pub use planning::Replan;
pub use signals::HANDLED;

/// The shared state: what the state machine has decided, and what was made of it.
struct World {
    /// The state of the state machine.
    state: State,
    /// The plans that may still be needed.
    plans: BTreeMap<PlanId, Plan>,
    /// What the generations were started with, until they have ended.
    running: BTreeMap<GenerationId, Running>,
    /// Their workers.
    workers: Workers,
    /// The listening sockets.
    listeners: Listeners,
    /// The limits of requests in progress that adapt.
    limiters: Limiters,
    /// The requests of all workers together.
    totals: Totals,
    /// How workers and servers ended.
    ends: Ends,
    /// What is to be asked about stacks, and what was answered.
    inquiries: Inquiries,
    /// How a plan is made again, and the plan that is being made.
    planning: Planning,
    /// The signal mask and dispositions that the launcher was started with.
    inherited: SignalState,
    /// When the launcher was started.
    started: Instant,
}

/// What is known about a generation outside the state machine.
#[derive(Debug)]
struct Running {
    main: Pid,
    /// Whether the execution of its program has failed, and why.
    exec: ExecReport,
    started: Instant,
    /// From its start until it was ready; none until then.
    boot: Option<Duration>,
    /// The way to a socket where only this generation responds, if it has one, until it is ready.
    private: Option<Way>,
    /// Processes that belonged to it when it was asked to stop: some may have left its process group.
    seen: BTreeSet<ProcessId>,
    /// Its workers when they were last counted, each with the time when it was first seen.
    counted: BTreeMap<ProcessId, Instant>,
    /// Whether the OOM killer prefers it until it is ready.
    on_trial: bool,
    /// The reports of its workers, if they have the guard.
    board: Option<Scoreboard>,
    /// Where they tell what they are doing.
    stacks: Option<StackMemory>,
    /// The ways to its processes, and from them.
    channels: Channels,
    /// Its certificate and key, if the server reads them from files: these exist as long as the generation.
    _files: Option<FilesInMemory>,
}

/// Pipes and sockets between the launcher and the processes of a generation.
#[derive(Debug, Default)]
struct Channels {
    /// Where its workers can be asked for a copy of a listening socket.
    borrowed: Option<BorrowedSockets>,
    /// Readable when one of its workers reports a change that concerns the distribution of clients.
    wakeup: Option<Wakeup>,
    /// Where its main process is told that workers have a successor, if it can be.
    successors: Option<Successors>,
}

/// The supervisor's connections to the outside.
#[derive(Debug, Default)]
pub struct Outside {
    /// The control socket and the metrics.
    pub control: ControlServer,
    /// Where the reason for the exit is written.
    pub termination: TerminationLog,
    /// The service manager.
    pub notifier: Notifier,
}

/// The supervisor.
pub struct Supervisor {
    world: World,
    components: Vec<Box<dyn Component>>,
    exit: Option<u8>,
}

impl Supervisor {
    /// A supervisor that is about to start the first generation. The handlers must be installed already.
    #[must_use]
    pub fn new(
        plan: Plan,
        listeners: Listeners,
        signals: Signals,
        inherited: SignalState,
        outside: Outside,
        replan: Arc<Replan>,
    ) -> Self {
        adopt_orphans();
        let seed = u64::from(std::process::id()) << 32
            | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.subsec_nanos()));
        let first = PlanId(0);
        let world = World {
            state: State::new(facts(first, &plan), seed, Instant::now()),
            plans: BTreeMap::from([(first, plan)]),
            running: BTreeMap::new(),
            workers: Workers::default(),
            listeners,
            limiters: Limiters::default(),
            totals: Totals::default(),
            ends: Ends::default(),
            inquiries: Inquiries::default(),
            planning: Planning::new(replan),
            inherited,
            started: Instant::now(),
        };
        // In the order of their turns: signals first, because a stop makes much of the rest unnecessary; those that
        // report to others last.
        let components: Vec<Box<dyn Component>> = vec![
            Box::new(signals),
            Box::new(planning::Planned),
            Box::new(executing::Executing::default()),
            Box::new(steering::Leftovers),
            Box::new(readiness::Readiness::default()),
            Box::new(headcount::Headcounts::default()),
            Box::new(workers::Watch),
            Box::new(stray_sockets::StraySockets::default()),
            Box::new(presence::WorkerPresence::default()),
            Box::new(spin::Spin::default()),
            Box::new(stacks::Stacks::default()),
            Box::new(blocked_loops::BlockedLoops::default()),
            // Before dealing, which empties the pipe through which workers wake both.
            Box::new(backpressure::Backpressure),
            Box::new(dealing::Dealing::default()),
            Box::new(closing::Closing::default()),
            Box::new(watchdog::Watchdog::default()),
            Box::new(recycling::Recycling::default()),
            Box::new(file_watch::FileWatch::default()),
            Box::new(host_limits::HostLimits::default()),
            Box::new(observers::log::Log),
            Box::new(ends::Recorder),
            Box::new(observers::systemd::Systemd::new(outside.notifier)),
            Box::new(observers::exit_reason::ExitReason::new(outside.termination)),
            Box::new(observers::status::Clients::new(outside.control)),
        ];
        Self { world, components, exit: None }
    }
}

impl World {
    /// The plan that a generation was started with.
    fn plan_of(&self, generation: GenerationId) -> Option<&Plan> {
        let found = self.state.generations().iter().find(|found| found.id == generation)?;
        self.plans.get(&found.plan)
    }

    /// The plan of what serves, else of what was started last, else the newest.
    fn plan_in_force(&self) -> Option<&Plan> {
        let generation = self.state.serving().or_else(|| self.state.generations().last());
        generation.map_or_else(|| self.plans.values().next_back(), |generation| self.plans.get(&generation.plan))
    }
}

/// The state machine's view of a plan.
fn facts(id: PlanId, plan: &Plan) -> PlanFacts {
    let resizable = plan.capabilities.is_resizable();
    let has_own_sockets = plan.socket_owner == SocketOwner::Launcher;
    let lends = plan.descriptors.iter().any(|descriptor| descriptor.what == Inherited::Listener);
    PlanFacts {
        id,
        policy: plan.policy.clone(),
        boot_statuses: plan.capabilities.boot_statuses.clone(),
        proven: false,
        workers: plan.workers,
        resizable,
        // Both generations need a socket of their own, so that clients can be steered between them.
        shareable: resizable && lends && has_own_sockets && matches!(plan.bind, Bind::Tcp(_)),
        choice: Choice::default(),
    }
}
