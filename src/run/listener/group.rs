//! The launcher's listening sockets on one address, and the program that distributes clients among them.
//!
//! All sockets on the address form one group (`SO_REUSEPORT`). A server gets one socket for all of its workers, or one
//! for each. When a generation has ended, its sockets are not closed but kept for the next one, and the program leaves
//! them out. So the numbers of the members never change while clients connect, and clients that wait in a socket are
//! accepted by its next owner.
//!
//! Sockets that a server opens itself may be in the group as well. When one of them closes, the kernel gives its number to
//! the last member: see [`Group::pad`] and [`Group::close_idle`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::{close_for_all, tcp};
use crate::ids::GenerationId;
use crate::proc::sockets;
use crate::sys::reuseport::{Share, route, unroute};

/// Our members of the group.
#[derive(Debug)]
pub(super) struct Group {
    address: SocketAddr,
    members: Vec<Member>,
    /// The members lent to each generation, in the order of its workers.
    lent: BTreeMap<GenerationId, Vec<usize>>,
    /// The generations that get new clients, and in which proportions.
    route: Vec<(GenerationId, u32)>,
    /// Workers that get no new clients although their generation does: indices into `lent`.
    withheld: BTreeMap<GenerationId, BTreeSet<usize>>,
    /// The attached program; empty if there is none.
    program: Vec<Share>,
    /// Sockets that listen but never get a client: see [`Self::pad`].
    padding: Vec<OwnedFd>,
    /// Whether the kernel lets us steer; none until we have tried.
    steerable: Option<bool>,
    /// Whether it is unknown which member has which number. Together they still have the lowest numbers.
    is_shuffled: bool,
}

#[derive(Debug)]
struct Member {
    socket: OwnedFd,
    /// Its number in the group.
    number: u32,
}

