//! Supervision: a pure state machine ([`machine`]), components that watch and tell, and a loop between them.
//!
//! Everything that is known is in the [`World`]. [`machine`] decides what happens to generations: events go in, actions
//! come out. [`effects`] is the only place that acts on processes and sockets, and decides nothing. Everything else is
//! a [`Component`](component::Component): it owns what it remembers, says what it waits for, and in its turn looks at
//! the world and returns events, or actions by a policy of its own. [`event_loop`] connects them.
//!
//! To add a component, write its file and add it to [`Supervisor::new`].
//!
//! The launcher is a subreaper (or PID 1), so every process that loses its parent becomes its child, and having no
//! children means having no descendants. Processes are signalled through a pidfd, and only if both pid and start time
//! are those of the intended process. If the launcher is killed, the kernel sends TERM to the main process.

mod background;
mod certificates;
mod closing;
mod component;
pub mod dealing;
mod effects;
mod event_loop;
mod executing;
mod generation_start;
mod headcount;
mod leave;
pub mod machine;
mod observers;
mod planning;
pub mod presence;
mod readiness;
mod reaper;
pub mod recycling;
mod signals;
mod steering;
mod stray_sockets;
pub mod watchdog;
mod watched;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::control::server::ControlServer;
use crate::guard::scoreboard::Scoreboard;
use crate::ids::{GenerationId, PlanId, ProcessId};
use crate::plan::{Bind, Inherited, Plan};
use crate::run::adopt_orphans;
use crate::run::listener::Listeners;
use crate::run::listener::borrowed::BorrowedSockets;
use crate::run::memfd::credentials::FilesInMemory;
use crate::run::notify::Notifier;
use crate::run::signals::Signals;
use crate::run::termination::TerminationLog;
use crate::sys::SignalState;
use crate::sys::spawn::ExecReport;
use component::Component;
use machine::State;
use machine::plan_facts::{Choice, PlanFacts};
use observers::totals::Totals;
use planning::Planning;
use workers::Workers;

pub use observers::log::server_name;
pub use planning::Replan;
pub use signals::HANDLED;

/// Everything that is known: what the state machine decided, and what was made of it.
struct World {
    /// What the state machine remembers.
    state: State,
    /// The plans that may still be needed.
    plans: BTreeMap<PlanId, Plan>,
    /// What the generations were started with, as long as the state machine has them.
    running: BTreeMap<GenerationId, Running>,
    /// Who their workers are.
    workers: Workers,
    /// Where clients arrive.
    listeners: Listeners,
    /// What all workers together did.
    totals: Totals,
    /// How a plan is made anew, and the one that is being made.
    planning: Planning,
    /// The signal mask and dispositions that the launcher was started with.
    inherited: SignalState,
    /// When the launcher was started.
    started: Instant,
}

/// What is known of a generation beyond the state machine.
#[derive(Debug)]
struct Running {
    main: Pid,
    /// Why it has not become its program, if that is so.
    exec: ExecReport,
    started: Instant,
    /// From its start until it was ready; none until then.
    boot: Option<Duration>,
    /// Where only this generation answers, if it has such a socket.
    private: Option<SocketAddr>,
    /// Processes that were seen in it when it was asked to leave: some may have left its process group.
    seen: BTreeSet<ProcessId>,
    /// Its workers when they were last counted, each with the time when it was first seen.
    counted: BTreeMap<ProcessId, Instant>,
    /// Whether it was offered to the OOM killer until it is ready.
    on_trial: bool,
    /// What its workers say of themselves, if the guard is in them.
    board: Option<Scoreboard>,
    /// Where its workers can be asked for a copy of a listening socket.
    borrowed: Option<BorrowedSockets>,
    /// Readable when one of its workers says that clients are to be dealt out anew.
    wakeup: Option<OwnedFd>,
    /// What it serves TLS with, if it reads that from files: they are there for as long as it lives.
    _files: Option<FilesInMemory>,
}

/// The supervisor's connections to the outside.
#[derive(Debug, Default)]
pub struct Outside {
    /// The control socket and the metrics.
    pub control: ControlServer,
    /// Where the reason of the exit is written to.
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
            totals: Totals::default(),
            planning: Planning::new(replan),
            inherited,
            started: Instant::now(),
        };
        // In the order of their turns: signals first, because a stop makes much of the rest superfluous; who tells
        // others last.
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
            Box::new(dealing::Dealing::default()),
            Box::new(closing::Closing::default()),
            Box::new(watchdog::Watchdog::default()),
            Box::new(recycling::Recycling::default()),
            Box::new(certificates::Certificates::default()),
            Box::new(observers::log::Log),
            Box::new(observers::systemd::Systemd::new(outside.notifier)),
            Box::new(observers::exit_reason::ExitReason::new(outside.termination)),
            Box::new(observers::status::Clients::new(outside.control)),
        ];
        Self { world, components, exit: None }
    }
}

impl World {
    /// The plan that a generation runs by.
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

/// What the state machine is told of a plan.
fn facts(id: PlanId, plan: &Plan) -> PlanFacts {
    let resizable = plan.capabilities.is_resizable();
    let lends = plan.descriptors.iter().any(|descriptor| descriptor.what == Inherited::Listener);
    PlanFacts {
        id,
        policy: plan.policy.clone(),
        boot_statuses: plan.capabilities.boot_statuses.clone(),
        proven: false,
        workers: plan.workers,
        resizable,
        shareable: resizable && lends && matches!(plan.bind, Bind::Tcp(_)),
        choice: Choice::default(),
    }
}
