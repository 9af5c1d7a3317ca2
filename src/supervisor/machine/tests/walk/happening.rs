//! What may happen next on a walk.

use std::time::Duration;

use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::super::harness::shortage;
use crate::settings::value::Server;
use crate::supervisor::machine::event::Presence;
use crate::supervisor::machine::memory_budget::Room;
use crate::supervisor::machine::outcome::{Outcome, SpawnFailure};

/// One thing that happens. What is not possible at this point of the walk is left out.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Reply(Pick, Reply),
    Ready(Pick),
    MainDies(Pick, Outcome, Workers),
    WorkersDie(Pick),
    /// A forked process does not execute its program.
    ExecFails(Pick, SpawnFailure),
    /// The kernel keeps its processes from now on.
    IsHeld(Pick),
    Presence(Presence),
    KeepsDying(Pick),
    Count {
        still_starting: u32,
    },
    Reload(Option<Server>),
    Renew,
    Forward(Signal),
    Stop,
    Interrupt,
    Quit,
    OutOfPlace(Pick, OutOfPlace),
    Pass(Duration),
    ToDeadline,
}

/// One of several.
pub(super) type Pick = prop::sample::Index;

/// What a question is answered with, whichever it is.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) start: Result<(), SpawnFailure>,
    /// How many workers the new plan has, if the settings can be used.
    pub(super) plan: Result<u32, ()>,
    pub(super) room: Room,
    pub(super) streams: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workers {
    Die,
    LiveOn,
}

/// An event that the machine does not wait for.
#[derive(Debug, Clone, Copy)]
pub(super) enum OutOfPlace {
    Spawned,
    SpawnFailed,
    Ready,
    Exited,
    Empty,
    Planned,
    Measured,
    Counted,
    Presence,
    Leaving,
    FailureReported,
    Time,
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let pick = any::<Pick>;
    let status = prop_oneof![Just(0u8), Just(1), Just(3), Just(77)].prop_map(Outcome::Exited);
    let outcome = prop_oneof![status, Just(Outcome::Signaled(9)), Just(Outcome::Signaled(15))];
    let workers = prop_oneof![Just(Workers::Die), Just(Workers::LiveOn)];
    let presence = prop_oneof![
        3 => Just(Presence::Answering),
        2 => Just(Presence::Silent),
        1 => Just(Presence::Lost),
    ];
    let server = prop_oneof![Just(None), Just(Some(Server::Gunicorn)), Just(Some(Server::Granian))];
    let signal = prop_oneof![Just(Signal::SIGTTIN), Just(Signal::SIGTTOU), Just(Signal::SIGUSR1)];
    prop_oneof![
        42 => (pick(), reply()).prop_map(|(which, reply)| H::Reply(which, reply)),
        24 => pick().prop_map(H::Ready),
        15 => (pick(), outcome, workers).prop_map(|(which, outcome, workers)| H::MainDies(which, outcome, workers)),
        9 => pick().prop_map(H::WorkersDie),
        4 => (pick(), spawn_failure()).prop_map(|(which, failure)| H::ExecFails(which, failure)),
        1 => pick().prop_map(H::IsHeld),
        6 => presence.prop_map(H::Presence),
        2 => pick().prop_map(H::KeepsDying),
        24 => (0..2u32).prop_map(|still_starting| H::Count { still_starting }),
        18 => server.prop_map(H::Reload),
        3 => Just(H::Renew),
        3 => signal.prop_map(H::Forward),
        1 => Just(H::Stop),
        1 => Just(H::Interrupt),
        1 => Just(H::Quit),
        4 => (pick(), out_of_place()).prop_map(|(which, what)| H::OutOfPlace(which, what)),
        9 => (0..40_000u64).prop_map(|millis| H::Pass(Duration::from_millis(millis))),
        9 => (0..2_000u64).prop_map(|millis| H::Pass(Duration::from_millis(millis))),
        15 => Just(H::ToDeadline),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let start = prop_oneof![4 => Just(Ok(())), 1 => spawn_failure().prop_map(Err)];
    let plan = prop_oneof![5 => (1..5u32).prop_map(Ok), 1 => Just(Err(()))];
    let room = prop_oneof![
        2 => Just(Room::Whole),
        6 => Just(Room::OneWorker(shortage())),
        1 => Just(Room::Nothing(shortage())),
    ];
    let streams = prop_oneof![2 => Just(0u32), 1 => Just(1), 1 => Just(1000), 1 => Just(100_000)];
    let reply = |(start, plan, room, streams)| Reply { start, plan, room, streams };
    (start, plan, room, streams).prop_map(reply)
}

fn spawn_failure() -> impl Strategy<Value = SpawnFailure> {
    prop_oneof![
        Just(SpawnFailure::Program(126)),
        Just(SpawnFailure::Program(127)),
        Just(SpawnFailure::NoRoom),
        Just(SpawnFailure::Refused),
    ]
}

fn out_of_place() -> impl Strategy<Value = OutOfPlace> {
    use OutOfPlace as O;
    let about_generations = [O::Spawned, O::SpawnFailed, O::Ready, O::Exited, O::Empty, O::Counted, O::Presence];
    let others = [O::Planned, O::Measured, O::Leaving, O::FailureReported, O::Time];
    prop::sample::select([&about_generations[..], &others].concat())
}
