//! Values in files over which the environment or the command line takes precedence: when one of them changes while the
//! launcher runs, a reload cannot apply it, because flags and environment stay as they were at the start.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Settings;
use crate::problem::Origin;

/// A value in a file that does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// Its location.
    pub origin: Origin,
    /// What takes precedence over it.
    pub by: Origin,
    /// A number that changes with the value, which may be a secret.
    fingerprint: u64,
}

impl Overridden {
    /// Whether both are the same key of the same file. Its line may have moved.
    fn is_same_key(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (Origin::EnvFile { path, name, .. }, Origin::EnvFile { path: other, name: other_name, .. }) => {
                path == other && name == other_name
            }
            (one, other) => one == other,
        }
    }
}

/// Finds all of them. `variables` are those of environment files that are also in the environment.
pub(super) fn find(settings: &Settings, variables: impl Iterator<Item = (Origin, Origin, u64)>) -> Vec<Overridden> {
    let mut found: Vec<_> =
        variables.map(|(origin, by, fingerprint)| Overridden { origin, by, fingerprint }).collect();
    for entry in settings.entries() {
        if !matches!(entry.origin, Origin::Env(_) | Origin::Flag(_)) {
            continue;
        }
        for shadowed in entry.shadowed.iter().filter(|shadowed| is_file(&shadowed.origin)) {
            let mut hasher = DefaultHasher::new();
            shadowed.text.hash(&mut hasher);
            let (origin, by) = (shadowed.origin.clone(), entry.origin.clone());
            let one = Overridden { origin, by, fingerprint: hasher.finish() };
            if !found.iter().any(|other| other.is_same_key(&one)) {
                found.push(one);
            }
        }
    }
    found
}

const fn is_file(origin: &Origin) -> bool {
    matches!(origin, Origin::File { .. } | Origin::EnvFile { .. })
}

/// Warnings about values that have changed and have no effect.
#[must_use]
pub fn changes(before: &[Overridden], now: &[Overridden]) -> Vec<String> {
    let has_changed = |one: &&Overridden| {
        before.iter().find(|old| old.is_same_key(one)).is_none_or(|old| old.fingerprint != one.fingerprint)
    };
    let warning = |Overridden { origin, by, .. }: &Overridden| {
        format!("{origin} has changed without effect: {by} takes precedence, and stays as it was at the start")
    };
    now.iter().filter(has_changed).map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FlagLayer, resolve};
    use std::io;
    use std::path::Path;

    fn overridden(files: &[(&str, &str)]) -> Vec<Overridden> {
        let env = [("PORT", "1"), ("TOKEN", "x"), ("CERT_PASSPHRASE", "x"), ("MCP_LAUNCH_ENV_FILE", "a.env")];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        resolve(&FlagLayer::default(), &env, &read).overridden
    }

    #[test]
    fn a_key_that_changes_behind_the_environment_is_reported_once_and_its_line_does_not_matter() {
        let before = overridden(&[("./mcp-launch.toml", "port = 2"), ("a.env", "TOKEN=a\nPORT=3\nOTHER=1")]);
        let same = overridden(&[("./mcp-launch.toml", "port = 2"), ("a.env", "\nTOKEN=a\nPORT=3\nOTHER=2")]);
        assert_eq!(changes(&before, &same), [""; 0]);
        let changed =
            overridden(&[("./mcp-launch.toml", "port = 4"), ("a.env", "TOKEN=b\nPORT=5\nCERT_PASSPHRASE=new")]);
        let warning = |key: &str, by: &str| {
            format!("{key} has changed without effect: {by} takes precedence, and stays as it was at the start")
        };
        assert_eq!(
            changes(&before, &changed),
            [
                warning("env file a.env line 3, CERT_PASSPHRASE", "environment CERT_PASSPHRASE"),
                warning("env file a.env line 2, PORT", "environment PORT"),
                warning("env file a.env line 1, TOKEN", "environment TOKEN"),
                warning("file ./mcp-launch.toml key port", "environment PORT"),
            ]
        );
    }
}
