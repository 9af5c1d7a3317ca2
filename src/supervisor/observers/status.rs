//! The supervisor's part of the control socket: it answers clients.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::unistd::Pid;

use crate::control::protocol::{
    self, Answer, Generation, Launcher, Live, LivePlan, Load, Request, Requests, Status, Worker,
};
use crate::control::server::{ClientRequest, ControlServer};
use crate::guard::scoreboard::durations::Window;
use crate::guard::scoreboard::{self, Accepts, Slot};
use crate::ids::GenerationId;
use crate::plan::{Balance, Bind, RequestLimit};
use crate::proc::process::Process;
use crate::proc::sockets;
use crate::proc::usage::{self, Usage};
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::dealing::{self, policy::Standing};
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::{self, Main};
use crate::supervisor::workers::{Cause, WorkerExit};
use crate::supervisor::{World, server_name};

use super::rates;

/// Clients of the control socket and of the metrics.
#[derive(Debug)]
pub(in crate::supervisor) struct Clients {
    control: ControlServer,
}

impl Component for Clients {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        let (clients, patience) = self.control.interest();
        for (descriptor, events) in clients {
            waits.events(descriptor, events);
        }
        waits.until(patience);
    }

    /// Proceeds with every client as far as possible without waiting.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (client, request) in self.control.advance(ready.descriptors(), Instant::now()) {
            match request {
                ClientRequest::Http(get) => {
                    let status = world.status();
                    self.control.answer_http(client, get, &status, Instant::now());
                }
                // Answered once it is decided.
                ClientRequest::Control(Request::Reload { server }) => {
                    outputs.push(Event::Reload { request: Some(client), server, workers: 0 }.into());
                }
                // Answered when the workers have answered.
                ClientRequest::Control(Request::Stacks { pids }) => world.inquiries.ask(client, pids),
                ClientRequest::Control(request) => {
                    let answer = world.answer(&request);
                    self.control.answer(client, &answer, Instant::now());
                }
            }
        }
        for (client, answer) in world.inquiries.take_answers() {
            self.control.answer(client, &answer, Instant::now());
        }
        outputs
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        if let Action::Reply { request, result } = action {
            self.control.answer(*request, &world.decision(result), Instant::now());
        }
    }
}

impl Clients {
    /// The clients of these listeners.
    pub(in crate::supervisor) const fn new(control: ControlServer) -> Self {
        Self { control }
    }
}

impl World {
    /// The outcome of a reload.
    fn decision(&self, result: &Result<GenerationId, String>) -> Answer {
        match result {
            Ok(generation) => {
                let plan = self.plan_of(*generation);
                Answer::Reloaded {
                    generation: generation.0,
                    server: plan.map(server_name).unwrap_or_default(),
                    workers: self.workers.planned(*generation).or(plan.map(|plan| plan.workers)).unwrap_or(0),
                }
            }
            Err(why) => Answer::Kept { why: why.clone(), is_down: self.state.serving().is_none() },
        }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let phase = self.state.phase_word().to_owned();
        match request {
            // Only here: the address of the metrics has no lock.
            Request::Status => Answer::Status(Status { ends: Some(self.ends.list()), ..self.status() }),
            Request::Ready => Answer::Ready { ready: self.state.is_ready(), phase },
            Request::Explain => self.live_plan(),
            Request::Live => {
                let heartbeat_seconds_ago = self.latest_heartbeat();
                let plan = self.plan_in_force();
                Answer::Live(Live {
                    server: !self.state.generations().is_empty(),
                    heartbeat_seconds_ago,
                    phase,
                    address: self.listeners.bind().to_string(),
                    path: plan.map_or_else(|| "/".to_owned(), |plan| plan.policy.health_path.clone()),
                    tls: plan.is_some_and(|plan| plan.tls),
                    h2c: plan.is_some_and(|plan| plan.h2c),
                })
            }
            Request::Reload { .. } | Request::Stacks { .. } => {
                Answer::Refused { why: "this is answered later".into() }
            }
        }
    }

    /// How long ago the event loop of a responsive worker last ran, the most recent of all workers.
    fn latest_heartbeat(&mut self) -> Option<f64> {
        self.look_at_workers();
        let now = scoreboard::now();
        let slots = self.state.generations().iter().flat_map(|generation| self.slots(generation.id));
        let answering = slots.filter(|(_, slot)| slot.state != scoreboard::State::Starting);
        answering.map(|(_, slot)| now.saturating_sub(slot.heartbeat)).min().map(seconds)
    }

    fn live_plan(&mut self) -> Answer {
        let generations = self.generation_list();
        let env = std::env::vars_os().collect();
        let address = self.listeners.bind().to_string();
        self.plan_in_force().map_or_else(
            || Answer::Refused { why: "there is no plan".into() },
            |plan| Answer::Plan(Box::new(LivePlan::new(plan, &env, address, generations))),
        )
    }

    fn status(&mut self) -> Status {
        let (restarts_left, failures) = self.state.restarts(Instant::now());
        let generations = self.generation_list();
        for generation in &generations {
            self.count_requests(GenerationId(generation.id));
        }
        let total = self.totals.total();
        Status {
            launcher: Launcher {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: seconds(usage::uptime()),
                phase: self.state.phase_word().to_owned(),
                ready: self.state.is_ready(),
            },
            address: self.listeners.bind().to_string(),
            restarts_left,
            failures,
            worker_exits: self.workers.ends(),
            requests: total.requests,
            request_duration: rates::histogram(&total.durations),
            recent: rates::recent(&self.recent()),
            generations,
            ends: None,
        }
    }

