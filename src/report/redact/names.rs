//! Names that show whether a value is a secret.

use crate::settings::{OPTIONS, Opt};

/// Words, or ends of words, that mark a name as that of a secret wherever they occur in it.
const ANYWHERE: &[&str] = &[
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASSCODE",
    "TOKEN",
    "CREDENTIAL",
    "KEY",
    "AUTHORIZATION",
    "BEARER",
    "WEBHOOK",
];
/// Words that do so at the end of a name.
const LAST: &[&str] = &[
    "AUTH",
    "COOKIE",
    "DSN",
    "HMAC",
    "JWT",
    "OTP",
    "PASS",
    "PIN",
    "PRIVATE",
    "PSK",
    "PWD",
    "SALT",
    "SIG",
    "SIGNATURE",
];
/// Names of things that may contain a password.
const LOCATIONS: &[&str] = &["DATABASE_URL", "REDIS_URL", "CONNECTION_STRING"];
/// Last words that show that the value is about a secret, but not the secret itself.
const ABOUT: &[&str] = &[
    "ALGORITHM",
    "AUDIENCE",
    "COUNT",
    "DAYS",
    "DIR",
    "DIRECTORY",
    "DOMAIN",
    "ENABLED",
    "EXPIRATION",
    "EXPIRES",
    "EXPIRY",
    "FILE",
    "HEADER",
    "HOURS",
    "ISSUER",
    "LENGTH",
    "LIMIT",
    "MINUTES",
    "NAME",
    "PATH",
    "POLICY",
    "PREFIX",
    "REQUIRED",
    "SECONDS",
    "SIZE",
    "TTL",
    "TYPE",
    "VERSION",
];
/// Words that do so wherever they occur.
const PUBLIC: &[&str] = &["MAX", "MIN", "PUBLIC"];

/// Whether the value of something with this name is a secret. For our own options the table decides, whatever the name
/// suggests.
pub(super) fn is_secret(name: &str) -> bool {
    if let Some(opt) = option(name) {
        return opt.secret;
    }
    let words = words(name);
    let Some(last) = words.last() else { return false };
    // A flag that ends in `file` takes a path.
    if ABOUT.contains(&last.as_str()) || last.ends_with("FILE") || words.iter().any(|word| PUBLIC.contains(&&**word))
    {
        return false;
    }
    // The shell's own variables are directories.
    if name == "PWD" || name == "OLDPWD" {
        return false;
    }
    LAST.contains(&last.as_str())
        || words.iter().any(|word| is_telling(word))
        || LOCATIONS.iter().any(|location| words.join("_").contains(location))
}

/// One of our own options, by any of its names.
pub(super) fn option(name: &str) -> Option<&'static Opt> {
    let flag = |opt: &&Opt| opt.flag == Some(name) || opt.key == name;
    OPTIONS.iter().find(|opt| opt.env.contains(&name)).or_else(|| OPTIONS.iter().find(flag))
}

/// `KEY`, `APIKEY` and `KEYS`, but not `MONKEY`, and not what only begins like that (`TOKENIZERS`).
fn is_telling(word: &str) -> bool {
    let one = word.strip_suffix('S').unwrap_or(word);
    let ends = |end: &&str| word.ends_with(*end) || one.ends_with(*end);
    word != "MONKEY" && ANYWHERE.iter().any(ends)
}

/// The words of a name in capitals: `apiKey`, `api-key` and `API_KEY` give the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() || (letter.is_ascii_uppercase() && before.is_ascii_lowercase()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (letter.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(letter.to_ascii_uppercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_distinguished_from_similar_names() {
        for name in [
            "JWT_SECRET_KEY",
            "DATABASE_URL",
            "github_token",
            "KEY_FILE_PASSWORD",
            "PGPASSWORD",
            "apiKey",
            "X-Api-Key",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASS",
            "SENTRY_DSN",
            "GITHUB_PAT_TOKENS",
            "Authorization",
            "Set-Cookie",
            "SLACK_WEBHOOK_URL",
            "db.password",
            "CERT_PASSPHRASE",
            "APITOKEN",
            "aws_secret",
            "SMTP_AUTH",
            "PRIVATE_KEY",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "KEY_FILE",
            "PATH",
            "GUNICORN_KEEP_ALIVE",
            "PWD",
            "TOKENIZERS_PARALLELISM",
            "MAX_TOKENS",
            "TOKEN_EXPIRY",
            "PASSWORD_MIN_LENGTH",
            "JWT_PUBLIC_KEY_PATH",
            "ssl-keyfile",
            "key-file",
            "SECRET_NAME",
            "MONKEY",
            "KEYBOARD",
            "JWT_ALGORITHM",
            "COOKIE_NAME",
            "passenger",
            "author",
            "",
            "--",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
