//! The application as it is passed to the server.

use super::{Findings, gateway};
use crate::host::{AppFacts, Host, Interface};
use crate::problem::{Exit, Problem};
use crate::settings::Setting;
use crate::settings::value::{App, Server};

/// The application, with its attribute determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppTarget {
    /// The text for the server.
    pub text: String,
    /// Whether Granian needs a flag because it is a factory. Gunicorn recognises one by the parentheses.
    pub factory: bool,
    pub is_gateway: bool,
}

/// Determines the attribute and checks what can be checked without an import.
pub(super) fn target(setting: &Setting<App>, facts: &AppFacts, server: Server, findings: &mut Findings) -> AppTarget {
    let app = &setting.value;
    if let (Some(program), None) = (&facts.program, &app.attribute) {
        let message = format!("{app} is a program ({}), not an application", program.display());
        let hint = format!("to run it under this init: mcp-launch init -- {app}");
        findings.problem(Problem::new(Exit::Usage, message).from(&setting.origin).hint(hint));
    } else if facts.file.is_none() {
        findings
            .warn(format!("the module {} (from {}) was not found on the import path", app.module, setting.origin));
    }
    let attribute = app.attribute.as_deref().unwrap_or_else(|| guessed(app, facts, server, findings));
    let mut target =
        AppTarget { text: format!("{}:{attribute}", app.module), factory: false, is_gateway: gateway::is(app) };
    if let (Server::Granian, Some((name, arguments))) = (server, attribute.split_once('(')) {
        if arguments.trim() != ")" {
            let message = format!("Granian calls a factory without arguments, but {app} has some");
            let hint = format!("use {}:{name}() with a factory that needs none, or --server gunicorn", app.module);
            findings.problem(Problem::setting(message, &setting.origin).hint(hint));
        }
        target.text = format!("{}:{name}", app.module);
        target.factory = true;
    }
    target
}

/// The default attribute: Gunicorn takes `application`, Granian `app`, and if there is only the other one, that.
fn guessed<'a>(app: &App, facts: &'a AppFacts, server: Server, findings: &mut Findings) -> &'a str {
    let first = match server {
        Server::Gunicorn => "application",
        Server::Granian => "app",
    };
    let defined = |name: &str| facts.attributes.iter().any(|attribute| attribute == name);
    if !defined(first) {
        // Also `app` if the text of the module does not show it.
        return facts.attributes.first().map_or("app", String::as_str);
    }
    if let Some(other) = facts.attributes.iter().find(|attribute| *attribute != first) {
        let message =
            format!("{app} has both {first} and {other}: {server} takes {first}; name the other as {app}:{other}");
        findings.warn(message);
    }
    first
}

/// The protocol that the application speaks, if its module's text shows it.
pub(super) fn shown_interface(app: &AppTarget, host: &Host) -> Option<Interface> {
    if app.is_gateway {
        return Some(Interface::Asgi);
    }
    let (_, attribute) = app.text.split_once(':')?;
    host.interfaces.get(attribute).copied().filter(|_| !is_factory(app, attribute))
}

/// The protocol to serve the application by if none is set: the one that its text shows, else WSGI for a module `wsgi`,
/// as Django names it. The name proves nothing, so nothing is refused because of it.
pub(super) fn presumed_interface(app: &AppTarget, host: &Host) -> Option<Interface> {
    let (module, attribute) = app.text.split_once(':')?;
    let is_named_so = module.rsplit('.').next() == Some("wsgi") && !is_factory(app, attribute);
    shown_interface(app, host).or(is_named_so.then_some(Interface::Wsgi))
}

fn is_factory(app: &AppTarget, attribute: &str) -> bool {
    app.factory || attribute.contains('(')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::resolution;

    fn of(app: &str, server: Server, facts: &AppFacts) -> (AppTarget, Findings) {
        let mut findings = Findings::default();
        (target(&resolution(&[("APP_MODULE", app)]).settings.app_module, facts, server, &mut findings), findings)
    }

    fn known() -> AppFacts {
        AppFacts { file: Some("/srv/my/app.py".into()), ..AppFacts::default() }
    }

    #[test]
    fn the_attribute_is_found_or_app() {
        let application = AppFacts { attributes: vec!["application".into()], ..known() };
        assert_eq!(of("my.app", Server::Gunicorn, &application).0.text, "my.app:application");
        assert_eq!(of("my.app", Server::Gunicorn, &known()).0.text, "my.app:app");
        assert_eq!(of("my.app:api", Server::Granian, &application).0.text, "my.app:api");
    }

    #[test]
    fn where_both_are_there_each_server_takes_its_own_and_that_is_reported() {
        let both = AppFacts { attributes: vec!["app".into(), "application".into()], ..known() };
        let (gunicorn, findings) = of("my.app", Server::Gunicorn, &both);
        assert_eq!(gunicorn.text, "my.app:application");
        assert!(findings.warnings[0].contains("gunicorn takes application"), "{:?}", findings.warnings);
        assert_eq!(of("my.app", Server::Granian, &both).0.text, "my.app:app");
        assert!(of("my.app:app", Server::Gunicorn, &both).1.warnings.is_empty());
    }

    #[test]
    fn a_factory_is_called_by_either_server() {
        let (gunicorn, _) = of("my.app:make(debug=True)", Server::Gunicorn, &known());
        assert_eq!((gunicorn.text.as_str(), gunicorn.factory), ("my.app:make(debug=True)", false));
        let (granian, findings) = of("my.app:make()", Server::Granian, &known());
        assert_eq!((granian.text.as_str(), granian.factory), ("my.app:make", true));
        assert!(findings.problems.is_empty());
        let (_, findings) = of("my.app:make(debug=True)", Server::Granian, &known());
        assert!(findings.problems[0].to_string().contains("use my.app:make()"), "{}", findings.problems[0]);
    }

    #[test]
    fn the_text_proves_the_interface_and_the_name_of_the_module_suggests_it() {
        let of = |app: &str, shown: Option<Interface>| {
            let interfaces = shown.into_iter().map(|interface| ("app".to_owned(), interface)).collect();
            let (target, _) = of(app, Server::Gunicorn, &known());
            let host = Host { interfaces, ..Host::default() };
            (shown_interface(&target, &host), presumed_interface(&target, &host))
        };
        let (asgi, wsgi) = (Some(Interface::Asgi), Some(Interface::Wsgi));
        assert_eq!(of("my.app:app", wsgi), (wsgi, wsgi));
        assert_eq!(of("my.app:app", None), (None, None));
        assert_eq!(of("my.wsgi:app", None), (None, wsgi));
        assert_eq!(of("wsgi:app", asgi), (asgi, asgi));
        assert_eq!(of("my.wsgi:make()", None), (None, None));
        assert_eq!(of("mcpgateway.main:app", None), (asgi, asgi));
    }

    #[test]
    fn a_program_is_answered_with_the_init_form() {
        let facts = AppFacts { program: Some("/bin/bash".into()), ..AppFacts::default() };
        let (_, findings) = of("bash", Server::Gunicorn, &facts);
        assert_eq!(findings.problems[0].exit, Exit::Usage);
        assert!(findings.problems[0].to_string().ends_with("mcp-launch init -- bash"));
    }

    #[test]
    fn a_module_that_is_not_there_is_only_a_warning() {
        let (_, findings) = of("my.app:app", Server::Gunicorn, &AppFacts::default());
        assert!(findings.problems.is_empty());
        assert!(findings.warnings[0].contains("my.app"));
    }
}
