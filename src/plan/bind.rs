//! Where the server listens.

use std::net::SocketAddr;

use super::gunicorn::Own;
use super::gunicorn::address::parse;
use super::{Bind, Findings, activation};
use crate::host::Host;
use crate::problem::{Exit, Problem};
use crate::settings::value::{BindHost, Int, Server, Value};
use crate::settings::{Origin, Resolution, Settings};

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The address that is probed and shown.
    pub first: Bind,
    /// Further addresses that are served.
    pub further: Vec<Bind>,
    /// Which parts of the first one were set explicitly; the others are defaults.
    pub chosen: ChosenParts,
    /// Whose the listening sockets are.
    pub owner: SocketOwner,
}

/// The parts of an address that were set explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenParts {
    /// The address, or the path of a socket.
    pub host: bool,
    /// The port.
    pub port: bool,
}

/// Whose listening sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOwner {
    /// Ours, or the server's if it takes our place.
    Launcher,
    /// They were passed to us, and are passed on as they are.
    ServiceManager,
}

impl ChosenParts {
    pub(super) const ALL: Self = Self { host: true, port: true };
}

/// Where a server with these settings would listen. Problems with the settings are not reported.
#[must_use]
pub fn addresses(resolution: &Resolution, host: &Host) -> Addresses {
    let mut findings = Findings::default();
    let server = super::server::choose(&resolution.settings, host, &mut findings).server;
    let own = Own::read(resolution, host, server, &mut findings);
    bind(resolution, host, server, &own, &mut findings)
}

/// The addresses, or the sockets. If `HOST` and `PORT` are not set, the server's own settings apply.
pub(super) fn bind(
    resolution: &Resolution,
    host: &Host,
    server: Server,
    own: &Own,
    findings: &mut Findings,
) -> Addresses {
    if let Some(passed) = activation::addresses(resolution, host, server, own, findings) {
        return passed;
    }
    let mut addresses = first(resolution, server, own, findings);
    let origin = Origin::Flag("--bind".into());
    for text in &resolution.further_binds {
        match parse(text) {
            _ if server == Server::Granian => {
                let message = format!("{server} listens on one address, and {text} is another");
                findings.problem(Problem::setting(message, &origin).hint("leave it out, or use --server gunicorn"));
            }
            Ok(bind) => addresses.further.push(bind),
            Err(why) => findings.problem(unusable(text, &why, &origin)),
        }
    }
    if !resolution.further_binds.is_empty() {
        findings.decide("bind-further", resolution.further_binds.join(" "), origin.to_string());
    }
    addresses
}

fn unusable(text: &str, why: &str, origin: &Origin) -> Problem {
    let message = format!("bind {text:?} cannot be served: {why}");
    Problem::setting(message, origin).hint("use ADDRESS:PORT or unix:PATH")
}

fn first(resolution: &Resolution, server: Server, own: &Own, findings: &mut Findings) -> Addresses {
    let settings = &resolution.settings;
    let native = own.get("bind");
    if let (Some(path), native) = (&settings.uds.value, &native) {
        let because = settings.uds.origin.to_string();
        if let Some(native) = native {
            findings.warn(format!("{native} is not served: the Unix socket (from {because}) takes precedence"));
        }
        return alone(Bind::Unix(path.clone()), ChosenParts::ALL, because, findings);
    }
    if let Some(native) = native {
        if native.is_computed() {
            findings.warn(format!(
                "{native} is computed, so it is not known before the server runs: {} is served; set HOST and PORT to \
                 what it comes to",
                default_address(settings)
            ));
        } else if !native.is_texts() {
            let hint = "use 'ADDRESS:PORT', 'unix:PATH' or a list of them";
            findings.problem(Problem::new(Exit::Settings, format!("{native} is not an address")).hint(hint));
        } else if let Some(addresses) = gunicorn_addresses(settings, &native.texts(), &native.origin, findings) {
            return addresses;
        }
    }
    let (address, chosen, because) = address(resolution, server, findings);
    alone(Bind::Tcp(address), chosen, because, findings)
}

fn alone(bind: Bind, chosen: ChosenParts, because: String, findings: &mut Findings) -> Addresses {
    findings.decide("bind", bind.to_string(), because);
    Addresses { first: bind, further: Vec::new(), chosen, owner: SocketOwner::Launcher }
}

fn default_address(settings: &Settings) -> SocketAddr {
    SocketAddr::new(settings.host.value.0, u16::try_from(settings.port.value.0).unwrap_or_default())
}

/// The addresses in Gunicorn's own arguments or file, unless `HOST` and `PORT` override them. None if nothing is left.
fn gunicorn_addresses(
    settings: &Settings,
    texts: &[&str],
    origin: &Origin,
    findings: &mut Findings,
) -> Option<Addresses> {
    let mut binds = Vec::new();
    for text in texts {
        match parse(text) {
            Ok(bind) => binds.push(bind),
            Err(why) => findings.problem(unusable(text, &why, origin)),
        }
    }
    let explicit = [&settings.host.origin, &settings.port.origin].into_iter().find(|origin| origin.is_explicit());
    let (Some(first), Some(over)) = (binds.first().cloned(), explicit) else {
        let first = (!binds.is_empty()).then(|| binds.remove(0))?;
        let shown: Vec<String> = [&first].into_iter().chain(&binds).map(ToString::to_string).collect();
        findings.decide("bind", shown.join(" "), origin.to_string());
        return Some(Addresses { first, further: binds, chosen: ChosenParts::ALL, owner: SocketOwner::Launcher });
    };
    let merged = merged(settings, &first);
    let is_other = merged.is_none_or(|merged| Bind::Tcp(merged) != first && !picks_port(&first));
    if binds.len() > 1 || is_other {
        let texts = texts.join(", ");
        findings.warn(format!("bind {texts} (from {origin}) is not served unchanged: {over} takes precedence"));
    }
    let merged = merged?;
    let because =
        format!("address: {}; port: {}", part(&settings.host.origin, origin), part(&settings.port.origin, origin));
    Some(alone(Bind::Tcp(merged), ChosenParts::ALL, because, findings))
}

