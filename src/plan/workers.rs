//! The number of workers, and why.

use std::time::Instant;

use super::common::Common;
use super::{Findings, Reason};
use crate::host::Host;
use crate::settings::value::{Mode, Server, Value, Workers};
use crate::settings::{Origin, Settings};

/// A count from Gunicorn's own settings, and where it was set.
pub(super) type Told = Option<(u32, Origin)>;

/// What the number of workers depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizing {
    /// Cores that can be used, by affinity and quota, or as the settings say.
    pub cores: f64,
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// What the number was computed from, or who set it.
    pub basis: Basis,
    /// Whether a computed number is computed again when a limit changes.
    pub is_followed: bool,
    /// When the limits were read, which the plan itself does not know.
    pub since: Option<Instant>,
}

/// Whether the number of workers is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// It follows from the limits.
    Computed,
    /// It was set, in this place.
    Set(Origin),
}

/// A worker count and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Count {
    pub number: u32,
    pub reason: Reason,
    pub warnings: Vec<String>,
    pub sizing: Sizing,
}

/// In development, more workers only mean more to reload.
const DEV_MODE_WORKERS: u32 = 2;
/// A count above this multiple of the cores is suspicious; it is the upper end of Gunicorn's own recommendation.
const FAR_ABOVE: u32 = 4;
/// Computed counts leave a fifth of the memory limit to the main process, the launcher and peaks.
const MEMORY_PERCENT: u64 = 80;

/// Computes the count for one server, whether or not it is the selected one.
pub(super) fn count(server: Server, settings: &Settings, host: &Host, argument: Told) -> Count {
    let cores = Cores::of(settings, host);
    let wanted = Wanted::of(server, settings, argument);
    let memory = MemoryCap::of(settings, host);
    let max = u32::try_from(settings.max_workers.value.0).unwrap_or(u32::MAX);
    let max_text = format!("max_workers {max} ({})", settings.max_workers.origin);
    let source = &wanted.origin;

    // The requested count comes first; it only applies if nothing allows fewer.
    let mut allowed: Vec<(u32, String)> = Vec::new();
    match &wanted.workers {
        Workers::Exactly(number) => allowed.push((*number, format!("set by {source}"))),
        Workers::Formula(formula) => {
            let number = formula.workers(cores.rounded);
            allowed.push((number, format!("{formula} by {source} with n = {} from {}", cores.rounded, cores.text)));
            allowed.push((max, max_text));
        }
        Workers::Auto => {
            let asked = if source.is_explicit() { format!(", auto by {source}") } else { String::new() };
            allowed.push((cores.rounded, format!("{}{asked}", cores.text)));
            allowed.push((max, max_text));
            allowed.extend(memory.as_ref().map(|cap| (cap.workers.max(1), cap.text.clone())));
        }
    }
    if Common::of(server, settings).dev_mode.value {
        allowed.push((DEV_MODE_WORKERS, "dev mode".into()));
    }

    let number = allowed.iter().map(|(number, _)| *number).min().unwrap_or(1).max(1);
    // Of equal counts the first decides, because the sort is stable.
    allowed.sort_by_key(|(number, _)| *number);
    let inputs = allowed.into_iter().enumerate();
    let inputs = inputs.map(|(at, (number, text))| if at == 0 { text } else { format!("{text} allows {number}") });
    let beside = wanted.is_exact().then_some(cores.text.clone());
    let passed_over = wanted.passed_over.iter().map(|other| format!("takes precedence over {other}"));
    let because = inputs.chain(beside).chain(passed_over).collect::<Vec<_>>().join("; ");

    let mut warnings = Vec::new();
    let plural = if number == 1 { "" } else { "s" };
    if wanted.is_exact() && number > cores.rounded.saturating_mul(FAR_ABOVE) {
        warnings.push(format!(
            "{number} workers (from {source}) are far more than the {} core{} available ({}); auto would follow the cores",
            cores.rounded,
            if cores.rounded == 1 { "" } else { "s" },
            cores.text
        ));
    }
    // Even a computed number is at least one.
    if let Some(limit) = memory.as_ref().filter(|cap| number > cap.all) {
        warnings.push(format!(
            "{number} worker{plural} (from {source}) may need more memory than is available: {}",
            limit.text
        ));
    }
    if let (None, None, Some(weight)) = (&settings.cpus.value, &host.cpu.quota, &host.cpu.weight)
        && weight.cores < f64::from(number)
    {
        warnings.push(format!(
            "{number} worker{plural} on {}, but the CPU weight ({}) grants only {} core{} when others are busy; set \
             MCP_LAUNCH_CPUS to the number of cores that you expect",
            cores.text,
            weight.source.display(),
            decimal(weight.cores),
            if weight.cores <= 1.0 { "" } else { "s" },
        ));
    }
    let reason = Reason { topic: "workers", decision: number.to_string(), because };
    let sizing = Sizing {
        cores: cores.available,
        memory: host.memory.limit.as_ref().map(|limit| limit.bytes),
        basis: if wanted.is_exact() { Basis::Set(source.clone()) } else { Basis::Computed },
        is_followed: settings.follow_limits.value && settings.mode.value == Mode::Supervise,
        since: None,
    };
    Count { number, reason, warnings, sizing }
}

