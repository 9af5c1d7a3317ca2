//! Finding the running launcher that the settings mean.

use std::time::Duration;

use super::prepare::{addresses, read_file};
use crate::control::ask::Launcher;
use crate::control::find::Wanted;
use crate::host::Environment;
use crate::plan::{Addresses, Bind};
use crate::problem::{Exit, Problem};
use crate::settings::value::AutoPath;
use crate::settings::{self, FlagLayer, Settings};

/// What identifies the launcher.
#[derive(Debug)]
pub(super) struct Directions {
    pub settings: Settings,
    addresses: Addresses,
    env: Environment,
}

impl Directions {
    /// Reads the settings. An invalid one gets its default: problems are not reported here.
    pub fn read(flags: &FlagLayer) -> Self {
        let env: Environment = std::env::vars_os().collect();
        let resolution = settings::resolve(flags, &env, &read_file);
        let (settings, env) = (resolution.settings.clone(), resolution.env.clone());
        Self { settings, addresses: addresses(resolution), env }
    }

    /// Connects to the launcher.
    pub fn find(&self, patience: Duration) -> Result<Launcher, Problem> {
        if self.settings.socket.value == AutoPath::Off {
            let message = format!("the control socket is switched off (from {})", self.settings.socket.origin);
            return Err(Problem::new(Exit::NoLauncher, message).hint("start the launcher with a control socket"));
        }
        Launcher::find(&self.wanted(), &self.env, patience)
    }

    /// The launcher that these settings name, by those that were set explicitly.
    fn wanted(&self) -> Wanted {
        let settings = &self.settings;
        let socket = match &settings.socket.value {
            AutoPath::At(path) => Some(path.clone()),
            AutoPath::Auto | AutoPath::Off => None,
        };
        let default_port = u16::try_from(settings.port.value.0).unwrap_or(0);
        let wanted = Wanted { socket, default_port, ..Wanted::default() };
        let chosen = self.addresses.chosen;
        match &self.addresses.first {
            Bind::Unix(path) => Wanted { uds: Some(path.clone()), ..wanted },
            Bind::Tcp(address) => Wanted {
                host: chosen.host.then_some(address.ip()),
                // With port 0, nobody has chosen the port.
                port: Some(address.port()).filter(|port| chosen.port && *port != 0),
                ..wanted
            },
        }
    }

    /// Where the server listens.
    pub const fn bind(&self) -> &Bind {
        &self.addresses.first
    }
}
