//! Which protocol the objects of a module speak, WSGI or ASGI, as far as its text shows that.

use std::collections::BTreeMap;

use super::definitions::{assigned, targets};
use super::statements::{split, statements};
use super::tokens::Token;

/// The protocol between a server and an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Called with the environment and a function that starts the response.
    Wsgi,
    /// Called with scope, receive and send.
    Asgi,
}

/// Classes, and functions that return an object, that make a WSGI application.
const WSGI: &[&str] = &[
    "get_wsgi_application",
    "make_wsgi_app",
    "Flask",
    "Bottle",
    "default_app",
    "ProxyFix",
    "DispatcherMiddleware",
    "SharedDataMiddleware",
    "WhiteNoise",
    "WSGIApplication",
];

/// What makes an ASGI application, including wrappers around a WSGI application.
const ASGI: &[&str] = &[
    "get_asgi_application",
    "get_default_application",
    "ProtocolTypeRouter",
    "FastAPI",
    "Starlette",
    "Litestar",
    "Quart",
    "Sanic",
    "BlackSheep",
    "WsgiToAsgi",
    "WSGIMiddleware",
];

/// A name that a module imports from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Borrowed {
    /// The module as written, with its leading dots.
    pub module: String,
    /// The name there; none for all of them (`*`).
    pub name: Option<String>,
    /// The name here.
    pub here: String,
}

/// What a module's text shows about its applications.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// Names whose interface is known.
    pub interfaces: BTreeMap<String, Interface>,
    /// Its imports, in order.
    pub borrowed: Vec<Borrowed>,
}

/// Reads a module.
pub(in super::super) fn interfaces(source: &str) -> Found {
    let mut reader = Reader::default();
    for statement in statements(source) {
        reader.enter(statement.indent);
        for part in split(&statement.tokens, ";") {
            reader.read(statement.indent, part);
        }
    }
    Found { interfaces: reader.found, borrowed: reader.borrowed.into_iter().flatten().collect() }
}

#[derive(Default)]
struct Reader {
    found: BTreeMap<String, Interface>,
    /// The interface of a class's instances.
    classes: BTreeMap<String, Interface>,
    /// In the order of the text, without those that were bound again.
    borrowed: Vec<Option<Borrowed>>,
    /// Where those of a name are.
    places: BTreeMap<String, Vec<usize>>,
    /// The function or class that we are in: its column, and its name if it is a class.
    scope: Option<(usize, Option<String>)>,
    is_decorated: bool,
}

impl Reader {
    fn enter(&mut self, indent: usize) {
        if self.scope.as_ref().is_some_and(|(column, _)| indent <= *column) {
            self.scope = None;
        }
    }

    fn read(&mut self, indent: usize, part: &[Token]) {
        let Some(first) = part.first() else { return };
        let was_decorated = std::mem::replace(&mut self.is_decorated, first.is("@"));
        if let Some((_, class)) = &self.scope {
            if let (Some(class), Some(("__call__", interface))) = (class, function(part)) {
                match interface {
                    Some(interface) => self.classes.insert(class.clone(), interface),
                    None => self.classes.remove(class),
                };
            }
            return;
        }
        if let Some((name, interface)) = function(part) {
            self.scope = Some((indent, None));
            self.set(name, interface.filter(|_| !was_decorated));
        } else if let [class, name, ..] = part
            && class.name() == Some("class")
        {
            self.scope = Some((indent, name.name().map(str::to_owned)));
        } else if first.name() == Some("from") {
            self.borrow(&part[1..]);
        } else {
            self.assign(part);
        }
    }

    fn set(&mut self, name: &str, interface: Option<Interface>) {
        for place in self.places.remove(name).unwrap_or_default() {
            self.borrowed[place] = None;
        }
        match interface {
            Some(interface) => self.found.insert(name.to_owned(), interface),
            None => self.found.remove(name),
        };
    }

    fn assign(&mut self, statement: &[Token]) {
        let (value, sides) = assigned(statement);
        let interface = self.value(value);
        for name in sides.into_iter().flat_map(targets) {
            self.set(name, interface);
        }
    }

    /// The interface of what a call returns, or of what a name refers to.
    fn value(&self, value: &[Token]) -> Option<Interface> {
        let end = value.iter().position(|token| token.is("(")).unwrap_or(value.len());
        let is_path = value[..end].iter().all(|token| token.name().is_some() || token.is("."));
        let name = value[..end].last().and_then(Token::name).filter(|_| is_path)?;
        if end == value.len() {
            return self.found.get(name).copied().filter(|_| end == 1);
        }
        let is_whole = value.last().is_some_and(|token| token.is(")"));
        match name {
            _ if !is_whole => None,
            name if WSGI.contains(&name) => Some(Interface::Wsgi),
            name if ASGI.contains(&name) => Some(Interface::Asgi),
            name => self.classes.get(name).copied(),
        }
    }

