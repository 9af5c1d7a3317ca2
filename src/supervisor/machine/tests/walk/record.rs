//! The stages of a walk, and the state diagram that must have the same changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::GenerationId;
use crate::supervisor::machine::generation::{Main, Stage};
use crate::supervisor::machine::reload::ReloadStage;
use crate::supervisor::machine::{Phase, State};

/// A change from one stage to another, of one kind of thing.
pub(super) type Transition = (String, String, String);

/// The state of everything between two events.
#[derive(Debug)]
pub(super) struct Picture {
    phase: &'static str,
    generations: BTreeMap<GenerationId, (&'static str, bool)>,
    reload: &'static str,
}

impl Picture {
    pub(super) fn of(state: &State) -> Self {
        let word = |stage: &Stage| match stage {
            Stage::Starting { .. } => "starting",
            Stage::Serving { .. } => "serving",
            Stage::Lingering { .. } => "lingering",
            Stage::Leaving(_) => "leaving",
        };
        let generations = state.generations().iter();
        Self {
            phase: match state.phase {
                Phase::Running => "running",
                Phase::Delaying { .. } => "delaying",
                Phase::Ending { .. } => "ending",
                Phase::Done => "done",
            },
            generations: generations.map(|it| (it.id, (word(&it.stage), it.main != Main::Gone))).collect(),
            reload: match state.reload.as_ref().map(|reload| &reload.stage) {
                None => "none",
                Some(ReloadStage::Planning) => "planning",
                Some(ReloadStage::Planned(_)) => "planned",
                Some(ReloadStage::Incoming { .. }) => "incoming",
                Some(ReloadStage::Stepping(_)) => "stepping",
                Some(ReloadStage::Proving { .. }) => "proving",
            },
        }
    }

    pub(super) fn stage(&self, generation: GenerationId) -> Option<&'static str> {
        self.generations.get(&generation).map(|(stage, _)| *stage)
    }

    pub(super) fn has_main(&self, generation: GenerationId) -> bool {
        self.generations.get(&generation).is_some_and(|(_, has_main)| *has_main)
    }
}

/// The transitions that the table in the documentation of the state machine has.
pub(super) fn documented() -> BTreeSet<Transition> {
    let lines = include_str!("../../mod.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = lines.map(|line| line.split(" | ").collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells.len() == 4 && cells[0] != "what");
    rows.map(|cells| (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned())).collect()
}

/// All transitions that were seen.
#[derive(Debug, Default)]
pub(super) struct Record(pub(super) BTreeSet<Transition>);

impl Record {
    pub(super) fn add(&mut self, before: &Picture, after: &Picture) {
        self.note("launcher", before.phase, after.phase);
        match (before.reload, after.reload) {
            // The settings are usable, and nothing prevents the start.
            ("planning", "incoming") => {
                self.note("reload", "planning", "planned");
                self.note("reload", "planned", "incoming");
            }
            // That one is over, and the next one was waiting.
            (stage, "planning") if stage != "planning" => {
                self.note("reload", stage, "none");
                self.note("reload", "none", "planning");
            }
            (before, after) => self.note("reload", before, after),
        }
        let ids: BTreeSet<_> = before.generations.keys().chain(after.generations.keys()).collect();
        for id in ids {
            let from = before.stage(*id).unwrap_or("none");
            self.note("generation", from, after.stage(*id).unwrap_or("gone"));
        }
    }

    fn note(&mut self, what: &str, from: &str, to: &str) {
        if from != to {
            self.0.insert((what.to_owned(), from.to_owned(), to.to_owned()));
        }
    }
}