    /// What happened in the last ten seconds in all workers that exist.
    fn recent(&self) -> Window {
        let now = scoreboard::now();
        let mut all = Window::default();
        for (id, running) in &self.running {
            let Some(board) = &running.board else { continue };
            for (_, slot) in self.slots(*id) {
                all = all.and(&board.window(&slot, now));
            }
        }
        all
    }

    fn generation_list(&mut self) -> Vec<Generation> {
        self.look_at_workers();
        let connected = match self.listeners.bind() {
            Bind::Tcp(address) => sockets::connected(address.port()),
            Bind::Unix(_) => None,
        };
        let generations = self.state.generations().iter();
        generations.filter_map(|generation| self.describe(generation, connected.as_ref())).collect()
    }

    /// `connected`: the open connections to the address, if the kernel tells.
    fn describe(&self, generation: &generation::Generation, connected: Option<&BTreeSet<u64>>) -> Option<Generation> {
        let (running, plan) = (self.running.get(&generation.id)?, self.plans.get(&generation.plan)?);
        let (restarts, last) = self.workers.record(generation.id);
        let slots = self.slots(generation.id);
        let is_distributed = plan.balance == Balance::Even && !self.share_a_lent_socket(generation.id, &slots);
        let load = |pid: Pid| {
            let (process, slot) = slots.iter().find(|(process, _)| process.pid == pid)?;
            let standing = dealing::standing(slot).filter(|_| is_distributed);
            let because = self.limiters.get(&generation.id).map(|limiter| limiter.because(process.id()));
            let window = running.board.as_ref()?.window(slot, scoreboard::now());
            let connected = connected.map(|all| sockets::owned(pid.as_raw(), all).len());
            let spinning = self.workers.spinning.contains(&process.id());
            Some(Load { spinning, ..load(slot, standing, connected, because, &window) })
        };
        let worker = |(pid, usage): (Pid, Usage)| Worker {
            pid: pid.as_raw(),
            age_seconds: seconds(usage.age),
            rss_bytes: usage.rss,
            cpu_seconds: seconds(usage.cpu),
            load: load(pid),
        };
        Some(Generation {
            id: generation.id.0,
            server: plan.server.word().to_owned(),
            version: plan.version.map(|version| version.to_string()),
            state: generation.state_word().to_owned(),
            age_seconds: seconds(running.started.elapsed()),
            main_pid: if let Main::Alive(pid) = generation.main { Some(pid.as_raw()) } else { None },
            workers_planned: self.workers.planned(generation.id).unwrap_or(plan.workers),
            limit: plan.limit.and_then(RequestLimit::fixed),
            limit_adapts: plan.limit.is_some_and(RequestLimit::adapts),
            memory_limit_bytes: plan.sizing.memory,
            certificate_expiry_timestamp: plan.credentials.as_ref().and_then(|credentials| {
                let expiry = credentials.pair.leaf.not_after;
                Some(expiry.duration_since(UNIX_EPOCH).ok()?.as_secs())
            }),
            workers: self.workers.usage(generation.id).into_iter().map(worker).collect(),
            restarts,
            last_exit: last.map(worker_exit),
        })
    }
}

impl World {
    /// Whether several workers accept clients on one socket of the launcher's, each as its server does: the kernel did not
    /// let the launcher give each its own.
    fn share_a_lent_socket(&self, generation: GenerationId, slots: &[(Process, Slot)]) -> bool {
        slots.len() > 1
            && slots.iter().any(|(_, slot)| matches!(slot.accepts, Accepts::Lent(_)))
            && self.listeners.inodes(generation).len() == 1
    }
}

fn worker_exit(exit: WorkerExit) -> protocol::WorkerExit {
    protocol::WorkerExit {
        pid: exit.pid().as_raw(),
        cause: exit.cause.word().to_owned(),
        status: if let Cause::Exit(status) = exit.cause { Some(status) } else { None },
        signal: exit.cause.signal_name(),
        age_seconds: seconds(exit.age),
        seconds_ago: seconds(exit.at.elapsed()),
    }
}

/// `connected`: the number of its connections as the kernel counts them, for a server that does not tell.
/// `because`: why its limit is what it is, if it adapts.
fn load(
    slot: &Slot,
    standing: Option<Standing>,
    connected: Option<usize>,
    because: Option<String>,
    window: &Window,
) -> Load {
    Load {
        state: if slot.is_warming_up { "warming-up" } else { slot.state.word() }.to_owned(),
        clients: standing.map(|standing| standing.word().to_owned()),
        heartbeat_seconds_ago: seconds(scoreboard::now().saturating_sub(slot.heartbeat)),
        lag_seconds: slot.lag.as_secs_f64(),
        most_lag_seconds: slot.most_lag.as_secs_f64(),
        in_flight: slot.in_flight,
        limit: slot.limit.map(NonZeroU32::get),
        limit_because: because,
        high_water: slot.high_water,
        streams: slot.streams,
        stuck: slot.stuck,
        spinning: false,
        connections: slot.connections.or_else(|| connected?.try_into().ok()),
        requests: Requests { served: slot.served, rejected: slot.rejected },
        recent: rates::recent(window),
    }
}

/// To the millisecond.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}
