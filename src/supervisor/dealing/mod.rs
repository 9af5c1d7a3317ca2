//! Distributing new clients among workers that each have a listening socket from the launcher. [`policy`] decides; this
//! component provides its input.
//!
//! The loop sleeps until a worker wakes it, because the worker has become ready or full, has room again, or has noticed
//! that another worker's event loop has stopped or continues.

pub mod policy;
pub mod wakeup;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use nix::unistd::Pid;
use tracing::debug;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::guard::scoreboard::{self, Accepts, Slot, State};
use crate::ids::GenerationId;
use crate::proc::process::Process;
use policy::{Condition, Sample, Standing};

/// Sends new clients to the workers that can take them.
#[derive(Debug, Default)]
pub(super) struct Dealing {
    /// The sockets of each generation that get no new clients.
    withheld: BTreeMap<GenerationId, BTreeSet<usize>>,
    /// The revision of the list of workers at the last look.
    revision: u64,
    /// Whether a worker was asked to leave, or its limit was changed, since then.
    is_due: bool,
    /// Workers on the scoreboard that were unknown and have been searched for.
    sought: BTreeSet<Pid>,
}

impl Component for Dealing {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        for wakeup in world.running.values().filter_map(|running| running.channels.wakeup.as_ref()) {
            waits.readable(wakeup.as_fd());
        }
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        self.withheld.retain(|generation, _| world.running.contains_key(generation));
        let woken = world
            .running
            .values()
            .filter_map(|running| running.channels.wakeup.as_ref())
            .filter(|wakeup| wakeup.take())
            .count();
        let revision = std::mem::replace(&mut self.revision, world.workers.revision());
        let is_due = std::mem::take(&mut self.is_due);
        if woken == 0 && !is_due && revision == self.revision {
            return Vec::new();
        }
        self.seek_newcomers(world);
        let generations: Vec<GenerationId> = world.running.keys().copied().collect();
        generations.into_iter().filter_map(|generation| self.deal(generation, world)).collect()
    }

    fn observe(&mut self, _world: &mut World, action: &Action) {
        self.is_due |= matches!(action, Action::RetireWorker { .. } | Action::Limit { .. });
    }
}

impl Dealing {
    /// Searches for workers that are on the scoreboard but unknown, once for each.
    fn seek_newcomers(&mut self, world: &mut World) {
        let known = |generation| world.workers.of(generation).into_iter().map(|worker: Process| worker.pid);
        let known: BTreeSet<Pid> = world.running.keys().flat_map(|generation| known(*generation)).collect();
        let boards = world.running.values().filter_map(|running| running.board.as_ref());
        let ready = boards.flat_map(scoreboard::Scoreboard::slots).filter(|slot| slot.state == State::Ready);
        let sought: BTreeSet<Pid> = ready.map(|slot| slot.pid).filter(|pid| !known.contains(pid)).collect();
        if !sought.is_subset(&self.sought) {
            world.look_at_workers();
        }
        self.sought = sought;
    }

    fn deal(&mut self, generation: GenerationId, world: &World) -> Option<Output> {
        let sockets = world.listeners.inodes(generation).len();
        if sockets < 2 || world.running.get(&generation)?.channels.wakeup.is_none() {
            return None;
        }
        let workers: Vec<Sample> = world.slots(generation).iter().filter_map(|(_, slot)| sample(slot)).collect();
        let withheld = policy::withheld(sockets, &workers, scoreboard::now());
        if self.withheld.get(&generation) == Some(&withheld) {
            return None;
        }
        debug!(generation = generation.0, ?withheld, "dealing");
        self.withheld.insert(generation, withheld.clone());
        Some(Action::Deal { generation, withheld }.into())
    }
}

/// The policy's input about a worker, if it has its own socket.
pub(super) fn sample(slot: &Slot) -> Option<Sample> {
    let Accepts::Lent(listener) = slot.accepts else { return None };
    Some(Sample { listener, condition: condition(slot) })
}

fn condition(slot: &Slot) -> Condition {
    Condition {
        is_ready: slot.state == State::Ready,
        is_leaving: slot.state == State::Stopping || slot.is_leaving,
        heartbeat: slot.heartbeat,
        in_flight: slot.in_flight,
        limit: slot.limit.map(NonZeroU32::get),
    }
}

/// Whether a worker of a generation whose clients are distributed gets new ones. None if this worker is not part of it: it
/// opened its socket itself, or its server accepts in a way that the guard does not know.
#[must_use]
pub fn standing(slot: &Slot) -> Option<Standing> {
    let takes_part = match slot.state {
        State::Ready => matches!(slot.accepts, Accepts::Lent(_)) || slot.connections.is_some(),
        State::Starting | State::Stopping => true,
    };
    takes_part.then(|| policy::standing(&condition(slot), scoreboard::now()))
}
