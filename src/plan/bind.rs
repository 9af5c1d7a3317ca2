//! Where the server listens.

use std::net::SocketAddr;

use super::{Bind, Findings};
use crate::problem::Problem;
use crate::settings::value::{BindHost, Int, Server, Value};
use crate::settings::{Origin, Resolution};

/// The address or socket. If `HOST` or `PORT` is not set, Granian's own variable applies to Granian.
pub(super) fn bind(resolution: &Resolution, server: Server, findings: &mut Findings) -> Bind {
    let settings = &resolution.settings;
    if let Some(path) = &settings.uds.value {
        findings.decide("bind", format!("unix:{}", path.display()), settings.uds.origin.to_string());
        return Bind::Unix(path.clone());
    }
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
    findings.decide("bind", address.to_string(), format!("address: {}; port: {}", host.1, port.1));
    Bind::Tcp(address)
}

/// A value from one of Granian's variables.
fn native<T: Value>(resolution: &Resolution, name: &str, findings: &mut Findings) -> Option<(T, Origin)> {
    let text = &resolution.native.iter().find(|native| native.name == name)?.value;
    let origin = Origin::Env(name.into());
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
        (bind(&resolution(env), server, &mut findings).to_string(), findings)
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
    fn a_socket_takes_the_place_of_the_address() {
        assert_eq!(of(&[("GRANIAN_UDS", "/run/a.sock"), ("PORT", "80")], Server::Granian).0, "unix:/run/a.sock");
        assert_eq!(of(&[("GRANIAN_UDS", "/run/a.sock")], Server::Gunicorn).0, "unix:/run/a.sock");
    }
}
