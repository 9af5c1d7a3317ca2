//! Finding the running launcher that the settings mean.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::control::ask::Launcher;
use crate::control::find::Wanted;
use crate::host::Environment;
use crate::plan::Bind;
use crate::problem::{Exit, Problem};
use crate::settings::value::AutoPath;
use crate::settings::{self, FlagLayer, Settings};

/// What says where the launcher is.
#[derive(Debug)]
pub(super) struct Directions {
    pub settings: Settings,
    env: Environment,
}

impl Directions {
    /// Reads the settings. One that is invalid has its default: this is not the place to judge them.
    pub fn read(flags: &FlagLayer) -> Self {
        let env: Environment = std::env::vars_os().collect();
        let resolution = settings::resolve(flags, &env, &|path: &Path| std::fs::read(path));
        Self { settings: resolution.settings, env }
    }

    /// Connects to the launcher.
    pub fn find(&self, patience: Duration) -> Result<Launcher, Problem> {
        if self.settings.socket.value == AutoPath::Off {
            let message = format!("the control socket is switched off (from {})", self.settings.socket.origin);
            return Err(Problem::new(Exit::NoLauncher, message).hint("start the launcher with a control socket"));
        }
        Launcher::find(&self.wanted(), &self.env, patience)
    }

    /// The launcher that these settings name, by what somebody chose of them.
    fn wanted(&self) -> Wanted {
        let settings = &self.settings;
        let socket = match &settings.socket.value {
            AutoPath::At(path) => Some(path.clone()),
            AutoPath::Auto | AutoPath::Off => None,
        };
        let port = u16::try_from(settings.port.value.0).unwrap_or(0);
        Wanted {
            socket,
            uds: settings.uds.value.clone(),
            host: settings.host.is_explicit().then_some(settings.host.value.0),
            // Whoever asked for any port does not know it.
            port: Some(port).filter(|port| settings.port.is_explicit() && *port != 0),
            default_port: port,
        }
    }

    /// Where the server listens.
    pub fn bind(&self) -> Bind {
        let port = u16::try_from(self.settings.port.value.0).unwrap_or(0);
        let address = SocketAddr::new(self.settings.host.value.0, port);
        self.settings.uds.value.clone().map_or(Bind::Tcp(address), Bind::Unix)
    }
}
