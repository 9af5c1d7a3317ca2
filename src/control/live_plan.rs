//! The plan in force, as data and for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::protocol::{Decision, Generation, LivePlan, PlanLimits};
use super::table::generation_lines;
use crate::host::Environment;
use crate::plan::Plan;
use crate::report::changes::{Change, changes};
use crate::report::redact;

impl PlanLimits {
    /// For people: `2 cores, 512 MiB, read 12.5 s ago`.
    fn text(&self) -> String {
        let cores = if (self.cores - 1.0).abs() < f64::EPSILON { "core" } else { "cores" };
        let memory =
            self.memory_bytes.map_or_else(|| "no memory limit".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let read = self.seconds_ago.map(|ago| format!(", read {ago:.1} s ago")).unwrap_or_default();
        format!("{} {cores}, {memory}{read}", self.cores)
    }
}

impl LivePlan {
    /// What may be shown of a plan, for a launcher started with this environment.
    #[must_use]
    pub fn new(plan: &Plan, launcher_env: &Environment, address: String, generations: Vec<Generation>) -> Self {
        let text = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
        let argv: Vec<String> = plan.argv.iter().map(text).collect();
        let (mut environment, mut environment_removed) = (BTreeMap::new(), Vec::new());
        for change in changes(launcher_env, &plan.env) {
            match change {
                Change::Set(name, value) => _ = environment.insert(name, value),
                Change::Removed(name) => environment_removed.push(name),
            }
        }
        Self {
            server: plan.server.word().to_owned(),
            version: plan.version.map(|version| version.to_string()),
            app: plan.app.clone(),
            address,
            tls: plan.tls,
            workers: plan.workers,
            limits: PlanLimits {
                cores: plan.sizing.cores,
                memory_bytes: plan.sizing.memory,
                seconds_ago: plan.sizing.since.map(|since| (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0),
            },
            program: plan.program.display().to_string(),
            argv: redact::arguments(&argv),
            cwd: plan.cwd.as_ref().map(|cwd| cwd.display().to_string()),
            environment,
            environment_removed,
            reasons: plan
                .reasons
                .iter()
                .map(|reason| Decision {
                    topic: reason.topic.to_owned(),
                    decision: redact::text(&reason.decision),
                    because: redact::text(&reason.because),
                })
                .collect(),
            warnings: plan.warnings.iter().map(|warning| redact::text(warning)).collect(),
            generations,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let server = match &self.version {
            Some(version) => format!("{}/{version}", self.server),
            None => self.server.clone(),
        };
        let tls = if self.tls { " (TLS)" } else { "" };
        let mut text = format!(
            "server       {server}\napp          {}\naddress      {}{tls}\nworkers      {}\nlimits       {}\nprogram      {}\n",
            self.app,
            self.address,
            self.workers,
            self.limits.text(),
            self.program
        );
        if let Some(cwd) = &self.cwd {
            let _ = writeln!(text, "directory    {cwd}");
        }
        let _ = writeln!(text, "command      {}", command_line(&self.argv));
        for (name, value) in &self.environment {
            let _ = writeln!(text, "environment  {name}={value}");
        }
        for name in &self.environment_removed {
            let _ = writeln!(text, "environment  {name} removed");
        }
        for reason in &self.reasons {
            let _ = writeln!(text, "because      {} = {}: {}", reason.topic, reason.decision, reason.because);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning      {warning}");
        }
        for generation in &self.generations {
            text.push('\n');
            text += &generation_lines(generation);
        }
        text
    }
}

/// As it could be typed in a shell.
fn command_line(argv: &[String]) -> String {
    shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_else(|_| argv.join(" "))
}
