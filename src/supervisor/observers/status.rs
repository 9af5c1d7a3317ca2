//! The supervisor's part of the control socket: it answers what clients ask.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::control::prometheus;
use crate::control::protocol::{
    self, Answer, Generation, Launcher, Live, LivePlan, Load, Request, Requests, Status, Worker,
};
use crate::control::server::{ClientRequest, ControlServer};
use crate::guard::scoreboard::{self, Slot};
use crate::ids::GenerationId;
use crate::proc::usage::{self, Usage};
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::dealing;
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::event::Event;
use crate::supervisor::machine::generation::{self, Main};
use crate::supervisor::workers::{Cause, WorkerExit};
use crate::supervisor::{World, server_name};

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

    /// Goes on with every client as far as that is possible without waiting.
    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (client, request) in self.control.advance(ready.descriptors(), Instant::now()) {
            match request {
                ClientRequest::Metrics => {
                    let text = prometheus::metrics(&world.status());
                    self.control.answer_metrics(client, &text, Instant::now());
                }
                // Answered when it is decided.
                ClientRequest::Control(Request::Reload { server }) => {
                    outputs.push(Event::Reload { request: Some(client), server, workers: 0 }.into());
                }
                ClientRequest::Control(request) => {
                    let answer = world.answer(request);
                    self.control.answer(client, &answer, Instant::now());
                }
            }
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
    /// Those of these listeners.
    pub(in crate::supervisor) const fn new(control: ControlServer) -> Self {
        Self { control }
    }
}

impl World {
    /// How a reload went.
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
            Err(why) => Answer::Kept { why: why.clone() },
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        let phase = self.state.phase_word().to_owned();
        match request {
            Request::Status => Answer::Status(self.status()),
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
            Request::Reload { .. } => Answer::Refused { why: "a reload is answered when it is decided".into() },
        }
    }

    /// How long ago the event loop of a worker ran that can answer: of the one that ran last.
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
            requests: self.totals.total(),
            generations,
        }
    }

    fn generation_list(&mut self) -> Vec<Generation> {
        self.look_at_workers();
        self.state.generations().iter().filter_map(|generation| self.describe(generation)).collect()
    }

    fn describe(&self, generation: &generation::Generation) -> Option<Generation> {
        let (running, plan) = (self.running.get(&generation.id)?, self.plans.get(&generation.plan)?);
        let (restarts, last) = self.workers.record(generation.id);
        let slots = self.slots(generation.id);
        let worker = |(pid, usage): (Pid, Usage)| Worker {
            pid: pid.as_raw(),
            age_seconds: seconds(usage.age),
            rss_bytes: usage.rss,
            cpu_seconds: seconds(usage.cpu),
            load: slots.iter().find(|(process, _)| process.pid == pid).map(|(_, slot)| load(slot)),
        };
        Some(Generation {
            id: generation.id.0,
            server: plan.server.word().to_owned(),
            version: plan.version.map(|version| version.to_string()),
            state: generation.state_word().to_owned(),
            age_seconds: seconds(running.started.elapsed()),
            main_pid: if let Main::Alive(pid) = generation.main { Some(pid.as_raw()) } else { None },
            workers_planned: self.workers.planned(generation.id).unwrap_or(plan.workers),
            limit: plan.limit,
            workers: self.workers.usage(generation.id).into_iter().map(worker).collect(),
            restarts,
            last_exit: last.map(worker_exit),
        })
    }
}

fn worker_exit(exit: WorkerExit) -> protocol::WorkerExit {
    protocol::WorkerExit {
        pid: exit.pid.as_raw(),
        cause: exit.cause.word().to_owned(),
        status: if let Cause::Exit(status) = exit.cause { Some(status) } else { None },
        signal: exit.cause.signal_name(),
        age_seconds: seconds(exit.age),
        seconds_ago: seconds(exit.at.elapsed()),
    }
}

fn load(slot: &Slot) -> Load {
    Load {
        state: slot.state.word().to_owned(),
        clients: dealing::standing(slot).map(|standing| standing.word().to_owned()),
        heartbeat_seconds_ago: seconds(scoreboard::now().saturating_sub(slot.heartbeat)),
        lag_seconds: slot.lag.as_secs_f64(),
        most_lag_seconds: slot.most_lag.as_secs_f64(),
        in_flight: slot.in_flight,
        high_water: slot.high_water,
        streams: slot.streams,
        connections: slot.connections,
        requests: Requests { served: slot.served, rejected: slot.rejected },
    }
}

/// To the millisecond.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}
