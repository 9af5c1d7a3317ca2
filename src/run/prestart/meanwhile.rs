//! What happens while a command runs: clients of the control socket get answers, and the service manager is informed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::control::protocol::{Answer, Histogram, Launcher, LivePlan, Recent, Request, Requests, Status};
use crate::control::server::{ClientRequest, ControlServer};
use crate::plan::Plan;
use crate::proc::usage;
use crate::run::notify::Notifier;

/// Those that ask for our state, or are informed of it, before there is a supervisor.
pub(super) struct Meanwhile<'a> {
    control: &'a mut ControlServer,
    notify: &'a mut Notifier,
    plan: &'a Plan,
    /// The setting whose command runs.
    setting: &'static str,
}

impl<'a> Meanwhile<'a> {
    pub(super) fn new(plan: &'a Plan, control: &'a mut ControlServer, notify: &'a mut Notifier) -> Self {
        Self { control, notify, plan, setting: "" }
    }

    /// The command of this setting runs from now on, and may take this long.
    pub(super) fn begin(&mut self, setting: &'static str, within: Duration) {
        self.setting = setting;
        self.notify.starting(&self.phase(), within);
    }

    /// The command is being stopped, which may take this long.
    pub(super) fn stopping(&mut self, budget: Duration) {
        self.notify.stopping("stopping", budget);
    }

    /// What to wait for: descriptors and their events, and a time.
    pub(super) fn interest(&self) -> (Vec<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        let (clients, patience) = self.control.interest();
        (clients, patience.into_iter().chain(self.notify.next()).min())
    }

    /// Proceeds as far as possible without waiting, with the descriptors that are ready.
    pub(super) fn advance(&mut self, ready: &BTreeSet<RawFd>) {
        let now = Instant::now();
        self.notify.advance(now);
        for (client, request) in self.control.advance(ready, now) {
            match request {
                ClientRequest::Http(get) => self.control.answer_http(client, get, &self.status(), now),
                ClientRequest::Control(request) => self.control.answer(client, &self.answer(&request), now),
            }
        }
    }

    fn phase(&self) -> String {
        format!("starting, {} runs", self.setting)
    }

    fn answer(&self, request: &Request) -> Answer {
        let phase = self.phase();
        match request {
            Request::Status => Answer::Status(self.status()),
            Request::Ready => Answer::Ready { ready: false, phase },
            Request::Live => Answer::Preparing { phase },
            Request::Explain => {
                let env = std::env::vars_os().collect();
                Answer::Plan(Box::new(LivePlan::new(self.plan, &env, self.plan.bind.to_string(), Vec::new())))
            }
            Request::Reload { .. } | Request::Stacks { .. } => {
                Answer::Refused { why: format!("not serving yet: {phase}") }
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            launcher: Launcher {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_seconds: usage::uptime().as_secs_f64(),
                phase: "starting".to_owned(),
                ready: false,
            },
            address: self.plan.bind.to_string(),
            restarts_left: self.plan.policy.restart_limit,
            failures: 0,
            worker_exits: BTreeMap::new(),
            requests: Requests::default(),
            request_duration: Histogram::default(),
            recent: Recent::default(),
            generations: Vec::new(),
            ends: Some(Vec::new()),
        }
    }
}
