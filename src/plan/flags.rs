//! Which flag exists in which version of which server, according to the `--help` of each release.

use crate::host::Version;

/// A flag that not every version has.
struct Lifetime {
    flag: &'static str,
    since: Version,
    until: Option<Version>,
}

const fn since(flag: &'static str, since: Version) -> Lifetime {
    Lifetime { flag, since, until: None }
}

const fn until(flag: &'static str, until: Version) -> Lifetime {
    Lifetime { flag, since: Version(0, 0, 0), until: Some(until) }
}

/// Releases 1.6 to 2.8. Flags that are not listed exist in all of them.
const GRANIAN: &[Lifetime] = &[
    until("--opt", Version(1, 7, 0)),
    until("--threads", Version(2, 0, 0)),
    until("--threading-mode", Version(2, 0, 0)),
    since("--workers-lifetime", Version(1, 6, 0)),
    since("--workers-kill-timeout", Version(1, 7, 0)),
    since("--task-impl", Version(1, 7, 1)),
    since("--runtime-mode", Version(2, 0, 0)),
    since("--runtime-threads", Version(2, 0, 0)),
    since("--ssl-ca", Version(2, 3, 0)),
    since("--ssl-client-verify", Version(2, 3, 0)),
    since("--uds", Version(2, 5, 0)),
    since("--workers-max-rss", Version(2, 5, 0)),
    since("--ssl-protocol-min", Version(2, 6, 0)),
];

/// Releases 20 to 27.
const GUNICORN: &[Lifetime] =
    &[since("--no-control-socket", Version(25, 1, 0)), since("--http-protocols", Version(25, 0, 0))];

/// The first release of Gunicorn with a worker class `asgi`.
pub(super) const GUNICORN_ASGI: Version = Version(24, 0, 0);
/// The first release of Gunicorn without the worker class `eventlet`.
pub(super) const GUNICORN_WITHOUT_EVENTLET: Version = Version(26, 0, 0);
/// The first release of Gunicorn that takes networks (CIDR) as `--forwarded-allow-ips`.
pub(super) const GUNICORN_NETWORKS: Version = Version(24, 1, 0);
/// The first release of Granian in which each worker is given what it listens on, by its number.
pub(super) const GRANIAN_OWN_SOCKETS: Version = Version(2, 8, 0);
/// The first release of Granian with the event loop rloop.
pub(super) const GRANIAN_RLOOP: Version = Version(1, 7, 0);

/// Whether Granian has this flag. An unknown version is assumed to be the newest.
pub(super) fn granian_has(flag: &str, version: Option<Version>) -> bool {
    has(GRANIAN, flag, version)
}

/// The release that added a flag of Granian.
pub(super) fn granian_since(flag: &str) -> Option<Version> {
    GRANIAN.iter().find(|lifetime| lifetime.flag == flag).map(|lifetime| lifetime.since)
}

/// Whether Gunicorn has this flag. An unknown version is assumed to be the newest.
pub(super) fn gunicorn_has(flag: &str, version: Option<Version>) -> bool {
    has(GUNICORN, flag, version)
}

fn has(table: &[Lifetime], flag: &str, version: Option<Version>) -> bool {
    let Some(lifetime) = table.iter().find(|lifetime| lifetime.flag == flag) else { return true };
    let version = version.unwrap_or(Version(u32::MAX, 0, 0));
    lifetime.since <= version && lifetime.until.is_none_or(|until| version < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_has_its_flags() {
        for (flag, version, there) in [
            ("--threads", Version(1, 7, 6), true),
            ("--threads", Version(2, 0, 1), false),
            ("--opt", Version(1, 6, 4), true),
            ("--opt", Version(1, 7, 6), false),
            ("--task-impl", Version(1, 6, 4), false),
            ("--task-impl", Version(1, 7, 6), true),
            ("--workers-kill-timeout", Version(1, 6, 4), false),
            ("--workers-kill-timeout", Version(1, 7, 6), true),
            ("--runtime-mode", Version(1, 7, 6), false),
            ("--runtime-mode", Version(2, 0, 1), true),
            ("--ssl-ca", Version(2, 2, 6), false),
            ("--ssl-ca", Version(2, 3, 4), true),
            ("--uds", Version(2, 4, 2), false),
            ("--workers-max-rss", Version(2, 5, 7), true),
            ("--ssl-protocol-min", Version(2, 5, 7), false),
            ("--ssl-protocol-min", Version(2, 6, 1), true),
            ("--workers", Version(1, 6, 4), true),
        ] {
            assert_eq!(granian_has(flag, Some(version)), there, "{flag} in {version}");
        }
        assert!(!gunicorn_has("--no-control-socket", Some(Version(25, 0, 3))));
        assert!(gunicorn_has("--no-control-socket", Some(Version(25, 1, 0))));
    }

    #[test]
    fn an_unknown_version_is_taken_for_the_newest() {
        assert!(granian_has("--runtime-mode", None) && !granian_has("--threads", None));
        assert!(gunicorn_has("--no-control-socket", None));
    }
}
