//! Supervision: a pure state machine ([`state`]) and a thin loop around it that carries out what it says.
//!
//! One thread, one `poll`, one deadline. After the first process was started no error leaves the loop: what
//! cannot be done is logged, and supervision goes on.

mod certificates;
mod effects;
mod headcount;
pub mod machine;
mod observers;
mod readiness;
pub mod recycling;
mod steering;
pub mod watchdog;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{debug, info};

use crate::control::server::ControlServer;
use crate::guard::scoreboard::Scoreboard;
use crate::ids::{GenerationId, PlanId};
use crate::plan::{Bind, Capabilities, Inherited, Plan};
use crate::problem::Problem;
use crate::proc::process::{self as processes, Process};
use crate::run::listener::Listeners;
use crate::run::listener::borrowed::BorrowedSockets;
use crate::run::memfd::credentials::FilesInMemory;
use crate::run::notify::Notifier;
use crate::run::signals::{Received, Signals};
use crate::run::termination::TerminationLog;
use crate::settings::value::Server;
use crate::sys::SignalState;
use crate::sys::wait::{Reaped, reap};
use certificates::Certificates;
use certificates::file_watch::Watch;
use machine::State;
use machine::generation::{Event, Main, Outcome, PlanFacts};
use observers::exit_reason::ExitReason;
pub use observers::log::server_name;
use observers::totals::Totals;
use readiness::{ListenerWatch, Probe};
use recycling::Retirement;
use watchdog::Pulse;
use workers::Workers;

/// The signals that a supervisor acts upon.
pub const HANDLED: [i32; 10] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGCHLD,
];

/// Makes a plan anew, for a reload: for this server if one is named, with workers more or fewer.
pub type Replan<'a> = dyn FnMut(Option<Server>, i32) -> Result<Plan, Vec<Problem>> + 'a;

/// What the loop knows of a generation beyond the state machine.
#[derive(Debug)]
struct Running {
    main: Pid,
    started: Instant,
    readiness: Readiness,
    /// Processes that were seen in it when it was asked to leave: some may have left its process group.
    seen: BTreeSet<(Pid, u64)>,
    /// Its workers when they were last counted, each with the time when it was first seen.
    counted: BTreeMap<(Pid, u64), Instant>,
    /// From its start until it was ready; none until then.
    boot: Option<Duration>,
    /// Whether it was offered to the OOM killer until it is ready.
    on_trial: bool,
    /// What its workers say of themselves, if the guard is in them.
    board: Option<Scoreboard>,
    /// Where its workers can be asked for a copy of a listening socket.
    line: Option<BorrowedSockets>,
    /// What it serves TLS with, if it reads that from files: they are there for as long as it lives.
    _files: Option<FilesInMemory>,
}

impl Running {
    fn new(main: Pid, readiness: Readiness) -> Self {
        Self {
            main,
            started: Instant::now(),
            readiness,
            seen: BTreeSet::new(),
            counted: BTreeMap::new(),
            boot: None,
            on_trial: false,
            board: None,
            line: None,
            _files: None,
        }
    }
}

/// How it is found out whether a generation is ready.
#[derive(Debug)]
enum Readiness {
    Asking(Probe),
    /// First its listening sockets, then, if nobody else can answer on the address, one request.
    Listening(ListenerWatch, Option<Probe>),
    /// It answers, and not all of its workers have said yet that they are ready.
    Counting(Recount),
    Known,
}

/// The supervisor.
pub struct Supervisor<'a> {
    state: State,
    signals: Signals,
    inherited: SignalState,
    front: Listeners,
    plans: BTreeMap<PlanId, Plan>,
    running: BTreeMap<GenerationId, Running>,
    replan: &'a mut Replan<'a>,
    started: Instant,
    workers: Workers,
    pulse: Option<Pulse>,
    retirement: Option<Retirement>,
    totals: Totals,
    certificates: Certificates,
    control: ControlServer,
    termination: TerminationLog,
    exit_reason: ExitReason,
    notify: Notifier,
    /// Events that actions gave rise to.
    queue: VecDeque<Event>,
    /// When workers are to be counted again, while they are.
    count_at: Instant,
    exit: Option<u8>,
}

