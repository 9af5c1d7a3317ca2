//! Sockets that systemd passes (`sd_listen_fds(3)`): they are served in place of every address.

use super::bind::{Addresses, ChosenParts, SocketOwner};
use super::gunicorn::{Own, address};
use super::{Bind, Findings};
use crate::host::{Activation, Host, PassedSocket};
use crate::problem::{Exit, Origin, Problem};
use crate::settings::value::{Server, Value};
use crate::settings::{Resolution, Settings};

const VARIABLE: &str = "LISTEN_FDS";
const ANOTHER_WAY: &str = "stop the socket unit and set HOST and PORT";

/// Where the server listens, if sockets are passed that it can serve.
pub(super) fn addresses(
    resolution: &Resolution,
    host: &Host,
    server: Server,
    own: &Own,
    findings: &mut Findings,
) -> Option<Addresses> {
    let problem = |message: String| Problem::setting(message, &Origin::Env(VARIABLE.into()));
    let sockets = match &host.activation {
        Activation::None => return None,
        Activation::Sockets(sockets) => sockets,
        Activation::NotOurs { count, process } => {
            findings.warn(not_ours(*count, *process));
            return None;
        }
        Activation::Invalid { variable, value, expected } => {
            let problem = Problem::new(Exit::Settings, format!("{variable} = {value:?} is not {expected}"));
            findings.problem(problem.from(&Origin::Env((*variable).into())).hint(ANOTHER_WAY));
            return None;
        }
    };
    let count = sockets.len();
    if server == Server::Granian {
        let message = format!("{VARIABLE} = {count}: Granian cannot serve a socket from systemd");
        findings.problem(problem(message).hint(format!("use --server gunicorn, or {ANOTHER_WAY}")));
        return None;
    }
    let mut binds = Vec::new();
    for (number, socket) in (3..).zip(sockets) {
        match socket {
            PassedSocket::Tcp(address) => binds.push(Bind::Tcp(*address)),
            PassedSocket::Unix(path) => binds.push(Bind::Unix(path.clone())),
            PassedSocket::Unusable(why) => {
                let message = format!("{VARIABLE} = {count}: descriptor {number} cannot be served, it {why}");
                findings.problem(problem(message).hint("use ListenStream= and Accept=no in the socket unit"));
            }
        }
    }
    let first = binds.first().cloned()?;
    findings.warnings.extend(without_effect(resolution, own, &binds));
    let shown: Vec<String> = binds.iter().map(ToString::to_string).collect();
    findings.decide("bind", shown.join(" "), format!("environment {VARIABLE}: passed by systemd"));
    Some(Addresses {
        first,
        further: binds.split_off(1),
        chosen: ChosenParts::ALL,
        owner: SocketOwner::ServiceManager,
    })
}

fn not_ours(count: u32, process: Option<u32>) -> String {
    let why = process.map_or_else(
        || "LISTEN_PID is not set".to_owned(),
        |process| format!("LISTEN_PID = {process} is another process; if a script starts mcp-launch, use exec there"),
    );
    format!("{VARIABLE} = {count}: no socket from systemd is served, because {why}")
}

/// Settings that name other addresses, or that are the business of the socket unit.
fn without_effect(resolution: &Resolution, own: &Own, binds: &[Bind]) -> Vec<String> {
    let is_other = |text: &str| address::parse(text).is_ok_and(|bind| !binds.contains(&bind));
    let settings = explicit(&resolution.settings, binds).into_iter();
    let settings = settings.map(|(shown, origin)| format!("{shown} (from {origin})"));
    let flags = resolution.further_binds.iter().filter(|text| is_other(text));
    let flags = flags.map(|text| format!("bind {text} (from {})", Origin::Flag("--bind".into())));
    let native = own.get("bind").filter(|native| native.is_computed() || native.texts().into_iter().any(is_other));
    let mut warnings: Vec<String> = settings
        .chain(flags)
        .chain(native.map(|native| native.to_string()))
        .map(|shown| format!("{shown} is not served: a socket from systemd ({VARIABLE}) takes precedence"))
        .collect();
    let permissions = &resolution.settings.uds_permissions;
    if permissions.is_explicit() {
        warnings.push(format!(
            "uds_permissions (from {}) has no effect on a socket from systemd: set SocketMode= in the socket unit",
            permissions.origin
        ));
    }
    warnings
}

