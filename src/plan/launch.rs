//! How a server is started, as far as that depends on the kind of server.

use std::ffi::OsString;
use std::time::Duration;

use super::tls::Credentials;
use super::{Balance, Capabilities, Descriptor, RequestLimit};
use crate::guard::MaxRequests;
use crate::settings::value::{Lifetime, MebiSize};

/// How a server is started: the arguments after the program's name, and what goes with them.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) capabilities: Capabilities,
    pub(super) args: Vec<OsString>,
    pub(super) target: String,
    pub(super) limit: Option<RequestLimit>,
    pub(super) balance: Balance,
    /// Variables to set, or to remove.
    pub(super) env: Vec<(OsString, Option<OsString>)>,
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) listen_pid: bool,
    pub(super) tls: bool,
    pub(super) h2c: bool,
    pub(super) credentials: Option<Credentials>,
    /// How large and how old workers may get, as far as we enforce that.
    pub(super) limits: Limits,
}

impl Launch {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            args: Vec::new(),
            target: String::new(),
            limit: None,
            balance: Balance::ByKernel,
            env: Vec::new(),
            descriptors: Vec::new(),
            listen_pid: false,
            tls: false,
            h2c: false,
            credentials: None,
            limits: Limits::default(),
        }
    }
}

/// How large and how old a worker may get, and how many requests it may serve.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) max_rss: Option<u64>,
    pub(super) lifetime: Option<Duration>,
    pub(super) requests: Option<MaxRequests>,
}

impl Limits {
    pub(super) fn new(max_rss: Option<MebiSize>, lifetime: Option<Lifetime>, requests: Option<MaxRequests>) -> Self {
        Self {
            requests,
            max_rss: max_rss.map(|limit| limit.mebibytes() << 20),
            lifetime: lifetime.map(|seconds| Duration::from_secs(seconds.0)),
        }
    }
}
