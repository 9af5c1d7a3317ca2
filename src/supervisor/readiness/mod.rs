//! Determines whether a generation is ready, without disturbing it.
//!
//! With the guard, all workers report that they are ready, and no request is made: it would be seen in access logs and
//! counted in metrics.
//!
//! Without it, Gunicorn listens on a second, private socket: one request waits there until a worker answers it, so no
//! polling is needed, and the response is certain to come from this generation. Granian is ready when its workers have
//! listening sockets on the port; if no other generation can answer there, one request confirms it with a response below
//! 500.

mod listener_watch;
mod pace;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use tracing::warn;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::effects::own_descendants;
use super::machine::action::Action;
use super::machine::event::Event;
use super::machine::generation::Generation;
use super::watchdog::pair;
use crate::guard::scoreboard::{self, Accepts, Slot};
use crate::ids::GenerationId;
use crate::plan::{Bind, Plan};
use crate::probe::Protocol;
use crate::proc::process;
use crate::run::listener::Way;
use listener_watch::ListenerWatch;
use pace::Pace;
use probe::{Probe, Target};

/// The checks of the generations that are starting.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    checks: BTreeMap<GenerationId, Check>,
}

/// What is being checked of a generation.
#[derive(Debug)]
enum Check {
    /// Whether it answers a request.
    Asking(Probe),
    /// Whether its workers have their own listening sockets.
    Listening(ListenerWatch),
    /// It seems ready, but not all of its workers have reported it yet.
    Counting(Pace),
    /// It is ready.
    Done,
}

impl Component for Readiness {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        for check in self.checks.values() {
            match check {
                Check::Asking(probe) => {
                    let (descriptor, until) = probe.interest();
                    if let Some((descriptor, events)) = descriptor {
                        waits.events(descriptor, events);
                    }
                    waits.until(until);
                }
                Check::Listening(watch) => waits.until(watch.next()),
                Check::Counting(pace) => waits.until(pace.next()),
                Check::Done => {}
            }
        }
    }

    fn turn(&mut self, world: &mut World, ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        self.follow(world, now);
        self.hurry(world, ready, now);
        let ids: Vec<GenerationId> = self.checks.keys().copied().collect();
        let ready: Vec<GenerationId> = ids.into_iter().filter(|id| self.advance(*id, world, now)).collect();
        ready.into_iter().flat_map(|id| became_ready(id, world)).collect()
    }
}

impl Readiness {
    /// Adds the generations that were started, and removes those that have ended.
    fn follow(&mut self, world: &World, now: Instant) {
        self.checks.retain(|id, _| world.running.contains_key(id));
        for generation in world.state.generations().iter().filter(|generation| generation.is_starting()) {
            if let (Some(running), Some(plan)) =
                (world.running.get(&generation.id), world.plans.get(&generation.plan))
            {
                let first = || first_check(generation, running.private.as_ref(), plan, world, now);
                self.checks.entry(generation.id).or_insert_with(first);
            }
        }
    }

    /// Checks at once if a worker has woken us.
    fn hurry(&mut self, world: &World, ready: &Ready, now: Instant) {
        for (id, check) in &mut self.checks {
            let wakeup = world.running.get(id).and_then(|running| running.channels.wakeup.as_ref());
            if let (Check::Counting(pace), Some(wakeup)) = (check, wakeup)
                && ready.is_ready(wakeup)
            {
                pace.hurry(now);
            }
        }
    }

    /// Proceeds as far as possible without waiting, and returns whether the generation has just become ready.
    fn advance(&mut self, id: GenerationId, world: &World, now: Instant) -> bool {
        let Some(check) = self.checks.get_mut(&id) else { return false };
        let seems_ready = match check {
            Check::Done => false,
            Check::Asking(probe) => probe.advance(now),
            Check::Counting(pace) => pace.take_due(now),
            Check::Listening(watch) => {
                let Some(main) = world.running.get(&id).map(|running| running.main) else { return false };
                let members = || process::members(&own_descendants(), main, &BTreeSet::new());
                watch.advance(members, main, now)
            }
        };
        if !seems_ready {
            return false;
        }
        // A socket may exist before the app works: if only this generation can answer, it also gets a request.
        let is_alone = world.state.generations().len() == 1;
        let asked = world.plan_of(id).filter(|plan| is_alone && !plan.tells_readiness());
        let is_complete = world.is_complete(id);
        *check = match (&check, asked.and_then(|plan| public_probe(plan, world)), own_listeners(id, world, now)) {
            (Check::Listening(_), Some(probe), _) => Check::Asking(probe),
            (Check::Counting(_), ..) if !is_complete => return false,
            _ if !is_complete => Check::Counting(Pace::new(now)),
            (Check::Counting(_), _, Some(watch)) => Check::Listening(watch),
            _ => Check::Done,
        };
        matches!(check, Check::Done)
    }
}

/// Records how long it took.
fn became_ready(id: GenerationId, world: &mut World) -> Vec<Output> {
    if let Some(running) = world.running.get_mut(&id) {
        running.boot = Some(running.started.elapsed());
        running.private = None;
    }
    // Clients that see that it is ready may end a worker at once.
    world.look_at_workers();
    let ready = Event::Ready { generation: id }.into();
    // A server that gave its workers their own sockets does not use ours, and would not accept clients there.
    if opens_listeners(id, world) {
        let message = "this server's workers open their listening sockets themselves: the kernel distributes clients";
        warn!(generation = id.0, "{message}");
        return vec![Action::TakeListenersBack { generation: id }.into(), ready];
    }
    vec![ready]
}

