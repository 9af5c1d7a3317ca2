use std::path::Path;
use std::process::Command;

use super::*;

const PASSPHRASE: &[u8] = b"correct horse";

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

/// What openssl says is the public key, in PEM.
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
        "rsa -traditional -aes128 -in key -out out",
        "rsa -traditional -aes256 -in key -out out",
        "rsa -traditional -des3 -in key -out out",
    ];
    for way in ways {
        let directory = tempfile::tempdir().unwrap();
        openssl(directory.path(), RSA_KEY);
        let mut words: Vec<&str> = way.split(' ').collect();
        words.extend(["-passout", "pass:correct horse"]);
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

#[test]
fn a_curve_key_without_its_public_point_gets_it() {
    for curve in ["prime256v1", "secp384r1"] {
        let make = format!("ecparam -name {curve} -genkey -noout -out key");
        let text = made(&[&make, "ec -in key -no_public -out out"]);
        let key = read(&text, None).unwrap();
        assert_eq!(key.form, Form::Clear);
        let again = read(&key.to_pem(), None).unwrap();
        assert_eq!(again.form, Form::Pkcs8, "the point must be in it now");
        assert_eq!((again.public.is_some(), &again.public), (true, &key.public));
    }
}

#[test]
fn what_is_no_usable_key_is_said() {
    assert_eq!(read(b"nothing", None).err(), Some(Unusable::File("is no PEM file".into())));
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

#[test]
fn a_derivation_that_a_file_makes_costly_or_impossible_is_not_tried() {
    use pkcs5::pbes2::{EncryptionScheme, Parameters, Pbkdf2Params, Salt, ScryptParams};
    let salt = || Salt::new(*b"salt of a key").unwrap();
    let scheme = |kdf| {
        let encryption = EncryptionScheme::Aes256Cbc { iv: [0; 16] };
        pkcs5::EncryptionScheme::Pbes2(Parameters { kdf, encryption })
    };
    let scrypt = |cost_parameter, block_size| {
        let parallelization = 1;
        scheme(Kdf::Scrypt(ScryptParams {
            salt: salt(),
            cost_parameter,
            block_size,
            parallelization,
            key_length: None,
        }))
    };
    let pbkdf2 = |count| scheme(Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(count, b"salt of a key").unwrap()));
    assert!(!is_too_costly(&scrypt(1 << 14, 8)), "what openssl makes");
    assert!(!is_too_costly(&pbkdf2(600_000)));
    for (cost, blocks) in [(0, 8), (1, 8), (3, 8), (1 << 14, 0), (1 << 40, 8), (1 << 14, u16::MAX)] {
        assert!(is_too_costly(&scrypt(cost, blocks)), "{cost} {blocks}");
    }
    assert!(is_too_costly(&pbkdf2(20_000_000)));
}
