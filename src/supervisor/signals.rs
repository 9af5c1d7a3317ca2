//! The signals that the launcher itself gets, and what they mean.

use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use tracing::info;

use super::World;
use super::component::{Component, Output, Ready, Waits};
use super::machine::event::Event;
use crate::plan::Capabilities;
use crate::run::signals::{Received, Signals};

/// The signals that a supervisor handles.
pub const HANDLED: [i32; 10] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGCHLD,
];

impl Component for Signals {
    fn wait_for<'a>(&'a self, _world: &'a World, waits: &mut Waits<'a>) {
        waits.readable(self.as_fd());
    }

    fn turn(&mut self, world: &mut World, _ready: &Ready) -> Vec<Output> {
        let received = self.drain();
        // Their order within a batch has no meaning; a stop comes first, so that nothing is begun unnecessarily.
        let (stops, others): (Vec<Event>, Vec<Event>) = received
            .into_iter()
            .filter_map(|received| meaning(received, world))
            .partition(|event| matches!(event, Event::Stop | Event::Interrupt | Event::Quit));
        stops.into_iter().chain(others).map(Output::from).collect()
    }
}

/// What a signal means to a supervisor.
fn meaning(received: Received, world: &World) -> Option<Event> {
    let signal = Signal::try_from(received.signal).ok()?;
    if signal != Signal::SIGCHLD {
        info!(%signal, from = if received.from_kernel { "terminal" } else { "process" }, "signal");
    }
    let reload = |workers| Some(Event::Reload { request: None, server: None, workers });
    match signal {
        // A child may have ended since the last check: without an event the loop would sleep before it checks again.
        Signal::SIGCHLD => Some(Event::Tick),
        Signal::SIGINT if received.from_kernel => Some(Event::Interrupt),
        Signal::SIGTERM | Signal::SIGINT => Some(Event::Stop),
        Signal::SIGQUIT => Some(Event::Quit),
        // The terminal has closed. Under nohup that is to be ignored.
        Signal::SIGHUP if received.from_kernel && world.inherited.ignores(libc::SIGHUP) => None,
        Signal::SIGHUP if received.from_kernel => Some(Event::Stop),
        Signal::SIGHUP | Signal::SIGUSR2 => reload(0),
        // From the terminal they mean that a background process accessed it.
        Signal::SIGTTIN | Signal::SIGTTOU if received.from_kernel => None,
        Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGUSR1 | Signal::SIGWINCH => {
            match (capabilities(world)?, signal) {
                (server, _) if server.takes(signal) => Some(Event::Forward(signal)),
                (_, Signal::SIGTTIN) => reload(1),
                (_, Signal::SIGTTOU) => reload(-1),
                // It has no handler for this signal, and would end.
                _ => None,
            }
        }
        _ => None,
    }
}

/// What the server that serves, or is about to, can do.
fn capabilities(world: &World) -> Option<&Capabilities> {
    let generation = world.state.serving().or_else(|| world.state.generations().last())?;
    world.plans.get(&generation.plan).map(|plan| &plan.capabilities)
}
