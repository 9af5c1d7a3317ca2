//! Closing the listening sockets at a stop, so that clients do not wait in a queue that is not served.
//!
//! The servers close their sockets when they stop accepting, but copies remain: the launcher's, those of Granian's main
//! process, those of child processes of workers. So each socket is shut down as soon as no worker polls it any more.
//! Not earlier, because a worker that still accepts would treat that as an error: some classes end, and Granian misses
//! the signal. If no worker was seen polling a socket (Gunicorn's sync workers use another way), only our copy is
//! closed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use crate::proc::sockets::is_polled;

/// The interval between two checks of the workers.
const INTERVAL: Duration = Duration::from_millis(20);

/// Closes listening sockets one by one.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// The open sockets by inode, and whether a worker was seen polling them.
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
    /// All known workers.
    fn worker_pids(&self) -> Vec<Pid> {
        self.running.keys().flat_map(|id| self.workers.of(*id)).map(|worker| worker.pid).collect()
    }
}