/// This address with its host or port replaced by what is set. None for a socket.
fn merged(settings: &Settings, native: &Bind) -> Option<SocketAddr> {
    let Bind::Tcp(native) = native else { return None };
    let (host, port) = (&settings.host, &settings.port);
    let port_number = u16::try_from(port.value.0).unwrap_or_default();
    Some(SocketAddr::new(
        if host.is_explicit() { host.value.0 } else { native.ip() },
        if port.is_explicit() { port_number } else { native.port() },
    ))
}

/// Whether the port is to be picked once, for all generations.
fn picks_port(bind: &Bind) -> bool {
    matches!(bind, Bind::Tcp(address) if address.port() == 0)
}

fn part<'a>(ours: &'a Origin, native: &'a Origin) -> &'a Origin {
    if ours.is_explicit() { ours } else { native }
}

/// The address according to `HOST` and `PORT`, or for Granian according to its own variables.
fn address(resolution: &Resolution, server: Server, findings: &mut Findings) -> (SocketAddr, ChosenParts, String) {
    let settings = &resolution.settings;
    let mut host = (settings.host.value, settings.host.origin.clone());
    let mut port = (settings.port.value.0, settings.port.origin.clone());
    if server == Server::Granian {
        if !settings.host.is_explicit()
            && let Some((value, origin)) = native::<BindHost>(resolution, "GRANIAN_HOST", findings)
        {
            host = (value, origin);
        }
        if !settings.port.is_explicit()
            && let Some((value, origin)) = native::<Int<1, 65535>>(resolution, "GRANIAN_PORT", findings)
        {
            port = (value.0, origin);
        }
    }
    let address = SocketAddr::new(host.0.0, u16::try_from(port.0).unwrap_or_default());
    let chosen = ChosenParts { host: host.1.is_explicit(), port: port.1.is_explicit() };
    (address, chosen, format!("address: {}; port: {}", host.1, port.1))
}

/// A value from one of Granian's variables.
fn native<T: Value>(resolution: &Resolution, name: &str, findings: &mut Findings) -> Option<(T, Origin)> {
    let text = &resolution.native.iter().find(|native| native.name == name)?.value;
    let origin = resolution.origin_of(name);
    if let Ok(value) = T::parse(text) {
        return Some((value, origin));
    }
    let ours = name.trim_start_matches("GRANIAN_");
    let message = format!("{name} = {text:?} is not valid");
    let hint = format!("allowed: {}; or use {ours}", T::expected());
    findings.problem(Problem::setting(message, &origin).hint(hint));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::resolution;

    fn of(env: &[(&str, &str)], server: Server) -> (String, Findings) {
        let mut findings = Findings::default();
        (bind(&resolution(env), &Host::default(), server, &Own::default(), &mut findings).first.to_string(), findings)
    }

    #[test]
    fn granians_own_variables_count_for_granian_where_ours_are_not_set() {
        let env = [("GRANIAN_HOST", "127.0.0.1"), ("GRANIAN_PORT", "9000")];
        assert_eq!(of(&env, Server::Granian).0, "127.0.0.1:9000");
        assert_eq!(of(&env, Server::Gunicorn).0, "0.0.0.0:4444");
        assert_eq!(of(&[env[0], env[1], ("PORT", "8000"), ("HOST", "::")], Server::Granian).0, "[::]:8000");
        let (_, findings) = of(&[("GRANIAN_PORT", "http")], Server::Granian);
        assert_eq!(
            findings.problems[0].to_string(),
            "GRANIAN_PORT = \"http\" is not valid (from environment GRANIAN_PORT); allowed: a whole number from 1 to \
             65535; or use PORT"
        );
    }

    #[test]
    fn further_addresses_of_the_command_line_are_for_gunicorn() {
        let mut resolution = resolution(&[("PORT", "80")]);
        resolution.further_binds = vec!["127.0.0.1:81".into(), "unix:/run/a.sock".into()];
        let mut findings = Findings::default();
        let addresses = bind(&resolution, &Host::default(), Server::Gunicorn, &Own::default(), &mut findings);
        assert_eq!((addresses.first.to_string(), addresses.further.len()), ("0.0.0.0:80".to_owned(), 2));
        assert!(findings.problems.is_empty());
        bind(&resolution, &Host::default(), Server::Granian, &Own::default(), &mut findings);
        assert_eq!(findings.problems.len(), 2, "{:?}", findings.problems);
    }

    #[test]
    fn a_socket_takes_the_place_of_the_address() {
        assert_eq!(of(&[("GRANIAN_UDS", "/run/a.sock"), ("PORT", "80")], Server::Granian).0, "unix:/run/a.sock");
        assert_eq!(of(&[("GRANIAN_UDS", "/run/a.sock")], Server::Gunicorn).0, "unix:/run/a.sock");
    }
}