impl<'a> Supervisor<'a> {
    /// A supervisor that is about to start the first generation. The handlers must be installed already.
    pub fn new(
        plan: Plan,
        front: Listeners,
        signals: Signals,
        inherited: SignalState,
        replan: &'a mut Replan<'a>,
    ) -> Self {
        crate::run::adopt_orphans();
        let seed = u64::from(std::process::id()) << 32
            | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.subsec_nanos()));
        Self {
            state: State::new(facts(PlanId(0), &plan), seed, Instant::now()),
            signals,
            inherited,
            front,
            plans: BTreeMap::from([(PlanId(0), plan)]),
            running: BTreeMap::new(),
            replan,
            started: Instant::now(),
            workers: Workers::default(),
            pulse: None,
            retirement: None,
            totals: Totals::default(),
            certificates: Certificates::default(),
            control: ControlServer::default(),
            termination: TerminationLog::default(),
            exit_reason: ExitReason::default(),
            notify: Notifier::default(),
            queue: VecDeque::new(),
            count_at: Instant::now(),
            exit: None,
        }
    }

    /// Lets clients ask it, and says where it tells why it ended.
    #[must_use]
    pub fn with_control(mut self, control: ControlServer, termination: TerminationLog) -> Self {
        self.control = control;
        self.termination = termination;
        self
    }

    /// Has a service manager told how it goes.
    #[must_use]
    pub fn with_notifier(mut self, notify: Notifier) -> Self {
        self.notify = notify;
        self
    }

    /// Supervises until the end and returns the exit status.
    #[must_use]
    pub fn run(mut self) -> u8 {
        self.tell(Event::Tick);
        loop {
            self.reap();
            self.tell(Event::Tick);
            if let Some(status) = self.exit {
                self.write_last_word(status);
                return status;
            }
            let ready = self.wait();
            self.notify.advance(Instant::now());
            self.lines().for_each(BorrowedSockets::drain);
            self.read_signals();
            self.ask_readiness();
            self.count_workers();
            self.watch_workers(&ready);
            self.feel_pulse();
            self.keep_limits();
            self.watch_certificates(&ready);
            self.serve_control(&ready);
        }
    }

    /// Feeds an event to the state machine and carries out what it says, and so on with what that gives rise to.
    fn tell(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            if !matches!(event, Event::Tick) {
                debug!(?event, "event");
            }
            for action in self.state.step(event, Instant::now()) {
                self.carry_out(action);
            }
        }
    }

    fn reap(&mut self) {
        let alone = loop {
            match reap() {
                Reaped::Child(pid, status) => self.reaped(pid, status),
                Reaped::NoneEnded => break false,
                Reaped::NoChildren => break true,
            }
        };
        let gone: Vec<GenerationId> = self
            .state
            .generations()
            .iter()
            .filter(|g| g.main == Main::Gone)
            .map(|generation| generation.id)
            .collect();
        if !gone.is_empty() {
            let all = processes::descendants(nix::unistd::getpid());
            for generation in gone {
                if !self.has_survivors(generation, &all) {
                    self.tell(Event::GenerationEmpty { generation });
                }
            }
        }
        if alone {
            self.tell(Event::NoChildren);
        }
        self.forget_gone();
    }

    /// Lets go of what belonged to generations that are gone.
    fn forget_gone(&mut self) {
        let live: Vec<GenerationId> = self.state.generations().iter().map(|generation| generation.id).collect();
        let gone: Vec<GenerationId> = self.running.keys().copied().filter(|id| !live.contains(id)).collect();
        for generation in gone {
            self.count_requests(generation);
            self.totals.forget(generation);
            self.running.remove(&generation);
            self.end_handover(generation);
        }
    }

    fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        let outcome =
            status.signal().map_or_else(|| Outcome::Exited(crate::run::status_of(status)), Outcome::Signaled);
        let Some((&id, _)) = self.running.iter().find(|(_, running)| running.main == pid) else {
            debug!(%pid, %outcome, "reaped an orphan");
            self.workers.reaped(pid, status);
            return;
        };
        let all = processes::descendants(nix::unistd::getpid());
        let survivors = self.has_survivors(id, &all);
        if let Some(why) = self.running.get(&id).and_then(|running| running.board.as_ref()?.failure()) {
            self.tell(Event::FailureReported { generation: id, why });
        }
        self.tell(Event::Exited { pid, outcome, survivors });
    }

    /// Whether processes of a generation live whose main process does not.
    fn has_survivors(&self, generation: GenerationId, all: &[Process]) -> bool {
        self.running.get(&generation).is_some_and(|running| {
            if !processes::are_visible() {
                return processes::has_children_in(running.main);
            }
            let members = processes::members(all, running.main, &running.seen);
            members.iter().any(|member| member.pid != running.main && !member.is_dying)
        })
    }

    /// Sleeps until there is something to do. Returns the descriptors that are ready.
    fn wait(&self) -> BTreeSet<RawFd> {
        let counting = (!self.state.counted().is_empty()).then_some(self.count_at);
        let mut until = self.state.next_deadline().into_iter().chain(counting).min();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let (handles, look) = self.workers.interest();
        fds.extend(handles.into_iter().map(|handle| PollFd::new(handle, PollFlags::POLLIN)));
        let (clients, patience) = self.control.interest();
        fds.extend(clients.into_iter().map(|(fd, events)| PollFd::new(fd, events)));
        let pulse = self.pulse.as_ref().and_then(Pulse::next);
        let certificates = self.certificates.watch();
        fds.extend(certificates.and_then(Watch::descriptor).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let certificates = certificates.map(Watch::next);
        let limits = self.next_retirement();
        let others = [look, patience, self.notify.next(), pulse, limits, certificates];
        until = until.into_iter().chain(others.into_iter().flatten()).min();
        fds.extend(self.lines().filter_map(BorrowedSockets::interest).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        for running in self.running.values() {
            let probe = match &running.readiness {
                Readiness::Asking(probe) | Readiness::Listening(_, Some(probe)) => probe,
                Readiness::Listening(watch, None) => {
                    until = until.into_iter().chain([watch.next()]).min();
                    continue;
                }
                Readiness::Counting(recount) => {
                    until = until.into_iter().chain([recount.next()]).min();
                    continue;
                }
                Readiness::Known => continue,
            };
            let (fd, at) = probe.interest();
            fds.extend(fd.map(|(fd, events)| PollFd::new(fd, events)));
            until = until.into_iter().chain([at]).min();
        }
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll(&mut fds, crate::run::poll_timeout(wait)) {
            Ok(1..) => fds.iter().filter(|fd| fd.any() == Some(true)).map(|fd| fd.as_fd().as_raw_fd()).collect(),
            _ => BTreeSet::new(),
        }
    }

    fn lines(&self) -> impl Iterator<Item = &BorrowedSockets> {
        self.running.values().filter_map(|running| running.line.as_ref())
    }

    fn read_signals(&mut self) {
        let received = self.signals.drain();
        // Their order within a batch means nothing; a stop comes first, so that nothing is begun in vain.
        let (stops, others): (Vec<Event>, Vec<Event>) = received
            .into_iter()
            .filter_map(|received| self.meaning(received))
            .partition(|event| matches!(event, Event::Stop | Event::Quit));
        for event in stops.into_iter().chain(others) {
            self.tell(event);
        }
    }

    /// What a signal means to a supervisor.
    fn meaning(&self, received: Received) -> Option<Event> {
        let signal = Signal::try_from(received.signal).ok()?;
        if signal != Signal::SIGCHLD {
            info!(%signal, from = if received.from_kernel { "terminal" } else { "process" }, "signal");
        }
        let reload = |workers| Some(Event::Reload { request: None, server: None, workers });
        match signal {
            Signal::SIGTERM | Signal::SIGINT => Some(Event::Stop),
            Signal::SIGQUIT => Some(Event::Quit),
            // The terminal is gone. Under nohup that is to be ignored.
            Signal::SIGHUP if received.from_kernel && self.inherited.ignores(libc::SIGHUP) => None,
            Signal::SIGHUP if received.from_kernel => Some(Event::Stop),
            Signal::SIGHUP | Signal::SIGUSR2 => reload(0),
            // From the terminal they mean that a background process touched it.
            Signal::SIGTTIN | Signal::SIGTTOU if received.from_kernel => None,
            Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGUSR1 | Signal::SIGWINCH => {
                match (self.capabilities()?, signal) {
                    (server, _) if server.takes(signal) => Some(Event::Forward(signal)),
                    (_, Signal::SIGTTIN) => reload(1),
                    (_, Signal::SIGTTOU) => reload(-1),
                    // It has no handler for it, and would end.
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What the server that serves, or is about to, can do.
    fn capabilities(&self) -> Option<&Capabilities> {
        let generation = self.state.serving().or_else(|| self.state.generations().last())?;
        self.plans.get(&generation.plan).map(|plan| &plan.capabilities)
    }

    fn ask_readiness(&mut self) {
        let now = Instant::now();
        let mut ready = Vec::new();
        for (id, running) in &mut self.running {
            let main = running.main;
            let is_ready = match &mut running.readiness {
                Readiness::Known => false,
                Readiness::Asking(probe) | Readiness::Listening(_, Some(probe)) => probe.advance(now),
                Readiness::Listening(watch, None) => {
                    let members = || {
                        let all = processes::descendants(nix::unistd::getpid());
                        processes::members(&all, main, &BTreeSet::new())
                    };
                    watch.advance(members, main, now)
                }
                Readiness::Counting(recount) => recount.is_due(now),
            };
            if is_ready {
                ready.push(*id);
            }
        }
        for id in ready {
            self.seems_ready(id);
        }
    }

    /// A listener may be there before the app works: if only this generation can answer, it is asked, too.
    fn seems_ready(&mut self, id: GenerationId) {
        let alone = self.state.generations().len() == 1;
        let plan = self.plan_of(id);
        let probe = plan.and_then(|plan| effects::public_probe(plan, self.front.bind()));
        let complete = self.is_complete(id);
        let Some(running) = self.running.get_mut(&id) else { return };
        match (&mut running.readiness, probe) {
            (Readiness::Listening(_, asked @ None), Some(probe)) if alone => *asked = Some(probe),
            (Readiness::Counting(_), _) if !complete => {}
            (readiness, _) if !complete => *readiness = Readiness::Counting(Recount::new(Instant::now())),
            _ => {
                running.readiness = Readiness::Known;
                running.boot = Some(running.started.elapsed());
                self.end_trial(id);
                // Whoever is told that it is ready may end a worker at once.
                self.look_at_workers();
                self.tell(Event::Ready { generation: id });
            }
        }
    }
}

/// When workers are counted that get ready: again and again, and a little less often each time.
#[derive(Debug)]
struct Recount {
    next: Instant,
    interval: Duration,
}

impl Recount {
    fn new(now: Instant) -> Self {
        let interval = Duration::from_millis(20);
        Self { next: now + interval, interval }
    }

    const fn next(&self) -> Instant {
        self.next
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + self.interval;
            self.interval = (self.interval * 5 / 4).min(Duration::from_millis(250));
        }
        is_due
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
    }
}
