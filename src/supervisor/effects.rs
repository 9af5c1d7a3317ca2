//! Carrying out what the state machine says: the only place in the loop that acts on processes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::warn;

use crate::guard::scoreboard::Scoreboard;
use crate::ids::{GenerationId, PlanId};
use crate::plan::{Bind, Inherited, Plan};
use crate::probe::Speech;
use crate::problem::Exit;
use crate::proc::memory;
use crate::proc::process::{self as processes, Process};
use crate::run::listener::borrowed::BorrowedSockets;
use crate::run::listener::{self as front, Listeners};
use crate::run::memfd::credentials::{self, FilesInMemory};
use crate::run::memfd::modules as module;
use crate::run::signal_all;
use crate::settings::value::Server;
use crate::supervisor::machine::generation::{Action, Event, Main, Outcome, Startup};
use crate::supervisor::readiness::{ListenerWatch, Probe, Target};
use crate::supervisor::{Readiness, Running, Supervisor, facts};
use crate::sys::spawn::{Group, Image, Setup, SpawnError, Stage, spawn};

impl Supervisor<'_> {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn { generation, plan, startup } => {
                let event = self.spawn(generation, plan, startup);
                self.queue.push_back(event);
            }
            Action::Measure { generation } => {
                let event = self.measure(generation);
                self.queue.push_back(event);
            }
            Action::Steer { generation } => self.steer_to(generation),
            Action::Share { parts } => self.front.share(parts),
            Action::KillDraining { generation } => signal_all(&self.draining_workers(generation), Signal::SIGKILL),
            Action::Signal { generation, signal } => {
                self.expect_workers(generation, signal);
                self.signal_main(generation, signal);
            }
            Action::SignalRest { generation, signal } => {
                signal_all(&self.rest(generation), signal);
                self.signal_blindly(Some(generation), signal);
            }
            Action::SignalStrays(signal) => {
                signal_all(&self.strays(), signal);
                self.signal_blindly(None, signal);
            }
            Action::Kill { generation } => {
                kill_until_none_is_new(|| self.members(generation));
                self.signal_blindly(Some(generation), Signal::SIGKILL);
            }
            Action::KillAll => {
                kill_until_none_is_new(own_descendants);
                self.signal_blindly(None, Signal::SIGKILL);
            }
            Action::Replan { server, workers } => {
                let event = self.plan_anew(server, workers);
                self.queue.push_back(event);
            }
            Action::Reply { request, result } => self.reply(request, result),
            Action::Log(note) => {
                self.write(&note);
                self.remember(&note);
                self.tell_service_manager(&note);
            }
            Action::Exit(status) => self.exit = Some(status),
        }
    }

    fn spawn(&mut self, generation: GenerationId, plan_id: PlanId, startup: Startup) -> Event {
        // Clients that wait where nobody serves any more are for this one.
        self.forget_gone();
        let Some(plan) = self.plans.get(&plan_id) else {
            return Event::SpawnFailed { generation, outcome: Some(Outcome::NotStarted(Exit::NotFound.code())) };
        };
        if plan.descriptors.iter().any(|descriptor| descriptor.what == Inherited::Listener) {
            self.steer_past_newcomer();
        }
        let plan = match startup {
            Startup::Full => Cow::Borrowed(plan),
            Startup::OneWorker => Cow::Owned(with_one_worker(plan)),
        };
        match start(&plan, generation, &mut self.front, self.inherited) {
            Ok(mut running) => {
                let pid = running.main;
                running.on_trial = self.state.serving().is_some();
                if running.on_trial {
                    // A release that takes more memory than was thought must not take the running one down.
                    memory::offer_to_oom_killer(pid);
                }
                self.running.insert(generation, running);
                Event::Spawned { generation, pid }
            }
            Err(error) => {
                warn!(generation = generation.0, program = %plan.program.display(), %error, "cannot start the server");
                self.end_handover(generation);
                Event::SpawnFailed { generation, outcome: outcome(error) }
            }
        }
    }

    fn plan_anew(&mut self, server: Option<Server>, workers: i32) -> Event {
        match (self.replan)(server, workers) {
            Ok(plan) => {
                let id = self.plans.keys().last().map_or(PlanId(0), |last| last.next());
                for warning in &plan.warnings {
                    warn!("{warning}");
                }
                let facts = facts(id, &plan);
                let used: Vec<PlanId> = self.state.plans().collect();
                self.plans.retain(|id, _| used.contains(id));
                self.plans.insert(id, plan);
                Event::Planned(Ok(facts))
            }
            Err(problems) => {
                Event::Planned(Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
            }
        }
    }

    fn signal_main(&mut self, generation: GenerationId, signal: Signal) {
        let successor = self.state.serving().map(|serving| serving.id).filter(|serving| *serving != generation);
        if let (Some(successor), Signal::SIGTERM) = (successor, signal) {
            self.steer_to_first(successor);
        }
        let members = self.members(generation);
        let Some(running) = self.running.get_mut(&generation) else { return };
        let leaving = signal == Signal::SIGTERM;
        if leaving {
            running.seen.extend(members.iter().map(|member| (member.pid, member.start)));
        }
        // Our child until we reap it: its number cannot mean anybody else.
        let _ = nix::sys::signal::kill(running.main, signal);
        if leaving {
            for stopped in members.iter().filter(|member| member.state == 'T') {
                let _ = stopped.signal(Signal::SIGCONT);
            }
            self.signal_blindly(Some(generation), Signal::SIGCONT);
        }
    }

    /// Where processes cannot be seen, signals the process groups of one generation or of all: its main process
    /// once more, and what has not left the group.
    fn signal_blindly(&self, generation: Option<GenerationId>, signal: Signal) {
        if processes::are_visible() {
            return;
        }
        let of_it = |id: &GenerationId| generation.is_none_or(|generation| generation == *id);
        for (_, running) in self.running.iter().filter(|(id, _)| of_it(id)) {
            processes::signal_group(running.main, signal);
        }
    }

    pub(super) fn members(&self, generation: GenerationId) -> Vec<Process> {
        let Some(running) = self.running.get(&generation) else { return Vec::new() };
        processes::members(&own_descendants(), running.main, &running.seen)
    }

    /// All of a generation but its main process.
    fn rest(&self, generation: GenerationId) -> Vec<Process> {
        let main = self.running.get(&generation).map(|running| running.main);
        self.members(generation).into_iter().filter(|member| Some(member.pid) != main).collect()
    }

    /// All that descends from us but the main processes, which were told already.
    fn strays(&self) -> Vec<Process> {
        let mains: Vec<Pid> = self
            .state
            .generations()
            .iter()
            .filter_map(|g| if let Main::Alive(pid) = g.main { Some(pid) } else { None })
            .collect();
        own_descendants().into_iter().filter(|process| !mains.contains(&process.pid)).collect()
    }
}

