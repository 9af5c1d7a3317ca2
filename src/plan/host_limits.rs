//! Warnings about limits of the machine that are too low for these settings.

use super::common::Common;
use super::{Findings, request_limit};
use crate::host::Host;
use crate::settings::Settings;
use crate::settings::value::Server;

/// Descriptors that a worker needs besides those of its clients: libraries, logs, databases.
const SPARE_FILES: u64 = 128;

/// Compares the settings with the limits.
pub(super) fn check(server: Server, settings: &Settings, host: &Host, workers: u32, findings: &mut Findings) {
    let limits = &host.limits;
    let Common { backlog: (backlog, origin), backpressure: (in_flight, _), .. } = Common::of(server, settings);
    if let Some(most) = limits.somaxconn.filter(|most| *most < backlog) {
        findings.warn(format!(
            "backlog = {backlog} (from {origin}), but the kernel reduces it to {most}; raise net.core.somaxconn"
        ));
    }
    let streams = settings.max_streams.value.map_or(0, |number| number.0);
    let needed = in_flight.map_or(0, request_limit::most).saturating_add(streams).saturating_add(SPARE_FILES);
    // The soft limit is raised to the hard one for the server.
    let most = limits.open_files_max;
    if most != 0 && most < needed {
        findings.warn(format!(
            "a worker may need {needed} open files (backpressure, streams and {SPARE_FILES} of its own), but the limit is \
             {most}; raise it (ulimit -Hn, LimitNOFILE)"
        ));
    }
    if host.memory.oom_group && workers > 1 {
        findings.warn(
            "memory.oom.group is set: if one worker exceeds the memory limit, the kernel kills all of them and the \
             launcher too",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Limits, Memory};
    use crate::plan::tests::resolution;

    fn warnings(server: Server, env: &[(&str, &str)], host: &Host, workers: u32) -> Vec<String> {
        let mut findings = Findings::default();
        check(server, &resolution(env).settings, host, workers, &mut findings);
        findings.warnings
    }

    #[test]
    fn limits_below_what_the_settings_ask_for_are_named() {
        let limits = Limits { somaxconn: Some(128), open_files_max: 600, ..Limits::default() };
        let host = Host { limits, ..Host::default() };
        let found = warnings(Server::Granian, &[], &host, 1);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("reduces it to 128") && found[1].contains("640 open files"), "{found:?}");
        assert_eq!(warnings(Server::Gunicorn, &[("GUNICORN_BACKLOG", "128")], &host, 1), Vec::<String>::new());
    }

    #[test]
    fn one_kill_for_all_matters_with_more_than_one_worker() {
        let memory = Memory { oom_group: true, ..Memory::default() };
        let host = Host { memory, ..Host::default() };
        assert_eq!(warnings(Server::Gunicorn, &[], &host, 2).len(), 1);
        assert!(warnings(Server::Gunicorn, &[], &host, 1).is_empty());
    }
}
