//! Reloads: requests, progress, and replies.

use std::time::{Duration, Instant};

use super::action::Action;
use super::event::Requester;
use super::note::Note;
use super::plan_facts::PlanFacts;
use super::turn::Turn;
use super::worker_moves::StepwiseReplacement;
use super::{Phase, State};
use crate::ids::{GenerationId, PlanId};
use crate::settings::value::Server;

/// A reload has succeeded when the new generation has been ready for this long.
const PROVEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct PendingReload {
    pub(super) requests: Vec<Requester>,
    pub(super) server: Option<Server>,
    pub(super) workers: i32,
}

#[derive(Debug)]
pub(super) struct Reload {
    pub(super) requests: Vec<Requester>,
    pub(super) stage: ReloadStage,
    /// Whether nobody requested it: the only worker is past a limit.
    pub(super) is_renewal: bool,
}

#[derive(Debug)]
pub(super) enum ReloadStage {
    /// The settings are being read.
    Planning,
    /// The plan is ready; a generation that is stopping must end first.
    Planned(PlanId),
    /// This generation is starting, and will take over in this way.
    Incoming { generation: GenerationId, takeover: Takeover },
    /// Both generations serve, and one replaces the other step by step.
    Stepping(StepwiseReplacement),
    /// This generation has taken over, and must stay ready for a while until the reload has succeeded.
    Proving { generation: GenerationId, until: Instant },
}

/// How a generation takes over once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// From the other generation as a whole.
    AtOnce,
    /// Worker by worker, from a generation that has this many.
    Stepwise { workers: u32 },
}

impl Reload {
    /// Whether this generation is the one that the reload is starting.
    pub(super) fn is_for(&self, id: GenerationId) -> bool {
        match &self.stage {
            ReloadStage::Incoming { generation, .. } | ReloadStage::Proving { generation, .. } => *generation == id,
            ReloadStage::Stepping(steps) => steps.new == id,
            ReloadStage::Planning | ReloadStage::Planned(_) => false,
        }
    }
}

impl State {
    pub(super) fn ask_reload(
        &mut self,
        request: Option<Requester>,
        server: Option<Server>,
        workers: i32,
        turn: &mut Turn,
    ) {
        if !matches!(self.phase, Phase::Running) {
            let result = Err("the launcher is stopping".to_owned());
            turn.extend(request.map(|request| Action::Reply { request, result }));
            return;
        }
        let pending = self.queued.get_or_insert_with(PendingReload::default);
        pending.requests.extend(request);
        pending.server = server.or(pending.server);
        pending.workers += workers;
    }

    /// Begins the reload that was queued, if possible.
    pub(super) fn begin_queued_reload(&mut self, turn: &mut Turn) {
        if self.reload.is_some() || self.resize.is_some() {
            return;
        }
        let Some(PendingReload { requests, server, workers }) = self.queued.take() else { return };
        turn.log(Note::Reloading);
        turn.push(Action::Replan { choice: self.choice().with_server(server), workers });
        self.reload = Some(Reload { requests, stage: ReloadStage::Planning, is_renewal: false });
    }

    /// A reload without a new plan.
    pub(super) fn renew(&mut self) {
        if let Some(plan) = self.serving().filter(|_| self.is_settled()).map(|serving| serving.plan) {
            self.reload = Some(Reload { requests: Vec::new(), stage: ReloadStage::Planned(plan), is_renewal: true });
        }
    }

    pub(super) fn planned(&mut self, plan: Result<PlanFacts, String>, turn: &mut Turn) {
        let Some(reload) = self.reload.as_mut().filter(|reload| matches!(reload.stage, ReloadStage::Planning)) else {
            return;
        };
        match plan {
            Ok(plan) => {
                reload.stage = ReloadStage::Planned(plan.id);
                self.plans.push(plan);
            }
            Err(why) => self.reload_failed(&why, turn),
        }
    }

    pub(super) fn reload_failed(&mut self, why: &str, turn: &mut Turn) {
        let Some(reload) = self.reload.take() else { return };
        let (said, serves) = (why.to_owned(), self.serving().is_some());
        turn.log(if reload.is_renewal {
            Note::RenewalFailed { why: said, serves }
        } else {
            Note::ReloadFailed { why: said, serves }
        });
        let reply = |request| Action::Reply { request, result: Err(why.to_owned()) };
        turn.extend(reload.requests.into_iter().map(reply));
    }

    pub(super) fn refuse_reloads(&mut self, why: &str, turn: &mut Turn) {
        let current = self.reload.take().map(|reload| reload.requests);
        let queued = self.queued.take().map(|pending| pending.requests);
        let requests = current.into_iter().chain(queued).flatten();
        turn.extend(requests.map(|request| Action::Reply { request, result: Err(why.to_owned()) }));
    }

    /// The generation of the reload has taken over.
    pub(super) fn begin_proving(&mut self, id: GenerationId, turn: &Turn) {
        if let Some(reload) = self.reload.as_mut().filter(|reload| reload.is_for(id)) {
            reload.stage = ReloadStage::Proving { generation: id, until: turn.now + PROVEN_AFTER };
        }
    }

    /// When the new generation will have been ready for long enough.
    pub(super) fn proven_at(&self) -> Option<Instant> {
        match self.reload {
            Some(Reload { stage: ReloadStage::Proving { until, .. }, .. }) => Some(until),
            _ => None,
        }
    }

    pub(super) fn prove_deadline(&mut self, turn: &mut Turn) {
        if let Some(Reload { stage: ReloadStage::Proving { generation, until }, .. }) = self.reload
            && until <= turn.now
        {
            self.reload_succeeded(generation, turn);
        }
    }

    pub(super) fn reload_succeeded(&mut self, id: GenerationId, turn: &mut Turn) {
        let requests = self.reload.take().map(|reload| reload.requests).unwrap_or_default();
        turn.extend(requests.into_iter().map(|request| Action::Reply { request, result: Ok(id) }));
    }
}
