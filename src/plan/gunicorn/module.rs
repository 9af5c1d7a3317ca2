//! The generated configuration module: our defaults, then the user's file, then what the launcher always sets.
//!
//! It travels as a memory file that Python imports through a path entry. Gunicorn reads a configuration below the
//! command line and `GUNICORN_CMD_ARGS`, so its own precedence puts explicit settings above the user's file, and the
//! order inside the module puts the user's file above our defaults.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use super::directive::{Directive, Python};
use crate::plan::SocketOwner;
use crate::settings::value::TlsVersion;

/// The name to import it by.
pub(in super::super) const NAME: &str = "mcp_launch_gunicorn_config";

const CARRIED: &str = include_str!("carried.py");
/// One TLS context for all workers.
const TLS: &str = include_str!("tls.py");
const USER_FILE: &str = include_str!("user_file.py");
/// How hooks and the log see the sockets, and who may use a Unix one.
const SOCKETS: &str = include_str!("sockets.py");
/// How the main process learns that workers have a successor.
const SUCCESSORS: &str = include_str!("successors.py");
/// How a reload is distinguished from a start.
const HOOKS: &str = include_str!("hooks.py");
/// How the guard is told that a worker begins.
const WORKER_INIT: &str = include_str!("worker_init.py");
/// What the gateway needs if its user has no file.
const GATEWAY: &str = include_str!("../../../config/gunicorn.conf.py");

/// What no file may change: a daemonized server cannot be supervised, a pid file is useless, and with one socket per
/// worker a hung worker would keep its share of the requests.
const ALWAYS: &str = "\n# Always set by the launcher.\ndaemon = False\npidfile = None\nreuse_port = False\n";

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base<'a> {
    /// A file of the user's, or `python:MODULE`.
    User(&'a OsStr),
    /// The gateway's, as shipped.
    Gateway,
    /// None, and Gunicorn must not look for one either.
    Empty,
}

/// The parts of the module.
#[derive(Debug, Clone)]
pub(super) struct Parts<'a> {
    pub base: Base<'a>,
    /// Before the base.
    pub defaults: &'a [Directive],
    /// After it.
    pub forced: &'a [Directive],
    /// The oldest TLS version, if we configure TLS.
    pub least: Option<TlsVersion>,
    /// The longest grace that fits into the stop budget, if there is one.
    pub grace: Option<u64>,
    /// How many of the inherited sockets are public; none if none are inherited.
    pub public_listeners: Option<usize>,
    /// The descriptor from which the main process learns that workers have a successor, if the launcher replaces any.
    pub successors: Option<i32>,
    /// Whose the sockets are.
    pub socket_owner: SocketOwner,
    /// The mode of a Unix socket, if it is set.
    pub socket_mode: Option<u32>,
    /// Whether the app is the gateway.
    pub is_gateway: bool,
    /// Whether the guard is around the app.
    pub is_guarded: bool,
}

impl Parts<'_> {
    /// The module's text.
    pub fn source(&self) -> String {
        let mut text = CARRIED.to_owned();
        assign(&mut text, "Defaults.", self.defaults);
        match self.base {
            Base::User(location) => self.user_file(location, &mut text),
            Base::Gateway => {
                text.push_str("\n\n");
                text.push_str(GATEWAY);
            }
            Base::Empty => {}
        }
        text.push_str(ALWAYS);
        assign(&mut text, "Settings that no flag can express.", self.forced);
        if let Some(least) = self.least {
            let name = match least {
                TlsVersion::V1_2 => "TLSv1_2",
                TlsVersion::V1_3 => "TLSv1_3",
            };
            text.push_str(TLS);
            let _ = writeln!(text, "_serve_tls(globals(), {name:?})");
        }
        text.push_str(SOCKETS);
        let public = self.public_listeners.map_or_else(|| "None".to_owned(), |count| count.to_string());
        let mode = self.socket_mode.map_or_else(|| "None".to_owned(), |mode| format!("0o{mode:o}"));
        let passed = literal(&Python::Bool(self.socket_owner == SocketOwner::ServiceManager));
        let _ = writeln!(text, "_tend_sockets(globals(), {public}, {mode}, {passed})");
        if let Some(number) = self.successors {
            text.push_str(SUCCESSORS);
            let _ = writeln!(text, "_know_successors(globals(), {number})");
        }
        if self.is_guarded {
            text.push_str(WORKER_INIT);
            let _ = writeln!(text, "_tell_guard(globals(), {:?})", crate::guard::MODULE);
        }
        text
    }

    fn user_file(&self, location: &OsStr, text: &mut String) {
        text.push_str(USER_FILE);
        let _ = writeln!(text, "globals().update(_settings_of({}))", path(location));
        let grace = self.grace.map_or_else(|| "None".to_owned(), |seconds| seconds.to_string());
        let _ = writeln!(text, "_reconcile(globals(), {grace})");
        text.push_str(HOOKS);
        let _ = writeln!(text, "_announce_reload(globals())");
        if self.is_gateway {
            let _ = writeln!(text, "_renew_after_fork(globals(), {})", crate::guard::literal(GATEWAY));
        }
    }
}

fn assign(text: &mut String, title: &str, directives: &[Directive]) {
    if directives.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n# {title}");
    for Directive { setting, value, .. } in directives {
        let _ = writeln!(text, "{setting} = {}", literal(value));
    }
}

fn literal(value: &Python) -> String {
    match value {
        Python::None => "None".into(),
        Python::Bool(true) => "True".into(),
        Python::Bool(false) => "False".into(),
        Python::Int(number) => number.to_string(),
        Python::Text(text) => crate::guard::literal(text),
    }
}

fn path(location: &OsStr) -> String {
    if let Some(text) = location.to_str() {
        return crate::guard::literal(text);
    }
    let bytes = location.as_bytes().iter().fold(String::new(), |mut bytes, byte| {
        let _ = write!(bytes, "\\x{byte:02x}");
        bytes
    });
    format!("__import__(\"os\").fsdecode(b\"{bytes}\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_literal_that_stays_within_its_quotes() {
        assert_eq!(literal(&Python::Text("a\"b\\\n\u{e9}".into())), r#""a\"b\\\U0000000a\U000000e9""#);
        assert_eq!(path(OsStr::from_bytes(b"/a\xff")), r#"__import__("os").fsdecode(b"\x2f\x61\xff")"#);
        assert_eq!(path(OsStr::new("/a b")), r#""/a b""#);
    }

    #[test]
    fn the_order_is_defaults_user_always_forced() {
        let default = Directive::default_value("timeout", "--timeout", Python::Int(600));
        let forced = Directive::explicit("preload_app", "--preload", Python::Bool(false));
        let parts = Parts {
            base: Base::User(OsStr::new("/app/conf.py")),
            defaults: &[default],
            forced: &[forced],
            least: Some(TlsVersion::V1_3),
            grace: Some(23),
            public_listeners: Some(1),
            successors: None,
            socket_owner: SocketOwner::Launcher,
            socket_mode: None,
            is_gateway: false,
            is_guarded: true,
        };
        let text = parts.source();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        assert!(at("timeout = 600") < at("_settings_of(\"/app/conf.py\")"));
        assert!(at("_settings_of(\"/app/conf.py\")") < at("reuse_port = False"));
        assert!(at("reuse_port = False") < at("preload_app = False"));
        assert!(at("preload_app = False") < at("_serve_tls(globals(), \"TLSv1_3\")"));
    }
}