fn own_descendants() -> Vec<Process> {
    processes::descendants(nix::unistd::getpid())
}

/// A process that forks while we kill may leave a child that we have not seen: look again until nothing is new.
fn kill_until_none_is_new(find: impl Fn() -> Vec<Process>) {
    const PASSES: usize = 20;
    let mut killed = HashSet::new();
    for _ in 0..PASSES {
        let new: Vec<Process> = find()
            .into_iter()
            .filter(|process| !process.is_zombie() && killed.insert((process.pid, process.start)))
            .collect();
        if new.is_empty() {
            return;
        }
        signal_all(&new, Signal::SIGKILL);
    }
}

/// Whose fault it is that a process could not be started; none is the system's, which may have room later.
fn outcome(error: SpawnError) -> Option<Outcome> {
    match (error.stage, error.errno) {
        (_, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
        | (Stage::Prepare | Stage::Descriptors, _) => None,
        (Stage::Exec, Errno::ENOENT) => Some(Outcome::NotStarted(Exit::NotFound.code())),
        _ => Some(Outcome::NotStarted(Exit::NotExecutable.code())),
    }
}

/// Starts the main process of a generation, with everything that it inherits.
fn start(
    plan: &Plan,
    generation: GenerationId,
    front: &mut Listeners,
    inherited: crate::sys::SignalState,
) -> Result<Running, SpawnError> {
    let prepare = |errno| SpawnError { stage: Stage::Prepare, errno };
    let failed = |error: std::io::Error| prepare(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
    let written = plan.credentials.as_ref().map(|credentials| FilesInMemory::write(credentials, generation.0));
    let files = written.transpose().map_err(failed)?.flatten();
    let mut made: BTreeMap<i32, OwnedFd> = BTreeMap::new();
    let mut listener = None;
    let mut private = None;
    let (mut board, mut line) = (None, None);
    for descriptor in &plan.descriptors {
        match &descriptor.what {
            Inherited::Listener => {
                let socket = front.lend(generation, plan.policy.backlog).map_err(prepare)?;
                listener = Some((socket.try_clone().map_err(|_| prepare(Errno::EMFILE))?, descriptor.number));
            }
            Inherited::ProbeListener => {
                let (socket, address) = front::private_listener().map_err(prepare)?;
                private = Some(address);
                made.insert(descriptor.number, socket);
            }
            Inherited::Modules(modules) => {
                made.insert(descriptor.number, module::memory_file(modules).map_err(failed)?);
            }
            what @ (Inherited::Pair | Inherited::Authority) => {
                let file = credentials::memory_file(plan.credentials.as_ref(), what).map_err(failed)?;
                made.insert(descriptor.number, file);
            }
            Inherited::Scoreboard => match scoreboard(generation, plan.workers) {
                Ok((made_here, copy)) => {
                    board = Some(made_here);
                    made.insert(descriptor.number, copy);
                }
                // The guard looks whether it is there, and does without it.
                Err(errno) => warn!(
                    generation = generation.0,
                    error = errno.desc(),
                    "no scoreboard: workers cannot be looked at"
                ),
            },
            Inherited::BorrowedSockets => {
                if let Ok((ours, theirs)) = BorrowedSockets::open() {
                    line = Some(ours);
                    made.insert(descriptor.number, theirs);
                }
            }
        }
    }
    if let Some((socket, number)) = listener {
        made.insert(number, socket);
    }
    let descriptors: Vec<_> = made.iter().map(|(number, fd)| (fd, *number)).collect();
    let mut argv = with_own_path(plan, generation, front);
    if let Some(files) = &files {
        files.put_into(&mut argv);
    }
    let mut image = Image::new(&plan.program, &argv, &plan.env).map_err(prepare)?;
    if plan.listen_pid {
        image.with_listen_pid();
    }
    image.with_own_proc_in("PYTHONPATH");
    let setup = Setup {
        cwd: plan.cwd.as_deref(),
        descriptors: &descriptors,
        group: Group::Own,
        death_signal: Some(Signal::SIGTERM),
        open_files: Some(u64::MAX),
        signals: inherited,
    };
    let pid = spawn(&image, &setup)?;
    Ok(Running { board, line, _files: files, ..Running::new(pid, readiness(plan, private, front, generation)) })
}

/// A scoreboard, and the copy of its descriptor that the workers get.
fn scoreboard(generation: GenerationId, workers: u32) -> nix::Result<(Scoreboard, OwnedFd)> {
    let board = Scoreboard::new(generation.0, workers)?;
    let copy = board.descriptor().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    Ok((board, copy))
}

/// The plan with one worker: both servers are told their number by the same option.
fn with_one_worker(plan: &Plan) -> Plan {
    let mut plan = Plan { workers: 1, ..plan.clone() };
    let option = plan.argv.iter().position(|argument| argument == "--workers");
    if let Some(number) = option.and_then(|option| plan.argv.get_mut(option + 1)) {
        *number = "1".into();
    }
    plan
}

/// The arguments, in which a Unix socket that the server makes by itself has a name of its own: the old generation
/// still has the path that clients know.
fn with_own_path(plan: &Plan, generation: GenerationId, front: &Listeners) -> Vec<OsString> {
    let (Some(own), Bind::Unix(path)) = (front.own_path(generation), &plan.bind) else { return plan.argv.clone() };
    plan.argv.iter().map(|argument| if argument == path { own.clone().into() } else { argument.clone() }).collect()
}

fn readiness(plan: &Plan, private: Option<SocketAddr>, front: &Listeners, generation: GenerationId) -> Readiness {
    let now = Instant::now();
    let ask = |target| Readiness::Asking(Probe::new(target, &plan.policy.health_path, speech(plan), now));
    match (private, front.bind()) {
        (Some(address), _) => ask(Target::Tcp(address)),
        (None, Bind::Unix(path)) => ask(Target::Unix(front.own_path(generation).unwrap_or_else(|| path.clone()))),
        (None, Bind::Tcp(address)) => {
            Readiness::Listening(ListenerWatch::new(address.port(), plan.workers as usize, now), None)
        }
    }
}

/// How the plan's server is spoken to.
pub(super) const fn speech(plan: &Plan) -> Speech {
    Speech { tls: plan.tls, h2c: plan.h2c }
}

/// A request to where clients go, for when only one generation can answer there.
pub(super) fn public_probe(plan: &Plan, bind: &Bind) -> Option<Probe> {
    let Bind::Tcp(address) = bind else { return None };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let target = Target::Tcp(SocketAddr::new(ip, address.port()));
    Some(Probe::new(target, &plan.policy.health_path, speech(plan), Instant::now()))
}
