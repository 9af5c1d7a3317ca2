//! The threads of Gunicorn's workers. Only its class gthread has any; it also takes the place of sync with more than one.

use super::super::threads::{Handlers, Threads};
use super::super::{Findings, request_limit};
use super::directive::{Directive, Python};
use super::own::Own;
use super::worker_class::{Kind, kind};
use crate::problem::Origin;
use crate::settings::Settings;
use crate::settings::value::Value;

/// What handles the requests in a worker of this class, and what to tell Gunicorn.
pub(super) fn decide(
    settings: &Settings,
    own: &Own,
    class: Option<&str>,
    findings: &mut Findings,
) -> (Handlers, Option<Directive>) {
    let setting = &settings.gunicorn_threads;
    let ours = setting.value.map(|number| (number.0, setting.origin.clone()));
    let theirs = own.get("threads").and_then(|told| Some((told.number()?, told.origin)));
    let is_computed = own.get("threads").is_some_and(|told| told.is_computed());
    let asked = ours.clone().or(theirs);
    let explicit = ours.map(|(number, _)| directive(number, true));
    match (class.map(kind), asked) {
        (Some(Kind::Sync), None | Some((0 | 1, _))) => (Handlers::One, explicit),
        (Some(Kind::Sync | Kind::Threads), Some((number, origin))) => {
            findings.decide("threads", number.to_string(), origin.to_string());
            (Handlers::Threads(Threads { number, origin: Some(origin) }), explicit)
        }
        (Some(Kind::Threads), None) => {
            let backpressure = settings.gunicorn_backpressure.value;
            let threads = Threads::for_backpressure(backpressure.map(request_limit::most));
            let because = match backpressure {
                _ if is_computed => "the configuration file computes it".to_owned(),
                Some(limit) => format!("backpressure is {}, and two more refuse requests", limit.show()),
                None => Origin::Default.to_string(),
            };
            let decision = if is_computed { "computed".to_owned() } else { threads.number.to_string() };
            findings.decide("threads", decision, because);
            let default = directive(threads.number, false);
            (Handlers::Threads(threads), (!is_computed).then_some(default))
        }
        (Some(Kind::Other), Some(_)) if explicit.is_some() => {
            let class = class.unwrap_or_default();
            findings.warn(format!("threads (from {}) has no effect with worker class {class}", setting.origin));
            (Handlers::Unlimited, None)
        }
        _ => (Handlers::Unlimited, explicit),
    }
}

fn directive(number: u64, is_explicit: bool) -> Directive {
    Directive::new("threads", "--threads", Python::Int(number), is_explicit)
}
