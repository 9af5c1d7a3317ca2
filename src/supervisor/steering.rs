//! Steers new clients from one generation to the next if the server's workers have their own listening sockets.
//!
//! A copy of one worker's socket is enough to steer the whole group. If the kernel does not let us take one (Docker's
//! seccomp profile), a worker is asked for it, except under Python 3.14 and later, where workers are spawned and do not
//! inherit the channel. Without a copy, the kernel keeps choosing by hash, and a few clients that connect at the moment
//! when the old listeners close are lost (`net.ipv4.tcp_migrate_req=1` helps).

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use tracing::debug;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::generation::{Generation, Main};
use crate::ids::GenerationId;
use crate::plan::Bind;
use crate::proc::sockets;
use crate::run::listener::Remaining;
use crate::run::listener::borrowed::BorrowedSockets;
use crate::sys::pidfd::PidFd;
use crate::sys::reuseport::{self, Share};

/// The listening sockets of one generation's workers within the group that shares the port.
struct Own {
    /// The number of members that belong to others. They are older, so their numbers are lower.
    others: usize,
    /// The number of this generation's members.
    count: usize,
    /// A copy of one of them. It must not be kept: it would keep the socket alive after the worker's end.
    handle: OwnedFd,
}

impl Own {
    /// The same share of new clients for each of them.
    fn shares(&self) -> Vec<Share> {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (self.others..self.others + self.count).map(|member| (number(member), 1)).collect()
    }
}

/// Late answers of workers. They are read so that the copies of sockets in them get closed.
pub(super) struct Leftovers;

impl Component for Leftovers {
    fn wait_for<'a>(&'a self, world: &'a World, waits: &mut Waits<'a>) {
        let descriptors = world.running.values().filter_map(|running| running.channels.borrowed.as_ref()?.interest());
        descriptors.for_each(|descriptor| waits.readable(descriptor));
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        world
            .running
            .values()
            .filter_map(|running| running.channels.borrowed.as_ref())
            .for_each(BorrowedSockets::drain);
        Vec::new()
    }
}

impl World {
    /// Keeps clients with a generation that opened its own sockets while another one gets sockets from us.
    pub(super) fn steer_past_newcomer(&self) {
        if let Some(own) = self.state.serving().and_then(|serving| self.own_listeners(serving.id)) {
            let _ = reuseport::route(&own.handle, &own.shares());
        }
    }

    /// Sends new clients only to these generations, in these proportions.
    pub(super) fn steer_to(&mut self, shares: &[(GenerationId, u32)]) {
        self.listeners.steer(shares);
        for (generation, _) in shares {
            if let Some(own) = self.own_listeners(*generation).filter(|own| own.others > 0) {
                let result = reuseport::route(&own.handle, &own.shares());
                let (others, count) = (own.others, own.count);
                debug!(generation = generation.0, others, count, ?result, "steering to a server's own listeners");
            }
        }
    }

    /// Prepares for the closing of listening sockets that a server opened itself. When one closes, the kernel gives its
    /// number to the last member. The remaining generation keeps its numbers if enough other members come after it.
    pub(super) fn hold_numbers(&mut self, staying: GenerationId) {
        if self.listeners.serves(staying) {
            self.listeners.pad(self.foreign());
        } else if let Some(own) = self.own_listeners(staying) {
            self.listeners.pad(own.others);
        }
    }

    /// Takes back the sockets of a generation that has ended. If a generation remains that opened its own, the kernel
    /// distributes clients again.
    pub(super) fn end_handover(&mut self, gone: GenerationId) {
        let runs = |other: &&Generation| other.id != gone && other.main != Main::Spawning;
        let rest: Vec<GenerationId> = self.state.generations().iter().filter(runs).map(|other| other.id).collect();
        let remaining = match &rest[..] {
            [] => Remaining::Nobody,
            rest if rest.iter().all(|other| self.listeners.serves(*other)) => Remaining::Lent,
            _ => Remaining::Own,
        };
        self.listeners.release(gone, remaining);
        if let Some(own) = rest.first().and_then(|rest| self.own_listeners(*rest)) {
            let _ = reuseport::unroute(&own.handle);
        }
    }

    /// The number of members that are not our sockets.
    fn foreign(&self) -> usize {
        match self.listeners.bind() {
            Bind::Tcp(address) => sockets::at(*address).len().saturating_sub(self.listeners.count()),
            Bind::Unix(_) => 0,
        }
    }

    fn own_listeners(&self, generation: GenerationId) -> Option<Own> {
        let Bind::Tcp(address) = self.listeners.bind() else { return None };
        if self.listeners.serves(generation) {
            return None;
        }
        let group: BTreeSet<u64> = sockets::at(*address);
        let main = self.running.get(&generation)?.main;
        let workers = self.members(generation).into_iter().filter(|member| member.pid != main);
        let found: Vec<_> = workers
            .flat_map(|worker| {
                sockets::owned(worker.pid.as_raw(), &group)
                    .into_iter()
                    .map(move |(fd, inode)| (worker.pid, fd, inode))
            })
            .collect();
        let inodes: BTreeSet<u64> = found.iter().map(|(.., inode)| *inode).collect();
        let (pid, descriptor, _) = found.first()?;
        let taken = PidFd::open(*pid).and_then(|worker| worker.take_copy(*descriptor));
        let lent = |errno: Errno| {
            let line = self.running.get(&generation)?.channels.borrowed.as_ref();
            let handle = line.and_then(|line| line.ask(&inodes));
            debug!(taken = errno.desc(), lent = handle.is_some(), "cannot take a copy of a worker's socket");
            handle
        };
        let handle = taken.map_or_else(lent, Some)?;
        Some(Own { others: group.len() - inodes.len(), count: inodes.len(), handle })
    }
}
