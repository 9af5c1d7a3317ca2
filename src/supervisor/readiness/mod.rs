//! Determines whether a generation is ready, without disturbing it.
//!
//! Gunicorn listens on a second, private socket: one request waits there until a worker answers it, so no polling is
//! needed, and the response is certain to come from this generation. Granian is ready when its workers have listening
//! sockets on the port; if no other generation can answer there, one request confirms it with a response below 500.
//! With the guard, all workers must also have reported that they are ready.

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
use listener_watch::ListenerWatch;
use pace::Pace;
use probe::{Probe, Target};

/// Which generations are being looked at until they are ready.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    checks: BTreeMap<GenerationId, Check>,
}

/// How far it has been found out whether a generation is ready.
#[derive(Debug)]
enum Check {
    /// A request to where it listens.
    Asking(Probe),
    /// Whether its workers have their own listening sockets.
    Listening(ListenerWatch),
    /// It seems ready, and not all of its workers have said so yet.
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

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let now = Instant::now();
        self.follow(world, now);
        let ids: Vec<GenerationId> = self.checks.keys().copied().collect();
        let ready: Vec<GenerationId> = ids.into_iter().filter(|id| self.advance(*id, world, now)).collect();
        ready.into_iter().flat_map(|id| became_ready(id, world)).collect()
    }
}

impl Readiness {
    /// Begins with those that were started, and lets go of those that are gone.
    fn follow(&mut self, world: &World, now: Instant) {
        self.checks.retain(|id, _| world.running.contains_key(id));
        for generation in world.state.generations().iter().filter(|generation| generation.is_starting()) {
            if let (Some(running), Some(plan)) =
                (world.running.get(&generation.id), world.plans.get(&generation.plan))
            {
                let first = || first_check(generation, running.private, plan, world, now);
                self.checks.entry(generation.id).or_insert_with(first);
            }
        }
    }

    /// Goes on as far as it can without waiting, and says whether the generation has just become ready.
    fn advance(&mut self, id: GenerationId, world: &World, now: Instant) -> bool {
        let Some(check) = self.checks.get_mut(&id) else { return false };
        let seems_ready = match check {
            Check::Done => false,
            Check::Asking(probe) => probe.advance(now),
            Check::Counting(pace) => pace.is_due(now),
            Check::Listening(watch) => {
                let Some(main) = world.running.get(&id).map(|running| running.main) else { return false };
                let members = || process::members(&own_descendants(), main, &BTreeSet::new());
                watch.advance(members, main, now)
            }
        };
        if !seems_ready {
            return false;
        }
        // A socket may be there before the app works: if only this generation can answer, it is asked, too.
        let is_alone = world.state.generations().len() == 1;
        let asked = world.plan_of(id).filter(|_| is_alone).and_then(|plan| public_probe(plan, world));
        let is_complete = world.is_complete(id);
        *check = match (&check, asked) {
            (Check::Listening(_), Some(probe)) => Check::Asking(probe),
            (Check::Counting(_), _) if !is_complete => return false,
            _ if !is_complete => Check::Counting(Pace::new(now)),
            _ => Check::Done,
        };
        matches!(check, Check::Done)
    }
}

/// Takes note of how long it took.
fn became_ready(id: GenerationId, world: &mut World) -> Vec<Output> {
    if let Some(running) = world.running.get_mut(&id) {
        running.boot = Some(running.started.elapsed());
    }
    // Clients that are told that it is ready may end a worker at once.
    world.look_at_workers();
    let ready = Event::Ready { generation: id }.into();
    // A server that gave its workers sockets of their own does not use ours, and nobody would accept clients there.
    if world.slots(id).iter().any(|(_, slot)| slot.accepts == Accepts::Own) {
        let message = "this server's workers open their listening sockets themselves: the kernel distributes clients";
        warn!(generation = id.0, "{message}");
        return vec![Action::TakeListenersBack { generation: id }.into(), ready];
    }
    vec![ready]
}

fn first_check(
    generation: &Generation,
    private: Option<SocketAddr>,
    plan: &Plan,
    world: &World,
    now: Instant,
) -> Check {
    let probe = |target| Probe::new(target, &plan.policy.health_path, protocol(plan), now);
    let ask = |target| Check::Asking(probe(target).guessing_scheme(plan.policy.tls_is_guessed));
    match (private, world.listeners.bind()) {
        (Some(address), _) => ask(Target::Tcp(address)),
        (None, Bind::Unix(path)) => {
            ask(Target::Unix(world.listeners.own_path(generation.id).unwrap_or_else(|| path.clone())))
        }
        // The socket was there before the workers. They all tell when they are ready.
        (None, Bind::Tcp(_)) if plan.lends_to_each_worker() => Check::Counting(Pace::new(now)),
        (None, Bind::Tcp(address)) => {
            let workers = generation.startup.workers(plan.workers) as usize;
            Check::Listening(ListenerWatch::new(*address, workers, now))
        }
    }
}

/// How the plan's server is spoken to.
const fn protocol(plan: &Plan) -> Protocol {
    Protocol { tls: plan.tls, h2c: plan.h2c }
}

/// A request to where clients go, for when only one generation can answer there.
fn public_probe(plan: &Plan, world: &World) -> Option<Probe> {
    let Bind::Tcp(address) = world.listeners.bind() else { return None };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let target = Target::Tcp(SocketAddr::new(ip, address.port()));
    Some(Probe::new(target, &plan.policy.health_path, protocol(plan), Instant::now()))
}

impl World {
    /// Whether all workers that a starting generation is to have are ready, as far as they can say so. Without a
    /// scoreboard, or with a server that does not tell the app when it starts, they cannot.
    fn is_complete(&self, generation: GenerationId) -> bool {
        let Some(running) = self.running.get(&generation) else { return true };
        let Some(board) = &running.board else { return true };
        let Some(found) = self.state.generations().iter().find(|found| found.id == generation) else { return true };
        let Some(plan) = self.plans.get(&found.plan) else { return true };
        let slots = board.slots();
        if slots.is_empty() && !plan.capabilities.all_children_are_workers {
            // The one that answers has not taken a slot: the guard is not in these workers, whatever was expected.
            return true;
        }
        let members = process::members(&own_descendants(), running.main, &running.seen);
        let living = pair(&slots, &members, scoreboard::now());
        let wanted = found.startup.workers(plan.workers) as usize;
        are_ready(living.into_iter().map(|(_, slot)| slot), wanted, plan.lends_to_each_worker())
    }
}

/// Whether so many workers are ready that have these slots, as far as they can say so. If the plan gives each worker a
/// socket, the server speaks the lifespan protocol, and a worker that is told to end before it accepts on its socket
/// does not hear that: such workers must have told that they accept.
fn are_ready(slots: impl IntoIterator<Item = Slot>, wanted: usize, must_accept: bool) -> bool {
    let slots: Vec<Slot> = slots.into_iter().collect();
    let is_ready =
        |slot: &&Slot| slot.state == scoreboard::State::Ready && (!must_accept || slot.accepts != Accepts::Untold);
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
        assert!(!are_ready([ready, ready], 2, true), "they have not told that they accept");
        assert!(are_ready([slot(scoreboard::State::Starting, true)], 2, false), "they cannot say more");
        assert!(!are_ready([], 2, false), "all of none");
    }
}
