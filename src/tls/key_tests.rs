use std::path::Path;
use std::process::Command;

use super::*;

const PASSPHRASE: &[u8] = b"correct-horse";

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

fn made(arguments: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    for line in arguments {
        openssl(directory.path(), line);
    }
    std::fs::read(directory.path().join("out")).unwrap()
}

/// The public key according to openssl, in PEM.
fn public_by_openssl(key: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("key"), key).unwrap();
    openssl(directory.path(), "pkey -in key -pubout -out public -passin pass:none");
    std::fs::read(directory.path().join("public")).unwrap()
}

const RSA_KEY: &str = "genrsa -out key 2048";
const EC_KEY: &str = "ecparam -name prime256v1 -genkey -out key";

#[test]
fn every_common_form_becomes_clear_pkcs8_of_the_same_key() {
    let forms: &[(&[&str], Form, Kind)] = &[
        (&["genrsa -out out 2048"], Form::Pkcs8, Kind::Rsa(2048)),
        (&[RSA_KEY, "rsa -in key -traditional -out out"], Form::Clear, Kind::Rsa(2048)),
        (&["ecparam -name prime256v1 -genkey -out out"], Form::Clear, Kind::P256),
        (&["ecparam -name secp384r1 -genkey -noout -out out"], Form::Clear, Kind::P384),
        (&["ecparam -name secp521r1 -genkey -out out"], Form::Clear, Kind::P521),
        (&[EC_KEY, "pkcs8 -topk8 -nocrypt -in key -out out"], Form::Pkcs8, Kind::P256),
        (&["genpkey -algorithm ed25519 -out out"], Form::Pkcs8, Kind::Ed25519),
    ];
    for (commands, form, kind) in forms {
        let text = made(commands);
        let key = read(&text, None).unwrap_or_else(|why| panic!("{commands:?}: {why:?}"));
        assert_eq!((key.form, &key.kind), (*form, kind), "{commands:?}");
        assert!(key.to_pem().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(public_by_openssl(&key.to_pem()), public_by_openssl(&text), "{commands:?}");
    }
}

#[test]
fn encrypted_keys_are_opened_with_their_passphrase_only() {
    let ways = [
        "pkcs8 -topk8 -in key -out out",
        "pkcs8 -topk8 -v2 aes-128-cbc -v2prf hmacWithSHA1 -in key -out out",
        "pkcs8 -topk8 -v2 des3 -in key -out out",
        "pkcs8 -topk8 -scrypt -scrypt_N 1024 -in key -out out",
    ];
    for way in ways {
        let directory = tempfile::tempdir().unwrap();
        openssl(directory.path(), RSA_KEY);
        let mut words: Vec<&str> = way.split(' ').collect();
        words.extend(["-passout", "pass:correct-horse"]);
        let ran = Command::new("openssl").args(words).current_dir(directory.path()).output().unwrap();
        assert!(ran.status.success(), "{way}: {}", String::from_utf8_lossy(&ran.stderr));
        let clear = std::fs::read(directory.path().join("key")).unwrap();
        let text = std::fs::read(directory.path().join("out")).unwrap();
        let key = read(&text, Some(PASSPHRASE)).unwrap_or_else(|why| panic!("{way}: {why:?}"));
        assert_eq!((key.form, &key.kind), (Form::Encrypted, &Kind::Rsa(2048)), "{way}");
        assert_eq!(public_by_openssl(&key.to_pem()), public_by_openssl(&clear), "{way}");
        assert_eq!(read(&text, Some(b"wrong")).err(), Some(Unusable::WrongPassphrase), "{way}");
        assert_eq!(read(&text, None).err(), Some(Unusable::NoPassphrase), "{way}");
    }
}

/// The result of a conversion's command, in a shell; the passphrase is given where openssl would ask for it.
fn converted(text: &[u8], conversion: Conversion) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it's a key.pem");
    std::fs::write(&path, text).unwrap();
    let command = conversion.command(&path);
    let passphrases = [
        ("openssl pkcs8 -topk8", "openssl pkcs8 -topk8 -passin pass:correct-horse -passout pass:correct-horse"),
        ("openssl ec", "openssl ec -passin pass:correct-horse"),
    ];
    let command = passphrases.iter().fold(command, |command, (asking, given)| command.replace(asking, given));
    let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(std::fs::read(&path).unwrap(), text, "the old file is not changed");
    std::fs::read(directory.path().join("it's a key.pem.new")).unwrap()
}

