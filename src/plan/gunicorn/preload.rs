//! Whether the app is imported once, in the main process, before the workers are forked.
//!
//! By default only the gateway is preloaded, which benefits and is known to work that way. Other apps may start threads
//! at import, which do not exist in the workers, or be patched by gevent too late.

use super::super::Findings;
use super::directive::{Directive, Python};
use super::own::Own;
use crate::settings::Settings;

const SETTING: &str = "preload_app";
const FLAG: &str = "--preload";

/// The decision.
#[derive(Debug)]
pub(super) struct Preload {
    /// Whether the main process loads the app.
    pub is_on: bool,
    /// The directive for Gunicorn.
    pub directives: Vec<Directive>,
}

/// Decides. Reloading changed code does not work with preloading, so it takes precedence.
pub(super) fn decide(
    settings: &Settings,
    own: &Own,
    is_gateway: bool,
    class: Option<&str>,
    findings: &mut Findings,
) -> Preload {
    let setting = &settings.gunicorn_preload_app;
    let native = own.get(SETTING);
    let asked = match (setting.value.0, &native) {
        (Some(on), _) => Some((on, setting.origin.to_string())),
        (None, Some(native)) if !native.is_computed() => Some((native.is_on(), native.to_string())),
        _ => None,
    };
    let reload = reload_origin(settings, own);
    let green = class.filter(|class| class.contains("gevent") || class.contains("eventlet"));
    let (is_on, because) = match (asked, reload, green) {
        (Some((true, origin)), Some(reload), _) => {
            findings.warn(format!("preload_app (from {origin}) has no effect: {reload} reloads the code"));
            return off(format!("{reload} reloads the code, which preloading would keep"), true, findings);
        }
        (_, Some(reload), _) => return off(format!("{reload} reloads the code"), true, findings),
        (Some((on, origin)), None, _) => (on, origin),
        (None, None, Some(class)) => (false, format!("auto: {class} patches a worker before the app is imported")),
        (None, None, None) if is_gateway => (true, "auto: the app is the gateway".to_owned()),
        (None, None, None) => (false, "auto: the app is not the gateway".to_owned()),
    };
    let because = match native.filter(|native| native.is_computed() && setting.value.0.is_none()) {
        Some(native) => format!("{because}; {native} is computed and takes precedence"),
        None => because,
    };
    findings.decide("preload", if is_on { "on" } else { "off" }, because);
    Preload { is_on, directives: vec![directive(is_on, setting.value.0.is_some())] }
}

/// What reloads the code, if something certainly does.
fn reload_origin(settings: &Settings, own: &Own) -> Option<String> {
    let dev_mode = &settings.gunicorn_dev_mode;
    if dev_mode.value {
        return Some(format!("dev_mode (from {})", dev_mode.origin));
    }
    let native = own.get("reload").filter(|native| native.is_on() && !dev_mode.is_explicit());
    native.map(|native| native.to_string())
}

fn off(because: String, explicit: bool, findings: &mut Findings) -> Preload {
    findings.decide("preload", "off", because);
    Preload { is_on: false, directives: vec![directive(false, explicit)] }
}

const fn directive(on: bool, explicit: bool) -> Directive {
    Directive::new(SETTING, FLAG, Python::Bool(on), explicit)
}
