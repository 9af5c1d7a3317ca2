//! The listening sockets that we made, in the group that shares the port.
//!
//! A server gets one for all of its workers, or one for each. Each keeps its number in the group for as long as only
//! ours are in it: a socket whose generation is gone is not closed but kept for the next one, and the program on the
//! group leaves it out. So no number ever moves while clients connect, and what waits in a socket is accepted by
//! whoever gets it next.
//!
//! Sockets that a server's workers open for themselves are strangers here. They leave when they please, and the kernel
//! then moves the last member into their place: see [`Group::pad`] and [`Group::close_idle`].

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
    /// Which of them each generation has, in the order of its workers.
    lent: BTreeMap<GenerationId, Vec<usize>>,
    /// Which generations get new clients, and how many parts of them.
    route: Vec<(GenerationId, u32)>,
    /// Workers that get none although their generation does: indices into what it was lent.
    withheld: BTreeMap<GenerationId, BTreeSet<usize>>,
    /// The program on the group; empty if there is none.
    program: Vec<Share>,
    /// Listening, and never chosen: see [`Self::pad`].
    padding: Vec<OwnedFd>,
    /// Whether the kernel lets us choose; none until it was tried.
    steerable: Option<bool>,
    /// Whether it is no longer known which member has which number. As a whole they still have the lowest ones.
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

    /// What a generation was lent, in the order of its workers.
    pub fn of(&self, generation: GenerationId) -> Option<Vec<&OwnedFd>> {
        let lent = self.lent.get(&generation)?;
        Some(lent.iter().map(|index| &self.members[*index].socket).collect())
    }

    /// Lends a generation so many sockets. No client gets to new ones beside others until [`Self::steer`] says so; if
    /// nobody else has any, those are lent first in which clients may wait.
    pub fn lend(&mut self, generation: GenerationId, count: usize, backlog: u32) -> nix::Result<()> {
        let mut lent = self.idle();
        lent.truncate(count);
        while lent.len() < count {
            match self.join(backlog) {
                Ok(index) => lent.push(index),
                // All share one: nothing can be steered, and nothing is lost either.
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

    /// Members that nobody has, those in which clients may wait first.
    fn idle(&self) -> Vec<usize> {
        let is_lent = |index: &usize| self.lent.values().any(|lent| lent.contains(index));
        let mut idle: Vec<usize> = (0..self.members.len()).filter(|index| !is_lent(index)).collect();
        let is_chosen = |index: &usize| {
            self.program.is_empty() || self.program.iter().any(|share| share.0 == self.members[*index].number)
        };
        idle.sort_by_key(|index| !is_chosen(index));
        idle
    }

    /// One more member, which is not chosen: the group has a program from now on.
    ///
    /// EOPNOTSUPP if it would be chosen, because the kernel does not let us steer.
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

    /// From now on new clients go to these generations alone.
    pub fn steer(&mut self, route: &[(GenerationId, u32)]) {
        if route.iter().any(|(generation, _)| self.lent.contains_key(generation)) {
            self.route = route.to_vec();
            self.apply();
        }
    }

    /// Which workers of a generation get no new clients, unless that leaves none: indices into what it was lent.
    pub fn withhold(&mut self, generation: GenerationId, withheld: BTreeSet<usize>) {
        if self.lent.contains_key(&generation) {
            self.withheld.insert(generation, withheld);
            self.apply();
        }
    }

    /// Puts the program on the group if it has changed.
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

    /// Adds members to the group that are never chosen, until [`Self::release`] takes them out again: in those
    /// microseconds the choice falls back to the kernel's hash, and a client may be reset. As older members leave,
    /// the kernel moves these into their places, and not those that clients are steered to.
    pub fn pad(&mut self, count: usize) {
        self.padding.extend((0..count).map_while(|_| {
            let socket = tcp::reuse_port_socket(self.address).ok()?;
            tcp::listen_on(&socket, 1).ok().map(|()| socket)
        }));
    }

    /// Takes back what a generation has that is gone.
    pub fn release(&mut self, generation: GenerationId) {
        self.unpad();
        self.count_anew();
        self.withheld.remove(&generation);
        self.lent.remove(&generation);
        // Clients who were on their way when it was steered away from: nobody will accept them there.
        if self.route.iter().any(|(other, _)| self.lent.contains_key(other)) {
            self.empty_idle();
        }
    }

    /// Takes the padding out. The kernel moves ours down into its places, in an order that is not known if there are
    /// several.
    fn unpad(&mut self) {
        if self.padding.is_empty() {
            return;
        }
        self.padding.drain(..).for_each(|padding| close_for_all(&padding));
        self.renumber();
    }

    /// Others who had lower numbers have left the group without a word.
    fn count_anew(&mut self) {
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

    /// Closes what nobody has: others, who steer by themselves, are in the group.
    pub fn close_idle(&mut self) {
        while let Some(index) = self.idle().pop() {
            // A descendant that strayed may have the socket still: shut down, it is out of the group all the same.
            let leaving = self.members.swap_remove(index);
            close_for_all(&leaving.socket);
            let moved = self.members.len();
            for lent in self.lent.values_mut().flatten().filter(|lent| **lent == moved) {
                *lent = index;
            }
            let last = self.members.iter().map(|member| member.number).max();
            // As the kernel does.
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

    /// Resets whoever waits where nobody accepts any more, so that they try again at once.
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

    /// Lets the kernel choose by hash again, if only one member is left.
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

    /// Takes members out for good, at a stop.
    pub fn close(&mut self, is_it: impl Fn(&OwnedFd) -> bool) -> Vec<OwnedFd> {
        self.lent.clear();
        self.members.extract_if(.., |member| is_it(&member.socket)).map(|member| member.socket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(nix::sys::socket::accept(socket).is_ok(), "whoever is left has what waits");
    }
}
