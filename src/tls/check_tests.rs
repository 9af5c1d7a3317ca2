use std::path::Path;
use std::process::Command;

use super::*;

/// A pair with which a server could start, and a CA certificate.
pub(crate) fn example(directory: &Path) -> Pair {
    std::fs::create_dir_all(directory).unwrap();
    let (certificate, key) = made(directory, "localhost", 365);
    let mut files = files(&certificate, &key);
    files.authority = Some(file("ca.pem", "SSL_CA_FILE", &certificate));
    let found = check(&files, in_days(1), false);
    Arc::into_inner(found.pair.unwrap()).unwrap()
}

/// A certificate that is valid for this many days from now, and its key.
fn made(directory: &Path, name: &str, days: u32) -> (Vec<u8>, Vec<u8>) {
    let at = |kind: &str| directory.join(format!("{name}.{kind}"));
    let ran = Command::new("openssl")
        .args(["req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", &format!("/CN={name}"), "-days", &days.to_string(), "-keyout"])
        .arg(at("key"))
        .arg("-out")
        .arg(at("crt"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    (std::fs::read(at("crt")).unwrap(), std::fs::read(at("key")).unwrap())
}

fn file(name: &str, variable: &str, content: &[u8]) -> File {
    File {
        path: name.into(),
        origin: Origin::Env(variable.into()),
        content: Ok(Zeroizing::new(content.to_vec())),
        is_public: false,
    }
}

fn files(certificate: &[u8], key: &[u8]) -> Files {
    Files {
        certificate: file("cert.pem", "CERT_FILE", certificate),
        key: file("key.pem", "KEY_FILE", key),
        passphrase: None,
        authority: None,
    }
}

fn problems(found: &Findings) -> String {
    found.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * DAY)
}

#[test]
fn a_matching_pair_is_accepted_without_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = made(directory.path(), "a", 365);
    let found = check(&files(&certificate, &key), in_days(1), false);
    assert_eq!((problems(&found), found.warnings), (String::new(), Vec::new()));
    let pair = found.pair.unwrap();
    assert_eq!(pair.chain, certificate);
    let text = String::from_utf8(pair.to_pem().to_vec()).unwrap();
    assert!(text.ends_with("-----END PRIVATE KEY-----\n") && text.starts_with("-----BEGIN CERTIFICATE-----\n"));
}

#[test]
fn files_that_do_not_belong_together_are_named_with_their_settings() {
    let directory = tempfile::tempdir().unwrap();
    let ((certificate, _), (_, key)) = (made(directory.path(), "a", 365), made(directory.path(), "b", 365));
    let found = check(&files(&certificate, &key), in_days(1), false);
    let said = problems(&found);
    for part in ["cert.pem", "key.pem", "CERT_FILE", "KEY_FILE", "do not match"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(found.pair.is_none());
}

#[test]
fn the_time_of_a_certificate_matters_unless_forced() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = made(directory.path(), "a", 60);
    let files = files(&certificate, &key);
    let soon = check(&files, in_days(40), false);
    assert!(soon.pair.is_some() && soon.warnings[0].contains("expires"), "{:?}", soon.warnings);
    let late = check(&files, in_days(61), false);
    assert!(late.pair.is_none() && problems(&late).contains("expired"), "{}", problems(&late));
    let early = check(&files, SystemTime::now() - Duration::from_secs(DAY), false);
    assert!(problems(&early).contains("not valid before"), "{}", problems(&early));
    let forced = check(&files, in_days(61), true);
    assert!(forced.pair.is_some() && forced.warnings[0].contains("FORCE_START"), "{:?}", forced.warnings);
}

#[test]
fn the_certificate_of_the_key_comes_first_and_the_order_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let ((first, key), (other, _)) = (made(directory.path(), "a", 365), made(directory.path(), "b", 365));
    let found = check(&files(&[other.clone(), first.clone()].concat(), &key), in_days(1), false);
    assert!(problems(&found).contains("is the 2nd in cert.pem"), "{}", problems(&found));
    let found = check(&files(&[first, other].concat(), &key), in_days(1), false);
    assert!(found.pair.is_some() && found.warnings[0].contains("out of order"), "{:?}", found.warnings);
}

#[test]
fn everything_that_is_wrong_is_reported_together() {
    let mut files = files(b"nothing", b"nothing");
    files.authority = Some(File { content: Err("does not exist".into()), ..file("ca.pem", "SSL_CA_FILE", b"") });
    let said = problems(&check(&files, SystemTime::now(), false));
    assert_eq!(said.lines().count(), 3, "{said}");
    for part in ["cert.pem is not a PEM", "key.pem is not a PEM", "ca.pem does not exist"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_world_readable_key_causes_a_warning_and_a_short_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = made(directory.path(), "a", 365);
    let mut open = files(&certificate, &key);
    open.key.is_public = true;
    assert!(check(&open, in_days(1), false).warnings[0].contains("every user"));
    let short = Command::new("openssl").args(["genrsa", "1024"]).output().unwrap().stdout;
    let said = problems(&check(&files(&certificate, &short), in_days(1), false));
    assert!(said.contains("1024 bits"), "{said}");
}

#[test]
fn the_fingerprint_changes_with_any_of_the_files() {
    let files = files(b"a", b"b");
    let mut other = files.clone();
    other.authority = Some(file("ca.pem", "SSL_CA_FILE", b"c"));
    assert_eq!(fingerprint(&files), fingerprint(&files.clone()));
    assert_ne!(fingerprint(&files), fingerprint(&other));
}

#[test]
fn a_key_in_a_rare_form_is_refused_with_the_command_that_converts_it() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = made(directory.path(), "a", 365);
    std::fs::write(directory.path().join("key"), key).unwrap();
    let of_key = |arguments: &[&str]| {
        let ran = Command::new("openssl").args(arguments).current_dir(directory.path()).output().unwrap();
        problems(&check(&files(&certificate, &ran.stdout), in_days(1), false))
    };
    let traditional = of_key(&["ec", "-in", "key", "-aes256", "-passout", "pass:correct-horse"]);
    let without = of_key(&["ec", "-in", "key", "-no_public"]);
    for (said, what, command) in [
        (traditional, "is encrypted in OpenSSL's old format", "openssl pkcs8 -topk8 -in key.pem -out key.pem.new"),
        (without, "lacks its public point", "openssl ec -in key.pem -out key.pem.new"),
    ] {
        for part in ["the private key key.pem", "KEY_FILE", what, command] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