impl Count {
    pub fn report(&self, findings: &mut Findings) {
        findings.reasons.push(self.reason.clone());
        findings.warnings.extend(self.warnings.iter().cloned());
    }
}

/// The requested count: our setting for the server, else Gunicorn's own, else `WEB_CONCURRENCY`, else auto.
struct Wanted {
    workers: Workers,
    origin: Origin,
    /// Counts that were also requested.
    passed_over: Vec<String>,
}

impl Wanted {
    fn of(server: Server, settings: &Settings, argument: Told) -> Self {
        let own = Common::of(server, settings).workers;
        let mut asked: Vec<(Workers, Origin)> = Vec::new();
        if own.is_explicit() {
            asked.push((own.value.clone(), own.origin.clone()));
        }
        if let (Server::Gunicorn, Some((number, origin))) = (server, argument) {
            asked.push((Workers::Exactly(number), origin));
        }
        let either = &settings.web_concurrency;
        if let Some(workers) = either.value.clone().filter(|workers| *workers != Workers::Auto) {
            asked.push((workers, either.origin.clone()));
        }
        let mut asked = asked.into_iter();
        let (workers, origin) = asked.next().unwrap_or((Workers::Auto, Origin::Default));
        let passed_over = asked.map(|(workers, origin)| format!("{} by {origin}", workers.show())).collect();
        Self { workers, origin, passed_over }
    }

    const fn is_exact(&self) -> bool {
        matches!(self.workers, Workers::Exactly(_))
    }
}

/// The available cores.
struct Cores {
    available: f64,
    /// To the nearest whole number, half up, at least 1.
    rounded: u32,
    /// Where that comes from.
    text: String,
}

impl Cores {
    fn of(settings: &Settings, host: &Host) -> Self {
        let affinity = host.cpu.affinity.max(1);
        let processors = format!("{affinity} processor{}", if affinity == 1 { "" } else { "s" });
        let (cores, text) = match (&settings.cpus.value, &host.cpu.quota) {
            (Some(cpus), _) => {
                let text = format!("cpus {} ({})", decimal(cpus.cores()), settings.cpus.origin);
                (cpus.cores(), text)
            }
            (None, Some(quota)) if quota.cores <= f64::from(affinity) => {
                let text = format!("cpu quota {} ({}) of {processors}", decimal(quota.cores), quota.source.display());
                (quota.cores, text)
            }
            (None, Some(quota)) => {
                let text = format!("{processors}, cpu quota {} ({})", decimal(quota.cores), quota.source.display());
                (affinity.into(), text)
            }
            (None, None) => (affinity.into(), format!("{processors}, no cpu quota")),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rounded = ((cores + 0.5).floor() as u32).max(1);
        Self { available: cores, rounded, text }
    }
}

/// Workers that fit into the memory limit.
struct MemoryCap {
    /// Within the share available to computed counts.
    workers: u32,
    /// In the whole limit.
    all: u32,
    text: String,
}

impl MemoryCap {
    fn of(settings: &Settings, host: &Host) -> Option<Self> {
        let limit = host.memory.limit.as_ref()?;
        let each = settings.worker_memory.value;
        if each.0 == 0 {
            return None;
        }
        let fitting = |percent: u64| {
            let workers = u128::from(limit.bytes) * u128::from(percent) / (u128::from(each.0) * 100);
            u32::try_from(workers).unwrap_or(u32::MAX)
        };
        let text = format!(
            "memory {} ({}), {MEMORY_PERCENT} % of it at {} per worker",
            mebibytes(limit.bytes),
            limit.source.display(),
            mebibytes(each.0),
        );
        Some(Self { workers: fitting(MEMORY_PERCENT), all: fitting(100), text })
    }
}

/// With at least one decimal, to show that it is fractional: `2.0`, `1.5`, `0.25`.
fn decimal(cores: f64) -> String {
    format!("{:?}", (cores * 1000.0).round() / 1000.0)
}

fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
