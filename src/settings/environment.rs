//! The environment as a layer, and the other variables in it that matter to us.

use std::ffi::OsStr;

use super::env_file::EnvFiles;
use super::env_names::{CONFIG, GRANIAN_VERSION, is_service_link, native_names, reader, split_prefix};
use super::layers::{Given, Layer};
use super::options::OPTIONS;
use super::quote::quote;
use super::suggest::{did_you_mean, nearest};
use super::value::REDACTED;
use super::{NativeVariable, Unread, Withheld};
use crate::host::Environment;
use crate::problem::Origin;
use crate::problem::Problem;

/// What was found in the environment.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub native: Vec<NativeVariable>,
    pub withheld: Vec<Withheld>,
    pub unread: Vec<Unread>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

/// The prefixes of the servers' own names.
const SERVERS: [&str; 2] = ["GUNICORN_", "GRANIAN_"];

/// The value of a variable; an empty one counts as unset.
pub(super) fn variable<'a>(env: &'a Environment, name: &str) -> Option<&'a OsStr> {
    env.get(OsStr::new(name)).map(AsRef::as_ref).filter(|value: &&OsStr| !value.is_empty())
}

/// The settings in the environment.
pub(super) fn layer(env: &Environment) -> Layer {
    let mut layer = Layer::environment();
    for opt in OPTIONS {
        // In a layer, the last value takes precedence.
        for name in opt.env.iter().rev() {
            if let Some(value) = variable(env, name) {
                layer.add(opt, Given::os(*name, value));
            }
        }
    }
    layer
}

/// Looks at every variable with one of our prefixes, or a server's. All others belong to the app. `files` says which of
/// them are from environment files.
pub(super) fn read(env: &Environment, files: &EnvFiles) -> Found {
    let mut found = Found::default();
    let prefixed = env.keys().filter_map(|name| name.to_str()).filter(|name| split_prefix(name).is_some());
    for name in prefixed {
        if let Some(value) = variable(env, name) {
            found.classify(name, value, &files.origin_of(name));
        }
    }
    found
}

impl Found {
    fn classify(&mut self, name: &str, value: &OsStr, origin: &Origin) {
        if is_service_link(name, &value.to_string_lossy()) {
            self.withheld.push(Withheld { name: name.into(), why: "a Kubernetes service link" });
        } else if name == GRANIAN_VERSION {
            self.withheld.push(Withheld { name: name.into(), why: "Granian would take it for its --version flag" });
        } else if name == CONFIG || OPTIONS.iter().any(|opt| opt.env.contains(&name)) {
            // Already read.
        } else if let Some(server) = reader(name) {
            let secret = name.ends_with("PASSWORD");
            let text = value.to_string_lossy();
            let shown = if secret { REDACTED.to_owned() } else { quote(&text) };
            if value.to_str().is_none() {
                let problem = Problem::setting(format!("{shown} is not UTF-8"), origin);
                self.problems.push(problem.hint(format!("{server} reads it; use valid UTF-8 or unset it")));
            }
            let value = if secret { REDACTED.to_owned() } else { text.into_owned() };
            self.native.push(NativeVariable { name: name.into(), value, server });
        } else {
            let meant = did_you_mean(meant(name).as_deref());
            let warning = format!("{origin} is set, but nothing reads it{meant}");
            self.warnings.push(warning.clone());
            self.unread.push(Unread { name: name.into(), warning });
        }
    }
}

/// The known name that was probably meant: the same word with another prefix, or else a similar word with the same
/// prefix.
fn meant(name: &str) -> Option<String> {
    let (prefix, rest) = split_prefix(name)?;
    let ours = OPTIONS.iter().flat_map(|opt| opt.env.iter().map(|name| (*name).to_owned()));
    // A user who sets up one server does not mean the other's.
    let is_other =
        |known: &String| split_prefix(known).is_some_and(|(theirs, _)| SERVERS.contains(&theirs) && theirs != prefix);
    let known: Vec<String> = ours
        .chain(native_names())
        .chain([CONFIG.to_owned()])
        .filter(|known| !SERVERS.contains(&prefix) || !is_other(known))
        .collect();
    let bare = |known: &str| split_prefix(known).map_or(known, |(_, rest)| rest).to_owned();
    if let Some(same) = known.iter().find(|known| bare(known) == rest) {
        return Some(same.clone());
    }
    let siblings = known.iter().filter_map(|known| known.strip_prefix(prefix));
    nearest(rest, siblings).map(|rest| format!("{prefix}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn read_all(env: &Environment) -> Found {
        read(env, &EnvFiles::default())
    }

    #[test]
    fn an_unknown_name_is_a_warning_that_names_the_nearest() {
        for (name, meant) in [
            ("GRANIAN_WOKERS", "; did you mean GRANIAN_WORKERS?"),
            ("MCP_LAUNCH_PORT", "; did you mean PORT?"),
            ("GUNICORN_CMD_ARG", "; did you mean GUNICORN_CMD_ARGS?"),
            ("MCP_LAUNCH_CONFIGS", "; did you mean MCP_LAUNCH_CONFIG?"),
            ("GRANIAN_FLAVOUR", ""),
            ("GRANIAN_TIMEOUT", ""),
            ("MCP_LAUNCH_THREADS", "; did you mean GUNICORN_THREADS?"),
        ] {
            let found = read_all(&env(&[(name, "1")]));
            assert_eq!(found.warnings, [format!("environment {name} is set, but nothing reads it{meant}")]);
        }
    }

    #[test]
    fn what_a_server_reads_for_itself_is_native_and_its_password_is_not_shown() {
        let found = read_all(&env(&[
            ("GRANIAN_LOG_CONFIG", "log.json"),
            ("GRANIAN_SSL_KEYFILE_PASSWORD", "hunter2"),
            ("GUNICORN_CMD_ARGS", "--workers 3"),
            ("GRANIAN_WORKERS", "2"),
            ("GRANIAN_RELOAD", ""),
        ]));
        let native: Vec<_> =
            found.native.iter().map(|native| (native.name.as_str(), native.value.as_str())).collect();
        let wanted = [
            ("GRANIAN_LOG_CONFIG", "log.json"),
            ("GRANIAN_SSL_KEYFILE_PASSWORD", REDACTED),
            ("GUNICORN_CMD_ARGS", "--workers 3"),
        ];
        assert_eq!(native, wanted);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    #[test]
    fn service_links_and_the_version_flag_are_withheld_without_a_message() {
        let found = read_all(&env(&[
            ("GRANIAN_PORT", "tcp://10.0.0.1:80"),
            ("GRANIAN_SERVICE_HOST", "10.0.0.1"),
            ("GRANIAN_VERSION", "2.8.7"),
            ("REDIS_PORT", "tcp://10.0.0.2:6379"),
        ]));
        let names: Vec<_> = found.withheld.iter().map(|withheld| withheld.name.as_str()).collect();
        assert_eq!(names, ["GRANIAN_PORT", "GRANIAN_SERVICE_HOST", "GRANIAN_VERSION"]);
        assert!(found.warnings.is_empty() && found.native.is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_matter_only_where_they_are_read() {
        let bytes = OsString::from_vec(vec![b'a', 0xff]);
        let env: Environment = [("GUNICORN_CMD_ARGS", &bytes), ("APP_SECRET", &bytes)]
            .map(|(name, value)| (name.into(), value.clone()))
            .into();
        let found = read_all(&env);
        let problems: Vec<_> = found.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            ["\"a\u{fffd}\" is not UTF-8 (from environment GUNICORN_CMD_ARGS); \
              gunicorn reads it; use valid UTF-8 or unset it"]
        );
    }
}
