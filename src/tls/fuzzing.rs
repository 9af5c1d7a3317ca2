//! What is fuzzed here: certificates and keys, which come from other machines and other people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::certificate::certificates;
use super::check::{File, Files, Passphrase, check};
use super::key::{self, Form};
use super::pem;
use crate::settings::Origin;

/// The passphrase of the encrypted keys among the seeds.
const PASSPHRASE: &[u8] = b"secret";

/// A file that is named as certificate, as key and as CA certificates.
pub(crate) fn pem_file(text: &[u8]) {
    for section in pem::sections(text) {
        let Ok(data) = section.decode() else { continue };
        assert!(data.len() <= text.len());
        let written = pem::write(&section.label, &data);
        let [again] = &pem::sections(&written)[..] else { panic!("one section became several") };
        assert_eq!(again.label, section.label);
        assert_eq!(again.decode().as_deref(), Ok(&*data));
    }
    if let Ok(key) = key::read(text, Some(PASSPHRASE)) {
        let again = key::read(&key.to_pem(), None).expect("a converted key is read again");
        assert_eq!((again.kind, again.public, again.form), (key.kind, key.public, Form::Pkcs8));
    }
    files_are_checked(text);
}

/// What is inside the base64, under every label that means something here.
pub(crate) fn der(data: &[u8]) {
    const LABELS: [&str; 5] =
        ["CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"];
    for label in LABELS {
        pem_file(&pem::write(label, data));
    }
}

/// What a server is started with is as good as what was checked.
fn files_are_checked(text: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_hours(24 * 365 * 56);
    let found = check(&files(text), now, false);
    assert_eq!(found.pair.is_some(), found.problems.is_empty(), "{:?}", found.problems);
    if let Some(pair) = found.pair {
        let again = check(&files(&pair.to_pem()), now, false);
        let again = again.pair.unwrap_or_else(|| panic!("{:?}", again.problems));
        assert_eq!((&again.leaf, &again.key.public), (&pair.leaf, &pair.key.public));
        assert_eq!(again.authority, pair.authority);
    }
    if let Ok(found) = certificates(&pem::sections(text)) {
        let written = super::certificate::to_pem(&found);
        assert_eq!(certificates(&pem::sections(&written)), Ok(found));
    }
    let _ = check(&files(text), SystemTime::UNIX_EPOCH, true);
}

fn files(text: &[u8]) -> Files {
    let file = || File {
        path: "file.pem".into(),
        origin: Origin::Default,
        content: Ok(Zeroizing::new(text.to_vec())),
        is_public: false,
    };
    let passphrase = Passphrase { text: Ok(Zeroizing::new(PASSPHRASE.to_vec())), origin: Origin::Default };
    Files { certificate: file(), key: file(), passphrase: Some(passphrase), authority: Some(file()) }
}
