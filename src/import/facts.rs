//! What was found: values for options of the table, and what could not be carried over.

use crate::settings::quote::quote;
use crate::settings::{OPTIONS, Opt};

/// A value for an option, and what it was called in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The option's identity in the table.
    pub id: &'static str,
    /// The value, as the option takes it.
    pub value: String,
    /// The name in the file that was read.
    pub from: String,
}

/// What has no counterpart, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// As it stands in the file; values that may be secret are left out.
    pub what: String,
    /// Why it was left, and what to do.
    pub why: String,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Values for options, at most one for each.
    pub taken: Vec<Taken>,
    /// What could not be carried over.
    pub left: Vec<Left>,
    /// Arguments for the server, to be given after `--`.
    pub server_args: Vec<String>,
}

/// The row of an option.
pub(super) fn option(id: &str) -> &'static Opt {
    OPTIONS.iter().find(|opt| opt.id == id).expect("an option of the table")
}

/// The variable that a value consists of, and its default: `$NAME`, `${NAME}`, `${NAME:-DEFAULT}`.
fn reference(value: &str) -> Option<(&str, Option<&str>)> {
    let name = value.strip_prefix('$')?;
    let name = name.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(name);
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    let is_name = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    is_name.then_some((name, default))
}

impl Facts {
    /// Takes a value if the option accepts it; a later one replaces an earlier one, as on a command line.
    pub fn take(&mut self, id: &'static str, value: &str, from: &str) {
        if let Some((variable, default)) = reference(value) {
            // What mcp-launch reads by itself takes precedence over the file, which has the default.
            let reads = |id: &str| option(id).env.contains(&variable);
            if let Some(reader) = [id, "web_concurrency"].into_iter().find(|id| reads(id)) {
                return default.map_or((), |default| self.take(reader, default, from));
            }
        }
        if value.contains(['$', '`', '%']) || value.contains("{{") {
            return self.leave(
                &format!("{from} {}", quote(value)),
                "it has a variable that its manager fills in; set it yourself",
            );
        }
        let opt = option(id);
        if (opt.canonical)(value).is_err() {
            let why = format!("{} takes {}", opt.path(), (opt.expected)());
            return self.leave(&format!("{from} {}", quote(value)), &why);
        }
        self.taken.retain(|taken| taken.id != id);
        self.taken.push(Taken { id, value: value.to_owned(), from: from.to_owned() });
    }

    /// Adds the attribute to an application that is named by its module alone.
    pub(super) fn add_attribute(&mut self, attribute: &str) {
        let app = self.taken.iter().find(|taken| taken.id == "app_module" && !taken.value.contains(':'));
        if let Some(app) = app.cloned() {
            self.take("app_module", &format!("{}:{attribute}", app.value), &app.from);
        }
    }

    /// Leaves something, with the reason.
    pub fn leave(&mut self, what: &str, why: &str) {
        self.left.push(Left { what: what.to_owned(), why: why.to_owned() });
    }

    /// Whether a value was found for this option.
    pub fn has(&self, id: &str) -> bool {
        self.taken.iter().any(|taken| taken.id == id)
    }

    /// What only makes sense together.
    pub(super) fn settle(&mut self) {
        if self.has("cert_file") || self.has("key_file") {
            self.take("ssl", "true", "the certificate");
        }
        let is_on = |id: &str| self.taken.iter().any(|taken| taken.id == id && taken.value == "true");
        if is_on("gunicorn_dev_mode") && is_on("gunicorn_preload_app") {
            self.taken.retain(|taken| taken.id != "gunicorn_preload_app");
            self.leave("preloading", "with reloading it would keep the old code");
        }
        if self.has("uds") && (self.has("host") || self.has("port")) {
            self.taken.retain(|taken| !["host", "port"].contains(&taken.id));
            self.leave("host and port", "a Unix socket is served in their place");
        }
        self.taken.sort_by_key(|taken| OPTIONS.iter().position(|opt| opt.id == taken.id));
    }
}
