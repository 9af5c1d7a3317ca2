//! The log lines of the supervisor: one for each event that matters to a person on call.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::ids::GenerationId;
use crate::plan::Plan;
use crate::settings::value::show_span;
use crate::supervisor::World;
use crate::supervisor::component::{Component, Output, Ready, Waits};
use crate::supervisor::machine::action::Action;
use crate::supervisor::machine::note::Note;
use crate::supervisor::machine::reload::Takeover;

/// Writes the log.
#[derive(Debug)]
pub(in crate::supervisor) struct Log;

impl Component for Log {
    fn wait_for<'a>(&'a self, _world: &'a World, _waits: &mut Waits<'a>) {}

    fn turn(&mut self, _world: &mut World, _ready: &Ready) -> Vec<Output> {
        Vec::new()
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        if let Action::Log(note) = action {
            world.write(note);
        }
    }
}

impl World {
    fn write(&self, note: &Note) {
        match note {
            Note::Ready { generation } => self.write_ready(*generation),
            Note::Draining { generation, replaced_by } => {
                info!(generation = generation.0, replaced_by = replaced_by.0, "draining");
            }
            Note::MainExited { generation, outcome, ready_for, survivors, why } => {
                let uptime = ready_for.map_or_else(|| "never ready".to_owned(), show_rounded);
                if *survivors {
                    warn!(generation = generation.0, cause = %outcome, uptime, "server main process exit, its workers keep serving");
                } else {
                    warn!(generation = generation.0, cause = %outcome, uptime, why, "server exit");
                }
            }
            Note::NotReadyInTime { generation, timeout } => {
                error!(generation = generation.0, timeout = show_span(*timeout), "server not ready in time");
            }
            Note::KeepsDying { generation } => {
                error!(generation = generation.0, "the workers die again and again before they are ready");
            }
            Note::Respawning { wait, restarts_left } => info!(next = show_rounded(*wait), restarts_left, "respawn"),
            Note::NoRoom { wait } => warn!(next = show_rounded(*wait), "the system cannot start another process"),
            Note::GivingUp { status, cause, failures } => error!(status, %cause, after = failures, "giving up"),
            Note::Reloading => info!("reload"),
            Note::ShortOfMemory { shortage, takeover: Takeover::Stepwise { .. } } => {
                warn!("not enough memory for two generations: {shortage}; replacing worker by worker");
            }
            Note::ShortOfMemory { shortage, takeover: Takeover::AtOnce } => {
                warn!("not enough memory for two generations: {shortage}; one worker takes over first");
            }
            Note::Step { old, old_workers, new, new_workers } => {
                info!(old = old.0, old_workers, new = new.0, new_workers, "step");
            }
            Note::StepsFailed { generation, given_back } => {
                error!(
                    generation = generation.0,
                    given_back, "the new generation failed halfway: returning to the old one"
                );
            }
            Note::Complete { generation, workers } => info!(generation = generation.0, workers, "complete"),
            Note::TakenBack { generation, failed } => {
                warn!(generation = generation.0, failed = failed.0, "the old generation serves again");
            }
            Note::Silent { generation } => warn!(generation = generation.0, "not ready: no worker answers"),
            Note::Answering { generation } => info!(generation = generation.0, "ready again: a worker answers"),
            Note::NoWorkers { generation } => error!(generation = generation.0, "no worker left"),
            Note::SurvivorsServe { why, wait } => {
                error!(%why, next = show_rounded(*wait), "the replacement failed too often: the workers without a main process keep serving");
            }
            Note::StaysSmall { why, wait } => {
                error!(%why, next = show_rounded(*wait), "the full generation failed: one worker keeps serving");
            }
            Note::ReloadFailed { why, serves: true } => error!(%why, "reload failed, the old generation was kept"),
            Note::ReloadFailed { why, serves: false } => error!(%why, "reload failed, and nothing serves"),
            Note::RenewalFailed { why, serves: true } => {
                warn!(%why, "the single worker could not be replaced with its generation: it keeps serving");
            }
            Note::RenewalFailed { why, serves: false } => {
                error!(%why, "the single worker could not be replaced with its generation, and nothing serves");
            }
            Note::Stopping { delay, budget } if delay.is_zero() => info!(budget = show_span(*budget), "stopping"),
            Note::Stopping { delay, budget } => {
                info!(budget = show_span(*budget), delay = show_span(*delay), "stopping after the delay");
            }
            Note::Hurrying => warn!("second stop signal: not waiting any longer"),
            Note::Killing => warn!("time is up: killing what is left"),
            Note::Gone { generation } => info!(generation = generation.0, "gone"),
            Note::Abandoned => error!("a killed process is stuck in the kernel: not waiting for it any longer"),
            Note::Stopped { status } => info!(status, "exit"),
        }
    }

    fn write_ready(&self, generation: GenerationId) {
        let found = self.state.generations().iter().find(|found| found.id == generation);
        let Some(plan) = self.plan_of(generation) else { return };
        let workers = found.map_or(plan.workers, |found| found.startup.workers(plan.workers));
        let boot = self.running.get(&generation).map(|running| show_rounded(running.started.elapsed()));
        info!(
            generation = generation.0,
            server = %server_name(plan),
            address = %self.listeners.bind(),
            workers,
            limit = plan.limit.map(tracing::field::display),
            boot = boot.unwrap_or_default(),
            "ready"
        );
    }
}

/// `granian/2.8.7`.
#[must_use]
pub fn server_name(plan: &Plan) -> String {
    plan.version.map_or_else(|| plan.server.to_string(), |version| format!("{}/{version}", plan.server))
}

/// Rounded to what matters to a reader: tenths of seconds, or whole ones.
pub(in crate::supervisor) fn show_rounded(span: impl std::borrow::Borrow<Duration>) -> String {
    let span = span.borrow();
    match span.as_secs() {
        0 if span.as_millis() < 10 => format!("{}ms", span.as_millis()),
        0..60 => format!("{:.1}s", span.as_secs_f64()),
        secs @ 60..3600 => format!("{}m{}s", secs / 60, secs % 60),
        secs => format!("{}h{}m", secs / 3600, secs / 60 % 60),
    }
}