    fn borrow(&mut self, rest: &[Token]) {
        let Some(at) = rest.iter().position(|token| token.name() == Some("import")) else { return };
        let module: String = rest[..at].iter().map(written).collect();
        for item in rest[at + 1..].split(|token| token.is(",") || token.is("(") || token.is(")")) {
            let Some(first) = item.first() else { continue };
            let name = first.name().map(str::to_owned);
            let here = item.last().and_then(Token::name).unwrap_or_default().to_owned();
            if name.is_some() || first.is("*") {
                self.found.remove(&here);
                if name.is_some() {
                    self.places.entry(here.clone()).or_default().push(self.borrowed.len());
                }
                self.borrowed.push(Some(Borrowed { module: module.clone(), name, here }));
            }
        }
    }
}

fn written(token: &Token) -> &str {
    const OPERATORS: [&str; 2] = [".", "..."];
    token.name().or_else(|| OPERATORS.into_iter().find(|operator| token.is(operator))).unwrap_or_default()
}

/// The name of the function that is defined here, and the interface that its parameters imply.
fn function(part: &[Token]) -> Option<(&str, Option<Interface>)> {
    let (is_async, part) = match part {
        [first, rest @ ..] if first.name() == Some("async") => (true, rest),
        part => (false, part),
    };
    let [def, name, open, rest @ ..] = part else { return None };
    if def.name() != Some("def") || !open.is("(") {
        return None;
    }
    let name = name.name()?;
    let mut depth = 1;
    let end = rest.iter().position(|token| {
        depth += token.nesting();
        depth == 0
    })?;
    let parameters: Vec<&[Token]> = split(&rest[..end], ",").into_iter().filter(|part| !part.is_empty()).collect();
    let is_method = parameters.first().is_some_and(|first| first[0].name() == Some("self"));
    let plain = parameters.iter().all(|parameter| parameter[0].name().is_some());
    let interface = match (parameters.len() - usize::from(is_method), is_async) {
        (2, false) if plain => Some(Interface::Wsgi),
        (3, true) if plain => Some(Interface::Asgi),
        _ => None,
    };
    Some((name, interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(source: &str) -> Option<Interface> {
        interfaces(source).interfaces.get("app").copied()
    }

    #[test]
    fn what_is_spelled_out_as_wsgi_is_seen() {
        for source in [
            "from flask import Flask\napp = Flask(__name__)\n",
            "import flask\napp: flask.Flask = flask.Flask(__name__)\n@app.route('/')\ndef home(a, b): ...\n",
            "application = app = get_wsgi_application()",
            "app = Flask(\n    'x',\n)\napp.wsgi_app = ProxyFix(app.wsgi_app)\n",
            "flask_app = Flask('x')\napp = flask_app\n",
            "def app(environ, start_response):\n    pass\n",
            "def app(environ: dict[str, int], start_response) -> list:\n    x = 1\n",
            "class App:\n    def __call__(self, environ, start_response):\n        pass\napp = App()\n",
        ] {
            assert_eq!(app(source), Some(Interface::Wsgi), "{source}");
        }
    }

    #[test]
    fn what_is_asgi_or_cannot_be_told_is_not_taken_for_wsgi() {
        for source in [
            "app = FastAPI()",
            "flask_app = Flask('x')\napp = WsgiToAsgi(flask_app)",
            "app = Flask('x')\napp = WsgiToAsgi(app)",
            "async def app(scope, receive, send): ...",
            "class App:\n    async def __call__(self, scope, receive, send):\n        pass\napp = App()\n",
        ] {
            assert_eq!(app(source), Some(Interface::Asgi), "{source}");
        }
        for source in [
            "app = create_app()",
            "app = Flask('x') if x else None",
            "app = Flask('x').wsgi_app",
            "def make():\n    app = Flask('x')\n    return app\n",
            "@to_asgi\ndef app(environ, start_response): ...",
            "def app(*args, **kwargs): ...",
            "app = Flask('x')\nfrom other import app\n",
            "app = Flask('x')\napp = wrap(app)\n",
            "api = FastAPI()\napp = ASGIMiddleware(api)\n",
            "async def app(a, b): ...",
        ] {
            assert_eq!(app(source), None, "{source}");
        }
    }

    #[test]
    fn what_is_imported_is_told_with_where_it_comes_from() {
        let found = interfaces("from a.b import *\nfrom .c import (x as app,\n y)\n").borrowed;
        let told: Vec<_> =
            found.iter().map(|it| (it.module.as_str(), it.name.as_deref(), it.here.as_str())).collect();
        assert_eq!(told, [("a.b", None, ""), (".c", Some("x"), "app"), (".c", Some("y"), "y")]);
    }
}