#[test]
fn a_key_of_the_old_encrypted_format_is_named_and_its_conversion_works() {
    for cipher in ["-aes128", "-aes256", "-des3"] {
        for (make, old) in [(RSA_KEY, "rsa -traditional"), (EC_KEY, "ec")] {
            let encrypt = format!("{old} {cipher} -passout pass:correct-horse -in key -out out");
            let text = made(&[make, &encrypt]);
            for passphrase in [None, Some(PASSPHRASE)] {
                let why = read(&text, passphrase).err();
                assert!(matches!(&why, Some(Unusable::Encryption(how)) if how.contains("Proc-Type")), "{why:?}");
            }
            let key = read(&converted(&text, Conversion::Encrypted), Some(PASSPHRASE)).unwrap();
            assert_eq!((key.form, key.public.is_some()), (Form::Encrypted, true));
        }
    }
}

#[test]
fn a_curve_key_without_its_public_point_is_named_and_its_conversion_works() {
    for curve in ["prime256v1", "secp384r1", "secp521r1"] {
        let make = format!("ecparam -name {curve} -genkey -noout -out key");
        let without = ["ec -in key -no_public -out out", "ec -in key -no_public -out key2"];
        let clear = made(&[&make, without[0]]);
        assert_eq!(read(&clear, None).err(), Some(Unusable::NoPoint(Form::Clear)));
        let key = read(&converted(&clear, Conversion::WithPoint), None).unwrap();
        assert_eq!(public_by_openssl(&key.to_pem()), public_by_openssl(&clear));
        let pkcs8 = made(&[&make, without[1], "pkcs8 -topk8 -nocrypt -in key2 -out out"]);
        assert_eq!(read(&pkcs8, None).err(), Some(Unusable::NoPoint(Form::Pkcs8)));
        assert!(read(&converted(&pkcs8, Conversion::WithPoint), None).is_ok());
        let encrypt = "pkcs8 -topk8 -passout pass:correct-horse -in key2 -out out";
        let encrypted = made(&[&make, without[1], encrypt]);
        assert_eq!(read(&encrypted, Some(PASSPHRASE)).err(), Some(Unusable::NoPoint(Form::Encrypted)));
        let key = read(&converted(&encrypted, Conversion::EncryptedWithPoint), Some(PASSPHRASE)).unwrap();
        assert_eq!(key.form, Form::Encrypted);
    }
}

#[test]
fn a_derivation_that_would_hold_everything_up_is_named_and_its_conversion_works() {
    for costly in ["-iter 1000001", "-scrypt -scrypt_N 16384 -scrypt_r 8 -scrypt_p 5"] {
        let encrypt = format!("pkcs8 -topk8 {costly} -passout pass:correct-horse -in key -out out");
        let text = made(&[EC_KEY, &encrypt]);
        let why = read(&text, Some(PASSPHRASE)).err();
        assert!(matches!(&why, Some(Unusable::Encryption(how)) if how.starts_with("with ")), "{why:?}");
        assert!(read(&converted(&text, Conversion::Encrypted), Some(PASSPHRASE)).is_ok());
    }
}

#[test]
fn what_is_no_usable_key_is_reported() {
    assert_eq!(read(b"nothing", None).err(), Some(Unusable::File("is not a PEM file".into())));
    let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(read(certificate, None), Err(Unusable::File(why)) if why.contains("swapped")));
    let broken = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(read(broken, None), Err(Unusable::File(why)) if why.contains("cannot be read")));
}

#[test]
fn a_key_does_not_show_itself() {
    let key = read(&made(&["genpkey -algorithm ed25519 -out out"]), None).unwrap();
    assert_eq!(format!("{key:?}"), "Key { kind: Ed25519, form: Pkcs8, .. }");
}
