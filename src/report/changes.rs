//! The server's environment compared with ours.

use crate::host::Environment;

use super::redact;

/// One difference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Set, with the value as it may be shown.
    Set(String, String),
    Removed(String),
}

/// The differences, ordered by name.
pub(crate) fn changes(ours: &Environment, its: &Environment) -> Vec<Change> {
    let mut changes: Vec<(String, Change)> = Vec::new();
    for (name, value) in its.iter().filter(|(name, value)| ours.get(*name) != Some(value)) {
        let name = name.to_string_lossy().into_owned();
        let shown = redact::variable(&name, &value.to_string_lossy());
        changes.push((name.clone(), Change::Set(name, shown)));
    }
    for name in ours.keys().filter(|name| !its.contains_key(*name)) {
        let name = name.to_string_lossy().into_owned();
        changes.push((name.clone(), Change::Removed(name)));
    }
    changes.sort_by(|(one, _), (other, _)| one.cmp(other));
    changes.into_iter().map(|(_, change)| change).collect()
}
