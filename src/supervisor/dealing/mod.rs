//! Dealing new clients out to workers, where each has a listening socket from us. [`policy`] says who gets some; this is
//! what it sees.
//!
//! The loop sleeps until a worker wakes it, because it has become ready or full, has room again, or has seen that a
//! sibling does not turn its event loop any more or does so again. What a worker writes is never more than one event
//! loop's turn old then.

pub mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;
use tracing::debug;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::guard::scoreboard::{self, Accepts, Slot, State};
use crate::ids::GenerationId;
use crate::proc::process::Process;
use policy::{Sample, Standing};

/// Deals clients out to the workers that can take them.
#[derive(Debug, Default)]
pub(super) struct Dealing {
    /// Which sockets of each generation get none.
    withheld: BTreeMap<GenerationId, BTreeSet<usize>>,
    /// Of the list of workers, at the last look.
    revision: u64,
    /// Whether a worker was told to leave since then.
    one_leaves: bool,
    /// Workers that were looked for because they wrote to the scoreboard and were not known.
    sought: BTreeSet<Pid>,
}

impl Component for Dealing {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        for wakeup in world.running.values().filter_map(|running| running.wakeup.as_ref()) {
            waits.readable(wakeup.as_fd());
        }
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        self.withheld.retain(|generation, _| world.running.contains_key(generation));
        let is_woken = world.running.values().filter_map(|running| running.wakeup.as_ref()).any(drain);
        let revision = std::mem::replace(&mut self.revision, world.workers.revision());
        if !is_woken && !std::mem::take(&mut self.one_leaves) && revision == self.revision {
            return Vec::new();
        }
        self.seek_newcomers(world);
        let generations: Vec<GenerationId> = world.running.keys().copied().collect();
        generations.into_iter().filter_map(|generation| self.deal(generation, world)).collect()
    }

    fn observe(&mut self, _world: &mut World, action: &Action) {
        self.one_leaves |= matches!(action, Action::RetireWorker { .. });
    }
}

impl Dealing {
    /// Looks for workers that are on the scoreboard and not known yet: once for each.
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
        if sockets < 2 || world.running.get(&generation)?.wakeup.is_none() {
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

/// Takes out what workers wrote, and says whether there was anything.
fn drain(wakeup: &OwnedFd) -> bool {
    let mut buffer = [0; 256];
    let mut is_woken = false;
    while matches!(nix::unistd::read(wakeup, &mut buffer), Ok(1..)) {
        is_woken = true;
    }
    is_woken
}

/// What a worker says of itself, if it has a socket of its own.
fn sample(slot: &Slot) -> Option<Sample> {
    let Accepts::Lent(listener) = slot.accepts else { return None };
    Some(Sample {
        listener,
        is_ready: slot.state == State::Ready,
        is_leaving: slot.state == State::Stopping || slot.is_leaving,
        heartbeat: slot.heartbeat,
        in_flight: slot.in_flight,
        limit: slot.limit.map(NonZeroU32::get),
    })
}

/// How a worker stands with new clients, if it has a socket of its own.
#[must_use]
pub fn standing(slot: &Slot) -> Option<Standing> {
    sample(slot).map(|worker| policy::standing(&worker, scoreboard::now()))
}
