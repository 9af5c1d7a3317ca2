//! Decisions, warnings and problems found while a plan is made.

use super::Reason;
use crate::problem::Problem;

/// Collected while the plan is made, so that all problems are reported together.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
    pub reasons: Vec<Reason>,
}

impl Findings {
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    pub fn decide(&mut self, topic: &'static str, decision: impl Into<String>, because: impl Into<String>) {
        self.reasons.push(Reason { topic, decision: decision.into(), because: because.into() });
    }
}
