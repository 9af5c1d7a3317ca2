use super::*;

use proptest::prelude::*;

#[test]
fn a_variable_whose_name_looks_secret_is_redacted() {
    for name in ["JWT_SECRET_KEY", "DATABASE_URL", "github_token", "KEY_FILE_PASSWORD", "PGPASSWORD"] {
        assert_eq!(variable(name, "hunter2"), REDACTED, "{name}");
    }
    for (name, value) in [
        ("KEY_FILE", "certs/key.pem"),
        ("PATH", "/bin"),
        ("GUNICORN_KEEP_ALIVE", "5"),
        ("REQUIRE_TOKEN", "true"),
        ("DATABASE_URL", "sqlite:///./mcp.db"),
        ("REDIS_URL", "redis://cache:6379/0"),
    ] {
        assert_eq!(variable(name, value), value);
    }
    for (name, value) in [
        ("DATABASE_URL", "postgresql://app:pw@db/x"),
        ("DATABASE_URL", "postgresql:///x?user=a&password=pw"),
        ("SLACK_WEBHOOK_URL", "https://hooks.example.com/services/T0/B0/xyz"),
    ] {
        assert_eq!(variable(name, value), REDACTED);
    }
}

#[test]
fn a_message_does_not_control_the_terminal() {
    let label = "-----BEGIN \u{1b}]0;x\u{7}\u{9b}2J-----\n\tline two";
    assert_eq!(message(label), "-----BEGIN \\u{1b}]0;x\\u{7}\\u{9b}2J-----\n\tline two");
}

#[test]
fn the_word_after_a_flag_for_secrets_is_redacted() {
    let argv = ["x", "--ssl-keyfile-password", "p", "--ssl-keyfile", "k", "--token=y", "--secret", "--workers", "2"];
    let shown = ["x", "--ssl-keyfile-password", REDACTED, "--ssl-keyfile", "k", "--token=********", "--secret"];
    assert_eq!(arguments(&argv.map(str::to_owned))[..7], shown);
    assert_eq!(arguments(&argv.map(str::to_owned))[7..], ["--workers", "2"]);
    assert_eq!(arguments(&["-password".to_owned(), "p".to_owned()])[1], REDACTED);
    assert_eq!(arguments(&["--password=a b".to_owned()]), [format!("--password={REDACTED}")]);
}