/// Whether the workers of a generation open their listening sockets themselves, although they got some from us.
fn opens_listeners(id: GenerationId, world: &World) -> bool {
    world.slots(id).iter().any(|(_, slot)| slot.accepts == Accepts::Own)
}

/// Looks for the sockets of such workers: they say that they are ready shortly before they open them.
fn own_listeners(id: GenerationId, world: &World, now: Instant) -> Option<ListenerWatch> {
    let Bind::Tcp(address) = *world.listeners.bind() else { return None };
    let generation = world.state.generations().iter().find(|generation| generation.id == id)?;
    let workers = generation.startup.workers(world.plans.get(&generation.plan)?.workers) as usize;
    let watch = || ListenerWatch::new(address, workers, now).ignoring(world.listeners.all_inodes());
    opens_listeners(id, world).then(watch)
}

fn first_check(generation: &Generation, private: Option<&Way>, plan: &Plan, world: &World, now: Instant) -> Check {
    let probe = |target| Probe::new(target, &plan.policy.health_path, protocol(plan), now);
    let ask = |target| Check::Asking(probe(target).guessing_scheme(plan.policy.tls_is_guessed));
    match (private, world.listeners.bind()) {
        (Some(way), _) => ask(Target::Unix(way.path())),
        // The socket was there before the workers. They all tell when they are ready.
        (None, _) if plan.tells_readiness() => Check::Counting(Pace::new(now)),
        (None, Bind::Unix(path)) => {
            ask(Target::Unix(world.listeners.own_path(generation.id).unwrap_or_else(|| path.clone())))
        }
        // Its socket existed before the workers, and there is no other generation.
        (None, Bind::Tcp(address)) if plan.is_probed() => ask(Target::Tcp(from_here(*address))),
        (None, Bind::Tcp(address)) => {
            let workers = generation.startup.workers(plan.workers) as usize;
            Check::Listening(ListenerWatch::new(*address, workers, now))
        }
    }
}

/// The protocol of the plan's server.
const fn protocol(plan: &Plan) -> Protocol {
    Protocol { tls: plan.tls, h2c: plan.h2c }
}

/// A request to the public address, for when only one generation can answer there.
fn public_probe(plan: &Plan, world: &World) -> Option<Probe> {
    let Bind::Tcp(address) = world.listeners.bind() else { return None };
    let target = Target::Tcp(from_here(*address));
    Some(Probe::new(target, &plan.policy.health_path, protocol(plan), Instant::now()))
}

/// Where to connect to what listens there.
const fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl World {
    /// Whether all workers that a starting generation is to have are ready, as far as they can report it. Without a
    /// scoreboard, or with a server that does not call the app when it starts, they cannot.
    fn is_complete(&self, generation: GenerationId) -> bool {
        let Some(running) = self.running.get(&generation) else { return true };
        let Some(board) = &running.board else { return true };
        let Some(found) = self.state.generations().iter().find(|found| found.id == generation) else { return true };
        let Some(plan) = self.plans.get(&found.plan) else { return true };
        let slots = board.slots();
        if slots.is_empty() && !plan.capabilities.all_children_are_workers && !plan.tells_readiness() {
            // The one that answers has no slot: these workers do not have the guard, although they should.
            return true;
        }
        let members = process::members(&own_descendants(), running.main, &running.seen);
        let living = pair(&slots, &members, scoreboard::now());
        let wanted = found.startup.workers(plan.workers) as usize;
        are_ready(living.into_iter().map(|(_, slot)| slot), wanted, plan.lends_to_each_worker())
    }
}

/// Whether this many workers are ready, according to their slots. If the plan gives each worker a socket, the server
/// speaks the lifespan protocol, and a worker that is asked to end before it accepts on its socket misses that: such
/// workers must have reported that they accept.
fn are_ready(slots: impl IntoIterator<Item = Slot>, wanted: usize, must_accept: bool) -> bool {
    let slots: Vec<Slot> = slots.into_iter().collect();
    let is_ready =
        |slot: &&Slot| slot.state == scoreboard::State::Ready && (!must_accept || slot.accepts != Accepts::Unknown);
    let cannot_say = !must_accept && !slots.is_empty() && slots.iter().all(|slot| slot.no_lifespan);
    slots.iter().filter(is_ready).count() >= wanted || cannot_say
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(state: scoreboard::State, no_lifespan: bool) -> Slot {
        Slot { no_lifespan, ..Slot::blank(nix::unistd::Pid::from_raw(1), state) }
    }

    #[test]
    fn workers_that_have_all_died_are_not_ready() {
        let (ready, starting) = (slot(scoreboard::State::Ready, false), slot(scoreboard::State::Starting, false));
        assert!(are_ready([ready, ready], 2, false));
        assert!(!are_ready([ready, starting], 2, false));
        assert!(!are_ready([ready, ready], 2, true), "they have not reported that they accept");
        assert!(are_ready([slot(scoreboard::State::Starting, true)], 2, false), "they cannot report more");
        assert!(!are_ready([], 2, false), "all of none");
    }
}
