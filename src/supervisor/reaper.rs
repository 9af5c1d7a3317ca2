//! What it means for the generations that a child was reaped, ours or adopted.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::unistd::Pid;
use tracing::debug;

use super::World;
use super::effects::own_descendants;
use super::machine::event::Event;
use super::machine::generation::Main;
use super::machine::outcome::Outcome;
use crate::guard::scoreboard::Scoreboard;
use crate::ids::GenerationId;
use crate::proc::process::{self, Process};
use crate::run::status_of;

impl World {
    /// A child was reaped: a main process, a worker that lost its main process, or something else that did.
    pub(super) fn reaped(&mut self, pid: Pid, status: ExitStatus) -> Vec<Event> {
        let outcome = status.signal().map_or_else(|| Outcome::Exited(status_of(status)), Outcome::Signaled);
        let Some((&generation, running)) = self.running.iter_mut().find(|(_, running)| running.main == pid) else {
            debug!(%pid, %outcome, "reaped an orphan");
            self.workers.reaped(pid, status);
            return Vec::new();
        };
        // Its workers become our children, and in a terminal there is no separate process group that shows whose they
        // were.
        running.seen.extend(self.workers.of(generation).iter().map(Process::id));
        let why = running.board.as_ref().and_then(Scoreboard::failure);
        if let Some(failed) = self.exec_failed(generation) {
            return vec![failed];
        }
        let survivors = self.has_survivors(generation, &own_descendants());
        self.record_server(generation, pid, outcome, why.clone(), survivors);
        let reported = why.map(|why| Event::FailureReported { generation, why });
        reported.into_iter().chain([Event::Exited { pid, outcome, survivors }]).collect()
    }

    /// The generations that have lost their main process and have no other process left.
    pub(super) fn emptied(&self) -> Vec<GenerationId> {
        let orphaned = self.state.generations().iter().filter(|generation| generation.main == Main::Gone);
        let orphaned: Vec<GenerationId> = orphaned.map(|generation| generation.id).collect();
        if orphaned.is_empty() {
            return orphaned;
        }
        let all = own_descendants();
        orphaned.into_iter().filter(|generation| !self.has_survivors(*generation, &all)).collect()
    }

    /// Whether processes of a generation live on whose main process has ended.
    fn has_survivors(&self, generation: GenerationId, all: &[Process]) -> bool {
        self.running.get(&generation).is_some_and(|running| {
            if !process::are_visible() {
                return process::has_children_in(running.main);
            }
            let members = process::members(all, running.main, &running.seen);
            members.iter().any(|member| member.pid != running.main && !member.is_dying)
        })
    }
}
