//! Conflicts between settings that are each valid on their own.

use std::time::Duration;

use super::flags::FlagLayer;
use super::options::Settings;
use super::setting::Setting;
use super::value::{ClientVerify, Mode, Value};
use crate::problem::Origin;
use crate::problem::{Exit, Problem};

/// The part of the stop budget that is reserved for ending what outlives the server's own grace period.
pub const STOP_RESERVE: Duration = Duration::from_secs(2);

/// Checks the settings against each other. Conflicts around `--bind` only concern the command line.
pub(super) fn check(settings: &Settings, flags: &FlagLayer, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    problems.extend(bind_twice(flags));
    warnings.extend(address_and_socket(settings));
    if settings.mode.value == Mode::Supervise {
        problems.extend(stop_budget(settings));
    }
    if settings.backoff_initial.value.0 > settings.backoff_max.value.0 {
        problems.push(beyond("backoff_initial", &settings.backoff_initial, "backoff_max", &settings.backoff_max));
    }
    client_verify(settings, problems, warnings);
    warnings.extend(watched_in_vain(settings));
}

fn bind_twice(flags: &FlagLayer) -> Option<Problem> {
    let others: Vec<_> = ["--host", "--port", "--uds"].into_iter().filter(|flag| flags.has(flag)).collect();
    (flags.has("--bind") && !others.is_empty()).then(|| {
        Problem::new(Exit::Usage, format!("--bind and {} both set the address", others.join(", ")))
            .hint("use either --bind or --host, --port and --uds")
    })
}

/// A socket takes precedence over address and port. A user who set one of those should know.
fn address_and_socket(settings: &Settings) -> Option<String> {
    let uds = settings.uds.value.as_ref()?;
    let typed = |origin: &Origin| matches!(origin, Origin::Flag(flag) if flag != "--bind");
    let address = [&settings.host.origin, &settings.port.origin].into_iter().find(|origin| typed(origin))?;
    let socket = format!("the Unix socket {} (from {})", uds.display(), settings.uds.origin);
    Some(format!("{address} has no effect together with {socket}"))
}

fn stop_budget(settings: &Settings) -> Option<Problem> {
    let (delay, timeout) = (&settings.stop_delay, &settings.stop_timeout);
    (delay.value.0 >= timeout.value.0).then(|| beyond("stop_delay", delay, "stop_timeout", timeout))
}

/// One value exceeds another that limits it. The origin is that of the value that was set explicitly.
fn beyond<A: Value, B: Value>(name: &str, value: &Setting<A>, bound: &str, limit: &Setting<B>) -> Problem {
    let message = format!("{name} = {} exceeds {bound} = {}", value.value.show(), limit.value.show());
    let origin = if value.is_explicit() { &value.origin } else { &limit.origin };
    Problem::setting(message, origin).hint(format!("lower {name} or raise {bound}"))
}

fn client_verify(settings: &Settings, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let verify = &settings.ssl_client_verify;
    if verify.value == ClientVerify::None {
        return;
    }
    if !settings.ssl.value {
        warnings.push(format!("ssl_client_verify (from {}) has no effect without TLS; set SSL=true", verify.origin));
    } else if settings.ssl_ca_file.value.is_none() {
        let message = format!("ssl_client_verify = {} needs CA certificates", verify.value);
        problems.push(Problem::setting(message, &verify.origin).hint("set SSL_CA_FILE"));
    }
}

fn watched_in_vain(settings: &Settings) -> Option<String> {
    let watch = &settings.watch_certs;
    let has_files = settings.ssl.value || !settings.env_file.value.0.is_empty();
    let why = match (has_files, settings.mode.value) {
        (false, _) => "without TLS and env files; set SSL=true or MCP_LAUNCH_ENV_FILE",
        (true, Mode::Exec) => "in exec mode, which leaves nothing to watch the files",
        (true, Mode::Supervise) => return None,
    };
    watch.value.then(|| format!("watch_certs (from {}) has no effect {why}", watch.origin))
}

#[cfg(test)]
mod tests {
    use crate::problem::Exit;
    use crate::settings::{FlagLayer, Resolution, resolve};
    use std::io;

    fn with(env: &[(&str, &str)], flags: &[(&'static str, &str, &str)]) -> Resolution {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut layer = FlagLayer::default();
        for (id, flag, value) in flags {
            layer.set(id, flag, value);
        }
        resolve(&layer, &env, &|_| Err(io::ErrorKind::NotFound.into()))
    }

    fn problems(env: &[(&str, &str)]) -> Vec<String> {
        with(env, &[]).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_agree_with_each_other() {
        let resolution = with(&[], &[]);
        assert_eq!((resolution.problems, resolution.warnings), (vec![], vec![]));
    }

    #[test]
    fn the_stop_delay_is_within_the_stop_budget() {
        let wanted = "stop_delay = 30s exceeds stop_timeout = 25s (from environment MCP_LAUNCH_STOP_DELAY); \
                      lower stop_delay or raise stop_timeout";
        assert_eq!(problems(&[("MCP_LAUNCH_STOP_DELAY", "30")]), [wanted]);
        assert!(problems(&[("MCP_LAUNCH_STOP_DELAY", "30"), ("MCP_LAUNCH_MODE", "exec")]).is_empty());
    }

    #[test]
    fn the_first_backoff_is_not_above_the_longest() {
        assert_eq!(problems(&[("MCP_LAUNCH_BACKOFF_MAX", "100ms")]).len(), 1);
        assert!(problems(&[("MCP_LAUNCH_BACKOFF_MAX", "500ms")]).is_empty());
    }

    #[test]
    fn client_certificates_need_tls_and_something_to_check_them_against() {
        let verify = ("SSL_CLIENT_VERIFY", "required");
        assert_eq!(with(&[verify], &[]).warnings.len(), 1);
        assert_eq!(problems(&[verify, ("SSL", "true")]).len(), 1);
        assert!(problems(&[verify, ("SSL", "true"), ("SSL_CA_FILE", "ca.pem")]).is_empty());
    }

    #[test]
    fn watching_certificates_without_effect_causes_a_warning() {
        let watch = ("MCP_LAUNCH_WATCH_CERTS", "true");
        assert_eq!(with(&[watch], &[]).warnings.len(), 1);
        assert_eq!(with(&[watch, ("SSL", "1"), ("MCP_LAUNCH_MODE", "exec")], &[]).warnings.len(), 1);
        assert!(with(&[watch, ("SSL", "1")], &[]).warnings.is_empty());
    }

    #[test]
    fn saying_the_address_twice_is_a_usage_error() {
        let resolution = with(&[], &[("host", "--bind", "::1"), ("port", "--bind", "80"), ("port", "--port", "81")]);
        assert_eq!(resolution.problems[0].exit, Exit::Usage);
        assert!(resolution.problems[0].message.contains("--bind and --port"), "{}", resolution.problems[0]);
    }

    #[test]
    fn an_address_that_a_socket_displaces_causes_a_warning() {
        let resolution = with(&[("GRANIAN_UDS", "/run/app.sock")], &[("port", "--port", "80")]);
        assert_eq!(
            resolution.warnings,
            [
                "command line --port has no effect together with the Unix socket /run/app.sock (from environment GRANIAN_UDS)"
            ]
        );
    }
}
