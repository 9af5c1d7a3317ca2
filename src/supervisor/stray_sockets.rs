//! Listening sockets of workers that have ended, held open by their children.
//!
//! If workers listen for themselves (Granian), a worker that is killed leaves its process-pool children behind, which
//! have inherited its listening socket. The kernel continues to choose that socket for new clients, and no process
//! accepts them. So when a worker has ended, its socket is removed from the group: it is shut down through a copy, or,
//! if the kernel does not give us one, the children that have it open are killed. They have no more work.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use nix::unistd::Pid;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::action::Action;
use super::machine::generation::Main;
use crate::ids::ProcessId;
use crate::plan::Bind;
use crate::proc::process::{self, Process};
use crate::proc::sockets;

/// Looks for such sockets whenever a worker has come or gone.
#[derive(Debug, Default)]
pub(super) struct StraySockets {
    /// The revision of the list of workers at the last check.
    revision: u64,
}

impl Component for StraySockets {
    fn wait_for<'a>(&'a self, _world: &'a World, _waits: &mut Waits<'a>) {}

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let revision = world.workers.revision();
        if std::mem::replace(&mut self.revision, revision) == revision {
            return Vec::new();
        }
        let Bind::Tcp(address) = world.listeners.bind() else { return Vec::new() };
        let address = *address;
        let generations =
            world.state.generations().iter().filter(|generation| {
                matches!(generation.main, Main::Alive(_)) && !world.listeners.serves(generation.id)
            });
        let strays =
            generations.flat_map(|generation| strays(&world.members(generation.id), generation.main, address));
        strays.map(Output::from).collect()
    }
}

/// The sockets of the group that are only held by processes that no longer descend from the main process.
fn strays(members: &[Process], main: Main, address: SocketAddr) -> Vec<Action> {
    let Main::Alive(main) = main else { return Vec::new() };
    let family: BTreeSet<ProcessId> = process::descendants(main).iter().map(Process::id).collect();
    let is_orphan = |member: &&Process| member.pid != main && !family.contains(&member.id()) && !member.is_dying;
    let orphans: Vec<&Process> = members.iter().filter(is_orphan).collect();
    if orphans.is_empty() {
        return Vec::new();
    }
    let group = sockets::at(address);
    let owned = |pid: Pid| sockets::owned(pid.as_raw(), &group);
    let served: BTreeSet<u64> =
        family.iter().flat_map(|process| owned(process.pid)).map(|(_, inode)| inode).collect();
    let mut found = BTreeSet::new();
    let mut actions = Vec::new();
    for orphan in orphans {
        for (descriptor, inode) in owned(orphan.pid) {
            if !served.contains(&inode) && found.insert(inode) {
                actions.push(Action::ShutDownSocket { holder: orphan.id(), descriptor });
            }
        }
    }
    actions
}