impl Group {
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            members: Vec::new(),
            lent: BTreeMap::new(),
            route: Vec::new(),
            withheld: BTreeMap::new(),
            program: Vec::new(),
            padding: Vec::new(),
            steerable: None,
            is_shuffled: false,
        }
    }

    /// How many members of the group are ours.
    pub fn count(&self) -> usize {
        self.members.len() + self.padding.len()
    }

    /// The sockets lent to a generation, in the order of its workers.
    pub fn of(&self, generation: GenerationId) -> Option<Vec<&OwnedFd>> {
        let lent = self.lent.get(&generation)?;
        Some(lent.iter().map(|index| &self.members[*index].socket).collect())
    }

    /// Lends a generation this number of sockets: idle ones first, and of these the ones in which clients may wait. New
    /// sockets get no clients until [`Self::steer`].
    pub fn lend(&mut self, generation: GenerationId, count: usize, backlog: u32) -> nix::Result<()> {
        let mut lent = self.idle();
        lent.truncate(count);
        while lent.len() < count {
            match self.join(backlog) {
                Ok(index) => lent.push(index),
                // Without steering, all share one socket. No client is lost in it; but a leaving worker accepts to the
                // last moment, and if it is Granian's, disconnects those that have sent nothing by then.
                Err(Errno::EOPNOTSUPP) => lent = vec![0; count],
                Err(errno) => return Err(errno),
            }
        }
        for index in &lent {
            tcp::listen_on(&self.members[*index].socket, backlog)?;
        }
        self.lent.insert(generation, lent);
        Ok(())
    }

    /// The members that are not lent, starting with those in which clients may wait.
    fn idle(&self) -> Vec<usize> {
        let is_lent = |index: &usize| self.lent.values().any(|lent| lent.contains(index));
        let mut idle: Vec<usize> = (0..self.members.len()).filter(|index| !is_lent(index)).collect();
        let is_chosen = |index: &usize| {
            self.program.is_empty() || self.program.iter().any(|share| share.0 == self.members[*index].number)
        };
        idle.sort_by_key(|index| !is_chosen(index));
        idle
    }

    /// Adds a member that gets no clients yet.
    ///
    /// EOPNOTSUPP if the kernel does not let us steer, because it would get clients at once.
    fn join(&mut self, backlog: u32) -> nix::Result<usize> {
        if let Some(first) = self.members.first() {
            if self.program.is_empty() {
                let program = vec![(first.number, 1)];
                match route(&first.socket, &program) {
                    Ok(()) => self.program = program,
                    Err(errno) => self.cannot_steer(errno),
                }
            }
            if self.steerable == Some(false) {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        let socket = tcp::reuse_port_socket(self.address)?;
        let number = u32::try_from(sockets::at(self.address).len()).map_err(|_| Errno::EMFILE)?;
        tcp::listen_on(&socket, backlog)?;
        self.members.push(Member { socket, number });
        Ok(self.members.len() - 1)
    }

    fn cannot_steer(&mut self, errno: Errno) {
        if self.steerable.replace(false) != Some(false) {
            let error = errno.desc();
            tracing::warn!(error, "new clients cannot be steered: all workers and generations share one socket");
        }
    }

    /// Sends new clients only to these generations.
    pub fn steer(&mut self, route: &[(GenerationId, u32)]) {
        if route.iter().any(|(generation, _)| self.lent.contains_key(generation)) {
            self.route = route.to_vec();
            self.apply();
        }
    }

    /// Sends no new clients to these workers of a generation, unless no worker would be left.
    pub fn withhold(&mut self, generation: GenerationId, withheld: BTreeSet<usize>) {
        if self.lent.contains_key(&generation) {
            self.withheld.insert(generation, withheld);
            self.apply();
        }
    }

    /// Attaches the program if it has changed.
    fn apply(&mut self) {
        let program = self.wanted();
        let is_needed = self.members.len() > 1 || self.members.iter().any(|member| member.number > 0);
        let Some(first) = self.members.first().filter(|_| is_needed && !program.is_empty()) else { return };
        if self.steerable == Some(false) || program == self.program {
            return;
        }
        match route(&first.socket, &program) {
            Ok(()) => (self.steerable, self.program) = (Some(true), program),
            Err(errno) if self.members.len() == 1 => self.cannot_steer(errno),
            Err(errno) => tracing::warn!(error = errno.desc(), "cannot steer new clients: a few may be lost"),
        }
    }

    fn wanted(&self) -> Vec<Share> {
        let none = BTreeSet::new();
        let mut program: Vec<Share> = Vec::new();
        for (generation, share) in &self.route {
            let Some(lent) = self.lent.get(generation) else { continue };
            let withheld = self.withheld.get(generation).filter(|_| !self.is_shuffled).unwrap_or(&none);
            let open: Vec<usize> = (0..lent.len()).filter(|worker| !withheld.contains(worker)).collect();
            let open = if open.is_empty() { (0..lent.len()).collect() } else { open };
            program.extend(open.iter().map(|worker| (self.members[lent[*worker]].number, *share)));
        }
        program.retain(|(_, share)| *share > 0);
        program.sort_unstable();
        program.dedup_by_key(|share| share.0);
        program
    }

    /// Adds members that never get clients. As older members leave, the kernel gives their numbers to these, and not to
    /// the sockets that clients are steered to. [`Self::release`] removes them again; in those microseconds the kernel
    /// chooses by hash, and a client may be reset.
    pub fn pad(&mut self, count: usize) {
        self.padding.extend((0..count).map_while(|_| {
            let socket = tcp::reuse_port_socket(self.address).ok()?;
            tcp::listen_on(&socket, 1).ok().map(|()| socket)
        }));
    }

    /// Takes the sockets back from a generation that has ended.
    pub fn release(&mut self, generation: GenerationId) {
        self.unpad();
        self.renumber_if_others_left();
        self.withheld.remove(&generation);
        self.lent.remove(&generation);
        let has_route = self.route.iter().any(|(other, _)| self.lent.contains_key(other));
        if !has_route && !self.lent.is_empty() {
            // Its successors are starting already, with sockets of their own.
            self.route = self.lent.keys().map(|successor| (*successor, 1)).collect();
            self.apply();
        }
        // No worker will accept clients that were on their way to these sockets when the others took over.
        if !self.lent.is_empty() {
            self.empty_idle();
        }
    }

    /// Removes the padding. The kernel gives its numbers to our members, in an unknown order if there are several.
    fn unpad(&mut self) {
        if self.padding.is_empty() {
            return;
        }
        self.padding.drain(..).for_each(|padding| close_for_all(&padding));
        self.renumber();
    }

    /// Renumbers if other sockets with lower numbers have left the group.
    fn renumber_if_others_left(&mut self) {
        let last = self.members.iter().map(|member| member.number as usize).max();
        if last >= Some(self.members.len()) && sockets::at(self.address).len() == self.members.len() {
            self.renumber();
        }
    }

    fn renumber(&mut self) {
        for (number, member) in (0..).zip(&mut self.members) {
            member.number = number;
        }
        self.is_shuffled = self.members.len() > 1;
        self.apply();
    }

    /// Closes idle members, because the group now belongs to sockets that a server opened itself.
    pub fn close_idle(&mut self) {
        while let Some(index) = self.idle().pop() {
            // A stray descendant may still have the socket. Shutting it down removes it from the group all the same.
            let leaving = self.members.swap_remove(index);
            close_for_all(&leaving.socket);
            let moved = self.members.len();
            for lent in self.lent.values_mut().flatten().filter(|lent| **lent == moved) {
                *lent = index;
            }
            let last = self.members.iter().map(|member| member.number).max();
            // The kernel gives the free number to the last member.
            let last = self.members.iter_mut().find(|member| Some(member.number) == last);
            if let Some(last) = last.filter(|last| last.number > leaving.number) {
                last.number = leaving.number;
            }
        }
        if self.members.is_empty() {
            self.program.clear();
        }
        self.apply();
    }

    /// Disconnects clients that wait where no worker accepts any more, so that they can try again at once.
    pub fn empty_idle(&self) {
        for index in self.idle() {
            let socket = &self.members[index].socket;
            if tcp::set_waiting(socket, false).is_err() {
                continue;
            }
            while let Ok(client) = nix::sys::socket::accept(socket.as_raw_fd()) {
                let _ = nix::unistd::close(client);
            }
        }
    }

    /// If only one member is left, lets the kernel choose by hash again.
    pub fn settle(&mut self) {
        if let [only] = &self.members[..]
            && sockets::at(self.address).len() == 1
            && !self.program.is_empty()
        {
            let _ = unroute(&only.socket);
            self.program.clear();
        }
    }

    pub fn all(&self) -> Vec<&OwnedFd> {
        self.members.iter().map(|member| &member.socket).collect()
    }

    /// Removes members for good, at a stop.
    pub fn close(&mut self, is_it: impl Fn(&OwnedFd) -> bool) -> Vec<OwnedFd> {
        self.lent.clear();
        self.members.extract_if(.., |member| is_it(&member.socket)).map(|member| member.socket).collect()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockopt, sockopt::TcpNoDelay};

    use super::*;

    #[test]
    fn connections_send_without_waiting_for_acknowledgements() {
        let (_holder, address) = tcp::claim("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut group = Group::new(address);
        group.lend(GenerationId(1), 2, 16).unwrap();
        for socket in group.of(GenerationId(1)).unwrap() {
            assert!(getsockopt(socket, TcpNoDelay).unwrap());
        }
    }

    #[test]
    fn where_nothing_can_be_steered_all_workers_and_generations_share_one_socket() {
        let (_holder, address) = tcp::claim("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut group = Group::new(address);
        group.steerable = Some(false);
        group.lend(GenerationId(1), 3, 16).unwrap();
        group.lend(GenerationId(2), 2, 16).unwrap();
        assert_eq!(group.count(), 1);
        group.steer(&[(GenerationId(2), 1)]);
        group.withhold(GenerationId(2), BTreeSet::from([0]));
        let _client = std::net::TcpStream::connect(address).unwrap();
        group.release(GenerationId(1));
        let socket = group.of(GenerationId(2)).unwrap()[1].as_raw_fd();
        assert!(nix::sys::socket::accept(socket).is_ok(), "the remaining generation has the waiting clients");
    }
}
