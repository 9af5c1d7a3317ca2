//! `explain --json`: the same facts for programs. Keys are stable: new ones may be added, but none renamed.

use serde_json::{Map, Value, json};

use super::changes::{Change, changes};
use super::redact;
use crate::host::Host;
use crate::plan::{Inherited, Plan};
use crate::problem::Problem;
use crate::settings::Resolution;

/// Settings, decisions and what will be run, as one JSON object. Secrets are not shown.
#[must_use]
pub fn explain_json(resolution: &Resolution, host: &Host, plan: Result<&Plan, &[Problem]>) -> String {
    let own = plan.map_or(&[][..], |plan| &plan.warnings);
    let warnings = resolution.warnings.iter().chain(own).map(|warning| redact::text(warning));
    let native = resolution.native.iter().map(|native| {
        let value = redact::variable(&native.name, &native.value);
        json!({ "name": native.name, "value": value, "server": native.server.word() })
    });
    let withheld = resolution.withheld.iter().map(|withheld| json!({ "name": withheld.name, "why": withheld.why }));
    let explained = json!({
        "plan": plan.ok().map(|plan| plan_value(resolution, plan)),
        "problems": plan.err().unwrap_or_default().iter().map(problem_value).collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
        "notes": host.notes,
        "settings": settings_value(resolution),
        "file": resolution.file,
        "native": native.collect::<Vec<_>>(),
        "withheld": withheld.collect::<Vec<_>>(),
    });
    format!("{explained:#}\n")
}

fn plan_value(resolution: &Resolution, plan: &Plan) -> Value {
    let argv: Vec<_> = plan.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let argv = redact::arguments(&argv);
    let descriptors = plan.descriptors.iter().map(|descriptor| match &descriptor.what {
        Inherited::Listener => json!({ "number": descriptor.number, "what": "listener" }),
        Inherited::FurtherListener(_) => json!({ "number": descriptor.number, "what": "further-listener" }),
        Inherited::ProbeListener => json!({ "number": descriptor.number, "what": "probe-listener" }),
        Inherited::Scoreboard => json!({ "number": descriptor.number, "what": "scoreboard" }),
        Inherited::WorkerListener => json!({ "number": descriptor.number, "what": "worker-listener" }),
        Inherited::Stacks => json!({ "number": descriptor.number, "what": "stacks" }),
        Inherited::Wakeup => json!({ "number": descriptor.number, "what": "wakeup" }),
        Inherited::Successors => json!({ "number": descriptor.number, "what": "successors" }),
        Inherited::BorrowedSockets => json!({ "number": descriptor.number, "what": "line" }),
        Inherited::Pair => json!({ "number": descriptor.number, "what": "certificate-and-key" }),
        Inherited::Authority => json!({ "number": descriptor.number, "what": "certificate-authority" }),
        Inherited::Modules(modules) => {
            let names: Vec<_> = modules.iter().map(|module| &module.name).collect();
            json!({ "number": descriptor.number, "what": "modules", "names": names })
        }
    });
    let (mut set, mut removed) = (Map::new(), Vec::new());
    for change in changes(&resolution.own_env(), &plan.env) {
        match change {
            Change::Set(name, value) => _ = set.insert(name, value.into()),
            Change::Removed(name) => removed.push(name),
        }
    }
    let reasons = plan.reasons.iter().map(|reason| {
        json!({
            "topic": reason.topic,
            "decision": redact::text(&reason.decision),
            "because": redact::text(&reason.because),
        })
    });
    json!({
        "server": plan.server.word(),
        "version": plan.version.map(|version| version.to_string()),
        "app": plan.app,
        "mode": plan.mode.word(),
        "bind": plan.bind.to_string(),
        "tls": plan.tls,
        "workers": plan.workers,
        "program": plan.program.to_string_lossy(),
        "argv": argv,
        "cwd": plan.cwd.as_ref().map(|cwd| cwd.to_string_lossy()),
        "descriptors": descriptors.collect::<Vec<_>>(),
        "environment": { "set": set, "removed": removed },
        "reasons": reasons.collect::<Vec<_>>(),
    })
}

fn settings_value(resolution: &Resolution) -> Map<String, Value> {
    let entries = resolution.settings.entries();
    let entry = |entry: &crate::settings::options::Entry| {
        let shadowed = entry.shadowed.iter();
        let shadowed = shadowed.map(|lost| json!({ "value": redact::text(&lost.text), "origin": lost.origin }));
        let value = json!({
            "value": redact::text(&entry.value),
            "origin": entry.origin,
            "shadows": shadowed.collect::<Vec<_>>(),
        });
        (entry.opt.path(), value)
    };
    entries.iter().map(entry).collect()
}

fn problem_value(problem: &Problem) -> Value {
    json!({
        "message": redact::text(&problem.message),
        "origin": problem.origin,
        "hint": problem.hint,
        "exit": problem.exit.code(),
    })
}
