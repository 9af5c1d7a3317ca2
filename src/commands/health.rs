//! `health`: one probe, one line, 0 for yes.

use std::time::{Duration, Instant};

use super::launcher::Directions;
use super::unexpected;
use crate::cli::Probe;
use crate::control::get::HealthTarget;
use crate::control::protocol::{Answer, Live, Request};
use crate::probe::Protocol;
use crate::problem::{Exit, Problem};
use crate::settings::value::{Http, Mode, ServerChoice};
use crate::settings::{FlagLayer, Settings};

/// Workers report at least once a second that their event loop ran. If the last report is older than this, in seconds,
/// the app is asked.
const FRESH: f64 = 3.0;

pub(super) fn health(flags: &FlagLayer, probe: Probe, timeout: Duration, url: Option<&str>) -> Result<u8, Problem> {
    if let Some(url) = url {
        let target = HealthTarget::url(url)
            .map_err(|why| Problem::new(Exit::Usage, format!("cannot probe the URL {url:?}: {why}")))?;
        return Ok(report(&ask(&target, timeout)));
    }
    let deadline = Instant::now() + timeout;
    let directions = Directions::read(flags);
    if directions.settings.mode.value == Mode::Exec {
        // There is no launcher any more: only the app itself can be asked.
        let settings = &directions.settings;
        let target =
            HealthTarget::at(&directions.bind().to_string(), &settings.health_path.value.0, protocol(settings));
        return Ok(report(&ask(&target.ok_or_else(unexpected)?, timeout)));
    }
    let launcher = directions.find(timeout)?;
    let left = deadline.saturating_duration_since(Instant::now());
    match probe {
        Probe::Ready => match launcher.ask(&Request::Ready, Some(left))? {
            Answer::Ready { ready: true, phase } => Ok(report(&Ok(format!("ready: {phase}")))),
            Answer::Ready { ready: false, phase } => Ok(report(&Err(format!("not ready: {phase}")))),
            _ => Err(unexpected()),
        },
        Probe::Live => match launcher.ask(&Request::Live, Some(left))? {
            Answer::Preparing { phase } => Ok(report(&Ok(format!("live: {phase}")))),
            Answer::Live(live) if !live.server => Ok(report(&Err(format!("not live: no server ({})", live.phase)))),
            // The launcher itself ends a start that takes too long, so a liveness probe need not fail.
            Answer::Live(live) if live.phase == "starting" => Ok(report(&Ok("live: starting".to_owned()))),
            Answer::Live(Live { heartbeat_seconds_ago: Some(ago), .. }) if ago <= FRESH => {
                Ok(report(&Ok(format!("live: a worker's event loop ran {ago:.1} s ago"))))
            }
            Answer::Live(live) => {
                let protocol = Protocol { tls: live.tls, h2c: live.h2c };
                let target = HealthTarget::at(&live.address, &live.path, protocol).ok_or_else(unexpected)?;
                Ok(report(&ask(&target, deadline.saturating_duration_since(Instant::now()))))
            }
            _ => Err(unexpected()),
        },
    }
}

/// The protocol of a server that was started with these settings, for when there is no launcher to ask.
fn protocol(settings: &Settings) -> Protocol {
    let tls = settings.ssl.value;
    let granian = settings.http_server.value == ServerChoice::Granian;
    Protocol { tls, h2c: granian && !tls && settings.granian_http.value == Http::V2 }
}

/// Makes one request.
fn ask(target: &HealthTarget, timeout: Duration) -> Result<String, String> {
    match target.get(timeout) {
        Ok(response) if response.is_sign_of_life() => Ok(format!("live: {target} {response}")),
        Ok(response) => Err(format!("not live: {target} {response}")),
        Err(why) => Err(format!("not live: {target}: {why}")),
    }
}

/// Prints the line.
fn report(outcome: &Result<String, String>) -> u8 {
    match outcome {
        Ok(line) => super::print(format!("{line}\n")),
        Err(line) => {
            super::print(format!("{line}\n"));
            Exit::No.code()
        }
    }
}
