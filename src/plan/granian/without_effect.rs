//! What the user has set for Granian, or for either server, that Granian does not get or does not honour.

use super::Args;
use crate::settings::value::Mode;

/// Granian's variables that are not passed on when it is supervised, and why.
const WITHHELD: &[(&str, &str)] = &[(
    "GRANIAN_PID_FILE",
    "during a reload a second Granian runs next to the first and would refuse to start; mcp-launch status shows the \
     process id",
)];

/// Older releases are not known to work.
const OLDEST: crate::host::Version = crate::host::Version(1, 6, 0);

impl Args<'_> {
    /// Warns about everything that has no effect. Returns the variables to remove.
    pub(super) fn without_effect(&mut self) -> Vec<&'static str> {
        let settings = &self.inputs.resolution.settings;
        let proxies = &settings.forwarded_allow_ips;
        if let (Some(value), true) = (&proxies.value, proxies.is_explicit()) {
            self.findings.warn(format!(
                "forwarded_allow_ips = {value} (from {}) has no effect: Granian does not read forwarding headers, so the \
                 app sees the proxy's address unless it reads them itself",
                proxies.origin
            ));
        }
        if let Some(version) = self.inputs.version.filter(|version| *version < OLDEST) {
            self.findings
                .warn(format!("granian {version} is older than {OLDEST}, the oldest release that is supported"));
        }
        if settings.mode.value == Mode::Exec {
            return Vec::new();
        }
        let native = &self.inputs.resolution.native;
        let given = WITHHELD.iter().filter(|(name, _)| native.iter().any(|native| native.name == *name));
        given
            .map(|(name, why)| {
                self.findings.warn(format!("{name} is ignored: {why}"));
                *name
            })
            .collect()
    }
}
