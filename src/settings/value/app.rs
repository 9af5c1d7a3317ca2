//! The application.

use std::fmt;

use super::Value;

/// The application: `module:attribute`, `module:factory()`, or a module whose attribute is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The dotted module.
    pub module: String,
    /// The part after the colon as written, including the arguments of a factory.
    pub attribute: Option<String>,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.module)?;
        self.attribute.as_ref().map_or(Ok(()), |attribute| write!(f, ":{attribute}"))
    }
}

impl Value for App {
    const METAVAR: &'static str = "APP";

    fn expected() -> String {
        "MODULE:ATTRIBUTE such as my.app:app, MODULE:FACTORY(), or MODULE".into()
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (module, attribute) = text.split_once(':').map_or((text, None), |(module, rest)| (module, Some(rest)));
        let is_module = |text: &str| {
            // A file's name, or dotted names: whether there is such a module is for the server to find out.
            !text.contains(char::is_control) && (text.contains('/') || text.split('.').all(|part| !part.is_empty()))
        };
        let identifier = |word: &str| {
            let mut letters = word.chars();
            letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        let named = attribute.is_none_or(|attribute| {
            let name = attribute.split_once('(').map_or(attribute, |(name, _)| name);
            name.split('.').all(identifier) && (name == attribute || attribute.ends_with(')'))
        });
        let extension =
            module.rsplit_once('/').and_then(|(_, name)| name.rsplit_once('.')).map(|(_, extension)| extension);
        let is_script = extension.is_some_and(|extension| extension != "py");
        let is_command =
            attribute.is_none() && (module.contains(char::is_whitespace) || module.starts_with('-') || is_script);
        if is_module(module) && !module.is_empty() && named && !is_command {
            Ok(Self { module: module.into(), attribute: attribute.map(Into::into) })
        } else if attribute.is_none() && !text.is_empty() {
            Err(Some("that is not a module name; to run a program, use mcp-launch init -- CMD".into()))
        } else {
            Err(None)
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_modules_with_or_without_an_attribute() {
        for text in [
            "my.app:app",
            "my.app",
            "app:create()",
            "app:create('x', 1)",
            "app:a.b",
            "_x:y1",
            "bash",
            "my-app:app",
            "my-app",
            "backend/main:app",
            "./main.py:app",
            "../x:app",
            "/srv/app:app",
            "/bin/sh",
            "1a:b",
            "a b:c",
        ] {
            assert_eq!(App::parse(text).map(|app| app.show()), Ok(text.to_owned()));
        }
        for text in ["", ":app", "app:", "a..b:c", "a:b:c", "a:f(", "a:1b", "a b", "-x", "a\n:b", ".a:b", "./run.sh"]
        {
            assert!(App::parse(text).is_err(), "{text:?}");
        }
    }
}