#[test]
fn only_the_secret_is_redacted() {
    for (text, shown) in [
        ("psql postgres://u:p@db/x -c 1", "psql postgres://*@db/x -c 1"),
        ("redis://:p/w?@db:1/0,redis://b", "redis://*@db:1/0,redis://b"),
        ("https://token@host/a b@c", "https://*@host/a b@c"),
        ("--env API_TOKEN=abc --env A=b", "--env API_TOKEN=* --env A=b"),
        ("API_TOKEN=c2VjcmV0cw==", "API_TOKEN=*"),
        ("migrate --password p --password=q -x", "migrate --password * --password=* -x"),
        ("migrate --password 'a b' --password=\"c d\" -x", "migrate --password '*' --password=\"*\" -x"),
        ("sh -c 'PASSWORD=a b' x", "sh -c 'PASSWORD=*' x"),
        ("http://host/?a=b&token=x", "http://host/?a=b&token=*"),
        ("curl -H 'Authorization: Bearer abc' host", "curl -H 'Authorization: *' host"),
        ("curl -H 'X-Api-Key: a b' host", "curl -H 'X-Api-Key: *' host"),
        ("Cookie: a=b; c=d", "Cookie: *"),
        (r#"{"user": "u", "password": "a \" b", "n": 1}"#, r#"{"user": "u", "password": "*", "n": 1}"#),
        (r#""{\"user\": \"u\", \"token\": \"a b\"}""#, r#""{\"user\": \"u\", \"token\": \"*\"}""#),
        ("{'api_key': 'x y', 'a': 'b'}", "{'api_key': '*', 'a': 'b'}"),
        ("key_file_password = \"a b\" is not valid", "key_file_password = \"*\" is not valid"),
        (
            "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----*-----END PRIVATE KEY-----",
        ),
    ] {
        assert_eq!(message(text), shown.replace('*', REDACTED), "{text}");
    }
    assert_eq!(text("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "http://host/a@b",
        "http://[::1]:80/@scope/name",
        "git+ssh://git@github.com/owner/name",
        "and a bearer token",
        "KEY_FILE_PASSWORD: the key cannot be decrypted",
        "--ssl-keyfile /etc/key.pem --key-file=/etc/key.pem",
        "TOKENIZERS_PARALLELISM=false MAX_TOKENS=4096 REQUIRE_TOKEN=true",
        "--no-password --workers 4",
        "gunicorn -k uvicorn_worker.UvicornWorker --keep-alive 5 main:app",
    ] {
        assert_eq!(message(text), text);
    }
}

/// A secret: no part of it could be mistaken for a harmless word.
fn secret() -> impl Strategy<Value = String> {
    ("[A-Za-z0-9+/_.!$%*^~-]{9,40}", "={0,2}").prop_map(|(text, padding)| format!("S3{text}{padding}"))
}

/// A secret with blanks and the like, as it is written in quotes.
fn phrase() -> impl Strategy<Value = String> {
    "S3[A-Za-z0-9 ,;:@&+/=_-]{9,40}Z9"
}

fn name() -> impl Strategy<Value = String> {
    const NAMES: &[&str] =
        &["PASSWORD", "API_TOKEN", "db_password", "client-secret", "apiKey", "JWT_SECRET_KEY", "db.passwd"];
    prop::sample::select(NAMES).prop_map(str::to_owned)
}

/// Every form, with the secret that it contains.
fn form() -> impl Strategy<Value = (String, String)> {
    let bare = (name(), secret(), 0..9_usize).prop_map(|(name, secret, form)| {
        let text = match form {
            0 => format!("{name}={secret}"),
            1 => format!("--{name}={secret}"),
            2 => format!("--{name} {secret}"),
            3 => format!("-e {name}={secret}"),
            4 => format!("https://host/path?x=1&{name}={secret}"),
            5 => format!("{name}: {secret}"),
            6 => format!("{name} = {secret}"),
            7 => format!("Bearer {secret}"),
            _ => format!("A=1,{name}={secret}"),
        };
        (text, secret)
    });
    let quoted = (name(), phrase(), 0..10_usize).prop_map(|(name, phrase, form)| {
        let text = match form {
            0 => format!("{name}=\"{phrase}\""),
            1 => format!("--{name} '{phrase}'"),
            2 => format!("--{name}='{phrase}'"),
            3 => format!("'{name}={phrase}'"),
            4 => format!("{{\"a\": 1, \"{name}\": \"{phrase}\", \"b\": 2}}"),
            5 => format!("{{\\\"{name}\\\":\\\"{phrase}\\\"}}"),
            6 => format!("{{'{name}': '{phrase}'}}"),
            7 => format!("-H 'Authorization: Basic {phrase}'"),
            8 => format!("-H \"X-Api-Key: {phrase}\""),
            _ => format!("{name} = {phrase:?}"),
        };
        (text, phrase)
    });
    let url = ("[a-z+]{2,12}", "[a-z]{0,8}", "S3([A-Za-z0-9/:+_.!$*=-]{9,30}|[A-Za-z0-9@:+_.!$*=-]{9,30})")
        .prop_map(|(scheme, user, password)| (format!("{scheme}a://{user}:{password}@host:80/path"), password));
    let pem = secret().prop_map(|secret| {
        (format!("-----BEGIN RSA PRIVATE KEY-----\n{secret}\n{secret}\n-----END RSA PRIVATE KEY-----"), secret)
    });
    prop_oneof![4 => bare, 4 => quoted, 2 => url, 1 => pem]
}

/// Words that must not be changed.
fn harmless() -> impl Strategy<Value = String> {
    prop::sample::select(
        [
            "gunicorn",
            "--workers",
            "4",
            "-k",
            "main:app",
            "KEY_FILE=/etc/key.pem",
            "a=b",
            "http://host:80/a@b",
            "(from",
            "environment",
            "--ssl-keyfile",
            "/etc/tls/key.pem",
            "TOKENIZERS_PARALLELISM=false",
            "PYTHONPATH=/srv:/app",
            "https://example.com/?q=1",
            "{\"a\": 1}",
            "2n+1",
            "ä",
            "[::1]:8000",
            "sqlite:///./mcp.db",
            "word:",
            "x;",
            "&&",
        ]
        .as_slice(),
    )
    .prop_map(str::to_owned)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(harmless(), 0..5)
}

/// Whether a recognisable part of a secret is in a text.
fn survives(secret: &str, shown: &str) -> bool {
    let letters: Vec<char> = secret.chars().collect();
    letters.windows(7).any(|part| shown.contains(&part.iter().collect::<String>()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_secret_survives_in_any_form(before in words(), (form, secret) in form(), after in words()) {
        let text = [before.clone(), vec![form.clone()], after].concat().join(" ");
        for shown in [super::text(&text), message(&text), variable("ARGUMENTS", &text)] {
            prop_assert!(!survives(&secret, &shown), "{text:?} became {shown:?}");
        }
        prop_assert!(message(&text).starts_with(&before.join(" ")), "{text:?} became {:?}", message(&text));
        let argv: Vec<String> = before.into_iter().chain([form]).collect();
        let shown = arguments(&argv).join(" ");
        prop_assert!(!survives(&secret, &shown), "{argv:?} became {shown:?}");
    }

    #[test]
    fn no_secret_survives_as_an_argument_of_its_own(name in name(), secret in phrase(), before in words()) {
        let name = format!("--{name}");
        for argv in [vec![name.clone(), secret.clone()], vec![format!("{name}={secret}")]] {
            let argv: Vec<String> = before.iter().cloned().chain(argv).collect();
            let shown = arguments(&argv);
            prop_assert_eq!(&shown[..before.len()], &before[..]);
            prop_assert!(!survives(&secret, &shown.join(" ")), "{:?} became {:?}", argv, shown);
        }
    }

    #[test]
    fn nothing_harmless_is_lost(words in words()) {
        let text = words.join(" ");
        prop_assert_eq!(message(&text), text);
        prop_assert_eq!(arguments(&words), words);
    }

    #[test]
    fn what_was_redacted_stays_as_it_is(before in words(), (form, _) in form(), after in words()) {
        let once = message(&[before, vec![form], after].concat().join(" "));
        prop_assert_eq!(message(&once), once);
    }
}
