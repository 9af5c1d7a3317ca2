//! Finding the running launcher that the settings mean.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::control::ask::Launcher;
use crate::host::Environment;
use crate::plan::Bind;
use crate::problem::Problem;
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
        Launcher::find(&self.settings.socket.value, &self.env, &self.bind(), patience)
    }

    /// Where the server listens.
    pub fn bind(&self) -> Bind {
        let port = u16::try_from(self.settings.port.value.0).unwrap_or(0);
        let address = SocketAddr::new(self.settings.host.value.0, port);
        self.settings.uds.value.clone().map_or(Bind::Tcp(address), Bind::Unix)
    }
}