fn explicit<'a>(settings: &'a Settings, binds: &[Bind]) -> Vec<(String, &'a Origin)> {
    let Settings { host, port, uds, .. } = settings;
    let tcp = || binds.iter().filter_map(|bind| if let Bind::Tcp(address) = bind { Some(*address) } else { None });
    let mut other = Vec::new();
    if host.is_explicit() && !tcp().any(|address| address.ip() == host.value.0) {
        other.push((format!("host = {}", host.value.show()), &host.origin));
    }
    if port.is_explicit() && !tcp().any(|address| u64::from(address.port()) == port.value.0) {
        other.push((format!("port = {}", port.value.show()), &port.origin));
    }
    if let Some(path) = uds.value.as_ref().filter(|path| !binds.contains(&Bind::Unix((*path).clone()))) {
        other.push((format!("uds = {}", path.display()), &uds.origin));
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{installed_host, planned, resolution};
    use crate::plan::{Plan, plan};

    fn with(activation: Activation) -> Host {
        Host { activation, ..installed_host() }
    }

    fn passed() -> Host {
        let sockets = [PassedSocket::Tcp("127.0.0.1:80".parse().unwrap()), PassedSocket::Unix("/run/a.sock".into())];
        with(Activation::Sockets(sockets.into()))
    }

    fn problems(env: &[(&str, &str)], host: &Host) -> Vec<String> {
        let problems = plan(&resolution(env), host, &crate::tls::Findings::default()).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    fn served(plan: &Plan) -> (String, Vec<String>) {
        (plan.bind.to_string(), plan.further_binds.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_sockets_are_served_in_both_modes_and_named() {
        let expected = ("127.0.0.1:80".to_owned(), vec!["unix:/run/a.sock".to_owned()]);
        for mode in ["supervise", "exec"] {
            let plan = planned(&[("MCP_LAUNCH_MODE", mode)], &passed());
            assert!(
                plan.socket_owner == SocketOwner::ServiceManager && plan.warnings.is_empty(),
                "{:?}",
                plan.warnings
            );
            assert_eq!(served(&plan), expected, "{mode}");
            let reason = plan.reasons.iter().find(|reason| reason.topic == "bind").unwrap();
            assert_eq!(reason.decision, "127.0.0.1:80 unix:/run/a.sock");
            assert!(reason.because.contains("LISTEN_FDS"), "{reason:?}");
            assert_eq!(plan.env[std::ffi::OsStr::new("PORT")], "80");
        }
        assert_eq!(planned(&[], &installed_host()).socket_owner, SocketOwner::Launcher);
    }

    #[test]
    fn what_names_another_address_is_a_warning_and_the_same_address_is_none() {
        let others = [
            ("PORT", "81"),
            ("HOST", "::"),
            ("GRANIAN_UDS", "/run/b.sock"),
            ("GUNICORN_CMD_ARGS", "-b 127.0.0.1:82"),
        ];
        for (name, value) in others {
            let warnings = planned(&[(name, value)], &passed()).warnings;
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains(value.trim_start_matches("-b ")), "{warnings:?}");
            assert!(warnings[0].contains("LISTEN_FDS"), "{warnings:?}");
        }
        let same =
            [("PORT", "80"), ("HOST", "127.0.0.1"), ("GUNICORN_CMD_ARGS", "-b 127.0.0.1:80 -b unix:/run/a.sock")];
        assert_eq!(planned(&same, &passed()).warnings, [""; 0]);
        let mode = planned(&[("MCP_LAUNCH_UDS_PERMISSIONS", "660")], &passed()).warnings;
        assert!(mode[0].contains("SocketMode="), "{mode:?}");
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        let granian = problems(&[("HTTP_SERVER", "granian")], &passed());
        assert!(granian[0].starts_with("LISTEN_FDS = 2: Granian cannot serve"), "{granian:?}");
        let sockets = vec![PassedSocket::Unusable("is not listening"), PassedSocket::Unusable("is not a socket")];
        let unusable = problems(&[], &with(Activation::Sockets(sockets)));
        assert_eq!(unusable.len(), 2);
        assert!(unusable[0].starts_with("LISTEN_FDS = 2: descriptor 3 cannot be served, it is not listening"));
        assert!(unusable[1].contains("descriptor 4 cannot be served, it is not a socket"), "{unusable:?}");
        let invalid =
            Activation::Invalid { variable: "LISTEN_PID", value: "x".into(), expected: "a whole number".into() };
        let invalid = problems(&[], &with(invalid));
        assert!(invalid[0].starts_with("LISTEN_PID = \"x\" is not a whole number (from env"), "{invalid:?}");
    }

    #[test]
    fn sockets_for_another_process_are_not_served_which_is_a_warning() {
        for (process, expected) in [(Some(7), "LISTEN_PID = 7 is another process"), (None, "LISTEN_PID is not set")] {
            let plan = planned(&[], &with(Activation::NotOurs { count: 1, process }));
            assert_eq!(served(&plan), ("0.0.0.0:4444".to_owned(), vec![]));
            assert!(plan.warnings[0].contains(expected), "{:?}", plan.warnings);
            assert_eq!(plan.socket_owner, SocketOwner::Launcher);
        }
    }
}
