//! Closing the listening sockets at a stop, so that nobody is let into a queue that nobody serves.
//!
//! The servers close theirs when they have stopped accepting, but copies remain: ours, those of Granian's main process,
//! those of children that workers started. So each socket is shut down once no worker waits for clients on it any more.
//! Not earlier: a worker that still accepts would take that for an error, and some end, or never hear the signal. A
//! socket that no worker was seen to wait on (Gunicorn's sync workers do so in another way) is only closed here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::proc::sockets::is_polled;

/// Between two looks at the workers.
const INTERVAL: Duration = Duration::from_millis(20);

/// Closes listening sockets one by one.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// What is still open, by inode, and whether a worker was seen to wait on it.
    open: BTreeMap<u64, bool>,
    next: Option<Instant>,
}

impl Component for Closing {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        waits.until(self.next);
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let workers: Vec<Pid> = world.worker_pids();
        let closed: BTreeMap<u64, bool> =
            self.open.extract_if(.., |inode, _| !is_polled_by_any(&workers, *inode)).collect();
        self.next = (!self.open.is_empty()).then_some(now + INTERVAL);
        let close = |(inode, shut_down)| Action::CloseListener { inode, shut_down }.into();
        closed.into_iter().map(close).collect()
    }

    fn observe(&mut self, world: &mut World, action: &Action) {
        if *action == Action::RefuseClients {
            let workers = world.worker_pids();
            let inodes = world.listeners.all_inodes().into_iter();
            self.open = inodes.map(|inode| (inode, is_polled_by_any(&workers, inode))).collect();
            self.next = Some(Instant::now());
        }
    }
}

fn is_polled_by_any(workers: &[Pid], inode: u64) -> bool {
    workers.iter().any(|worker| is_polled(worker.as_raw(), inode))
}

impl World {
    /// All workers that are known.
    fn worker_pids(&self) -> Vec<Pid> {
        self.running.keys().flat_map(|id| self.workers.of(*id)).map(|worker| worker.pid).collect()
    }
}
