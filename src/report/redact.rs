//! Redacts secrets because explanations end up in logs, tickets and chats.

use crate::settings::OPTIONS;
use crate::settings::value::REDACTED;

/// Parts of a variable name that mark its value as a secret.
const SECRET: &[&str] = &[
    "KEY",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "TOKEN",
    "CREDENTIAL",
    "PRIVATE",
    "SALT",
    "COOKIE",
    "DSN",
    "DATABASE_URL",
    "REDIS_URL",
    "CONNECTION_STRING",
];

/// The value of a variable as it may be shown.
pub(crate) fn variable(name: &str, value: &str) -> String {
    if is_secret(name) && !value.is_empty() { REDACTED.to_owned() } else { text(value) }
}

/// Any text as it may be shown: on one line, without credentials in URLs, without the rest of a word after `NAME=` and
/// without the word after `--NAME`, where the name is that of a secret.
pub(crate) fn text(value: &str) -> String {
    let mut follows = false;
    let words = value.split(' ').map(|word| {
        let flag = word.strip_prefix("--");
        let is_value = std::mem::replace(&mut follows, flag.is_some_and(names_secret_value)) && flag.is_none();
        if is_value { REDACTED.to_owned() } else { without_credentials(&without_assignment(word)) }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    if text.contains(char::is_control) { format!("{text:?}") } else { text }
}

/// Arguments as they may be shown: as [`text`], and without the argument after a flag that takes a secret.
pub(crate) fn arguments(argv: &[String]) -> Vec<String> {
    let mut follows = false;
    let shown = argv.iter().map(|argument| {
        let flag = argument.strip_prefix("--");
        let is_value = std::mem::replace(&mut follows, flag.is_some_and(names_secret_value)) && flag.is_none();
        if is_value { REDACTED.to_owned() } else { argument_text(argument) }
    });
    shown.collect()
}

/// `--NAME=VALUE` and `NAME=VALUE` are one argument, blanks in the value included.
fn argument_text(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, value)) if !name.contains(' ') && !value.is_empty() && is_secret(identifier(name)) => {
            format!("{name}={REDACTED}")
        }
        _ => text(argument),
    }
}

/// Whether a flag without `=` takes a secret. A flag that ends in `file` takes a path.
fn names_secret_value(flag: &str) -> bool {
    !flag.contains('=') && !flag.ends_with("file") && is_secret(&flag.replace('-', "_"))
}

/// For our own options the table says whether they are secret, whatever the name suggests: `KEY_FILE` is a path.
fn is_secret(name: &str) -> bool {
    if let Some(opt) = OPTIONS.iter().find(|opt| opt.env.contains(&name)) {
        return opt.secret;
    }
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// Cuts a word after the first `NAME=` whose name is that of a secret, be it in a URL's query or behind a quote. The value
/// may contain `=` itself.
fn without_assignment(word: &str) -> String {
    let secret = word.match_indices('=').map(|(at, _)| at).find(|at| is_secret(identifier(&word[..*at])));
    match secret {
        Some(at) if at + 1 < word.len() => format!("{}={REDACTED}", &word[..at]),
        _ => word.to_owned(),
    }
}

/// The name at the end of a text.
fn identifier(text: &str) -> &str {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let start = text
        .rfind(|letter| !is_part(letter))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    text[start..].trim_start_matches('-')
}

/// `scheme://user:password@host` without the credentials.
fn without_credentials(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{REDACTED}{}", &rest[at..]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_whose_name_looks_secret_is_redacted() {
        for name in ["JWT_SECRET_KEY", "DATABASE_URL", "github_token", "KEY_FILE_PASSWORD", "PGPASSWORD"] {
            assert_eq!(variable(name, "hunter2"), REDACTED, "{name}");
        }
        for (name, value) in [("KEY_FILE", "certs/key.pem"), ("PATH", "/bin"), ("GUNICORN_KEEP_ALIVE", "5")] {
            assert_eq!(variable(name, value), value);
        }
    }

    #[test]
    fn the_word_after_a_telling_flag_is_redacted() {
        let argv =
            ["x", "--ssl-keyfile-password", "p", "--ssl-keyfile", "k", "--token=y", "--secret", "--workers", "2"];
        let shown = ["x", "--ssl-keyfile-password", REDACTED, "--ssl-keyfile", "k", "--token=********", "--secret"];
        assert_eq!(arguments(&argv.map(str::to_owned))[..7], shown);
        assert_eq!(arguments(&argv.map(str::to_owned))[7..], ["--workers", "2"]);
    }

    #[test]
    fn credentials_inside_a_text_are_redacted() {
        assert_eq!(text("psql postgres://u:p@db/x -c 1"), format!("psql postgres://{REDACTED}@db/x -c 1"));
        assert_eq!(text("--env API_TOKEN=abc --env A=b"), format!("--env API_TOKEN={REDACTED} --env A=b"));
        assert_eq!(text("http://host/a@b"), "http://host/a@b");
        assert_eq!(text("API_TOKEN=c2VjcmV0cw=="), format!("API_TOKEN={REDACTED}"));
        assert_eq!(
            text("migrate --password p --password=q"),
            format!("migrate --password {REDACTED} --password={REDACTED}")
        );
        assert_eq!(text("http://host/?a=b&token=x"), format!("http://host/?a=b&token={REDACTED}"));
        assert_eq!(arguments(&["--password=a b".to_owned()]), [format!("--password={REDACTED}")]);
        assert_eq!(text("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
    }
}
