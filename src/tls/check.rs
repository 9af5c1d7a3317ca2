//! Whether a server can start with a certificate, a key and what belongs to them. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::certificate::{self, Certificate, Validity, date, nth};
use super::key::{self, Conversion, Form, Key, Kind, Unusable};
use super::pem;
use crate::problem::Problem;
use crate::settings::Origin;

/// A certificate that expires sooner is worth a warning.
const SOON: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// Both servers refuse smaller keys: OpenSSL at its usual security level, and Granian's library.
const LEAST_RSA_BITS: usize = 2048;

/// A file that the settings name, as it was found.
#[derive(Debug, Clone)]
pub struct File {
    /// The path, as it was given.
    pub path: PathBuf,
    /// Which setting named it.
    pub origin: Origin,
    /// Its contents, or why it could not be read: "does not exist".
    pub content: Result<Zeroizing<Vec<u8>>, String>,
    /// Whether any user of the machine can read it.
    pub is_public: bool,
}

/// A passphrase and where it came from.
#[derive(Debug, Clone)]
pub struct Passphrase {
    /// The passphrase, or the file that should contain it and why it does not.
    pub text: Result<Zeroizing<Vec<u8>>, String>,
    /// Which setting contained it.
    pub origin: Origin,
}

/// All input of the check.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate chain.
    pub certificate: File,
    /// The private key.
    pub key: File,
    /// The passphrase of the key.
    pub passphrase: Option<Passphrase>,
    /// The CA certificates for verifying clients.
    pub authority: Option<File>,
}

/// A certificate chain and its key, with which a server can start.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate of the server itself, the first of the chain.
    pub leaf: Certificate,
    /// The chain, as in a file.
    chain: Vec<u8>,
    /// The key.
    pub key: Key,
    /// Which setting named the key.
    pub key_origin: Origin,
    /// The CA certificates for verifying clients, as in a file.
    pub authority: Option<Vec<u8>>,
    /// Changes when any of the files does.
    pub fingerprint: u64,
}

impl Pair {
    /// The text of a file with everything that a server needs to start: the chain, and the unencrypted key.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        let key = self.key.to_pem();
        // It must never move while it grows: the old copy would not be wiped.
        let mut text = Zeroizing::new(Vec::with_capacity(self.chain.len() + key.len()));
        text.extend_from_slice(&self.chain);
        text.extend_from_slice(&key);
        text
    }

    /// The certificate and its time, in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}, {}, until {}", self.leaf.subject, self.key.kind, date(self.leaf.not_after))
    }
}

/// The findings.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The pair, if there is no problem.
    pub pair: Option<Arc<Pair>>,
    /// What keeps a server from starting.
    pub problems: Vec<Problem>,
    /// What does not.
    pub warnings: Vec<String>,
}

/// Checks the files. `force` turns problems with the validity of a certificate into warnings.
#[must_use]
pub fn check(files: &Files, now: SystemTime, force: bool) -> Findings {
    let mut findings = Findings::default();
    let chain = read_chain(&files.certificate, "certificate", &mut findings);
    let key = read_key(files, &mut findings);
    let authority = files.authority.as_ref().and_then(|file| read_authority(file, now, &mut findings));
    if let Some(chain) = &chain {
        judge_time(&files.certificate, chain, now, force, &mut findings);
        judge_order(&files.certificate, chain, &mut findings);
    }
    if let (Some(chain), Some(key)) = (&chain, &key) {
        judge_match(files, chain, key, &mut findings);
    }
    if files.key.is_public && files.key.content.is_ok() {
        let name = shown(&files.key);
        findings.warnings.push(format!(
            "every user can read the private key {name}; chmod 600 it (Kubernetes: defaultMode: 0440)"
        ));
    }
    if let (Some(chain), Some(key), []) = (chain, key, findings.problems.as_slice())
        && let Some(leaf) = chain.first()
    {
        findings.pair = Some(Arc::new(Pair {
            leaf: leaf.clone(),
            chain: certificate::to_pem(&chain),
            key,
            key_origin: files.key.origin.clone(),
            authority: authority.as_deref().map(certificate::to_pem),
            fingerprint: fingerprint(files),
        }));
    }
    findings
}

fn read_authority(file: &File, now: SystemTime, findings: &mut Findings) -> Option<Vec<Certificate>> {
    let found = read_chain(file, "CA certificate", findings)?;
    if let Some(one) = found.iter().find(|one| one.validity(now) == Validity::Expired) {
        let (name, subject) = (shown(file), &one.subject);
        findings.warnings.push(format!("{name} holds {subject}, which expired {}", date(one.not_after)));
    }
    Some(found)
}

/// Changes when any of the files does.
fn fingerprint(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    let files_of = [Some(&files.certificate), Some(&files.key), files.authority.as_ref()];
    let contents = files_of.into_iter().map(|file| file.and_then(|file| file.content.as_ref().ok()));
    let passphrase = files.passphrase.as_ref().and_then(|passphrase| passphrase.text.as_ref().ok());
    for content in contents.chain([passphrase]) {
        content.map(|content| content.as_slice()).hash(&mut hasher);
    }
    hasher.finish()
}

fn shown(file: &File) -> String {
    format!("{} (from {})", file.path.display(), file.origin)
}

fn read_chain(file: &File, what: &str, findings: &mut Findings) -> Option<Vec<Certificate>> {
    let read = |text: &Zeroizing<Vec<u8>>| certificate::certificates(&pem::sections(text));
    match file.content.as_ref().map_err(Clone::clone).and_then(read) {
        Ok(found) => Some(found),
        Err(why) => {
            findings.problems.push(unusable(file, what, &why));
            None
        }
    }
}

fn unusable(file: &File, what: &str, why: &str) -> Problem {
    let message = format!("the {what} file {} {why}", file.path.display());
    Problem::setting(message, &file.origin).hint("TLS is on (SSL): name a PEM file, or set SSL=false")
}

fn read_key(files: &Files, findings: &mut Findings) -> Option<Key> {
    let file = &files.key;
    let passphrase = match &files.passphrase {
        Some(Passphrase { text: Err(why), origin }) => {
            findings.problems.push(Problem::setting(format!("the passphrase of the private key: {why}"), origin));
            return None;
        }
        Some(Passphrase { text: Ok(text), .. }) => Some(text.as_slice()),
        None => None,
    };
    let result = match &file.content {
        Ok(content) => key::read(content, passphrase),
        Err(why) => Err(Unusable::File(why.clone())),
    };
    let about = |message: String| {
        Problem::setting(format!("the private key {} {message}", file.path.display()), &file.origin)
    };
    let problem = match result {
        Ok(key) => return judge_strength(file, key, findings),
        Err(Unusable::File(why)) => unusable(file, "private key", &why),
        Err(Unusable::NoPassphrase) => about("is encrypted".into())
            .hint("set KEY_FILE_PASSWORD, or KEY_FILE_PASSWORD_FILE to a file that contains it"),
        Err(Unusable::WrongPassphrase) => {
            let given = files.passphrase.as_ref().map(|passphrase| passphrase.origin.to_string());
            let given = given.unwrap_or_default();
            about(format!("is not encrypted with the passphrase from {given}")).hint("use the right one")
        }
        Err(Unusable::Encryption(how)) => {
            about(format!("is encrypted {how}")).hint(convert(file, Conversion::Encrypted))
        }
        Err(Unusable::NoPoint(form)) => {
            let encrypted = form == Form::Encrypted;
            let conversion = if encrypted { Conversion::EncryptedWithPoint } else { Conversion::WithPoint };
            about("lacks its public point, which must be compared with the certificate's".into())
                .hint(convert(file, conversion))
        }
    };
    findings.problems.push(problem);
    None
}

fn convert(file: &File, conversion: Conversion) -> String {
    format!("convert it, and use the resulting file: {}", conversion.command(&file.path))
}

fn judge_strength(file: &File, key: Key, findings: &mut Findings) -> Option<Key> {
    match key.kind {
        Kind::Rsa(bits) if bits < LEAST_RSA_BITS => {
            let message = format!("the private key {} has {bits} bits", file.path.display());
            let hint = format!("servers refuse RSA keys of less than {LEAST_RSA_BITS}");
            findings.problems.push(Problem::setting(message, &file.origin).hint(hint));
            None
        }
        _ => Some(key),
    }
}

fn judge_time(file: &File, chain: &[Certificate], now: SystemTime, force: bool, findings: &mut Findings) {
    let name = file.path.display();
    for (index, one) in chain.iter().enumerate() {
        let wrong = match one.validity(now) {
            Validity::NotYet => format!("is not valid before {}", date(one.not_before)),
            Validity::Expired => format!("expired {}", date(one.not_after)),
            Validity::For(left) if left < SOON && index == 0 => {
                let days = left.as_secs() / DAY;
                findings.warnings.push(format!(
                    "the certificate {} expires {}, in {days} days: renew it",
                    shown(file),
                    date(one.not_after)
                ));
                continue;
            }
            Validity::For(_) => continue,
        };
        if index > 0 {
            // Some are sent on purpose, for old clients that do not check the date.
            let (nth, subject) = (nth(index), &one.subject);
            findings.warnings.push(format!("the {nth} certificate in {name}, {subject}, {wrong}"));
        } else if force {
            findings
                .warnings
                .push(format!("the certificate {} {wrong}; continuing because of FORCE_START", shown(file)));
        } else {
            let remedy = if now < one.not_before { "is the clock right?" } else { "renew it;" };
            let hint = format!("{remedy} FORCE_START=true starts anyway");
            let message = format!("the certificate {name} {wrong}");
            findings.problems.push(Problem::setting(message, &file.origin).hint(hint));
        }
    }
}

/// Each certificate is signed by the next one (RFC 8446, 4.4.2). Many clients tolerate another order.
fn judge_order(file: &File, chain: &[Certificate], findings: &mut Findings) {
    let pairs = chain.iter().zip(chain.iter().skip(1)).enumerate();
    let mut wrong = pairs.filter(|(_, (one, next))| one.issuer != next.subject);
    if let Some((index, (one, next))) = wrong.next() {
        findings.warnings.push(format!(
            "the chain in {} is out of order: the {} certificate is signed by {}, but {} follows; some clients \
             refuse that",
            shown(file),
            nth(index),
            one.issuer,
            next.subject
        ));
    }
}

fn judge_match(files: &Files, chain: &[Certificate], key: &Key, findings: &mut Findings) {
    let (certificate, name) = (&files.certificate, files.key.path.display());
    let Some(public) = &key.public else {
        findings.warnings.push(format!(
            "cannot check whether the private key {} matches the certificate: keys {} are not supported here",
            shown(&files.key),
            key.kind
        ));
        return;
    };
    let place = chain.iter().position(|one| one.public.as_ref() == Some(public));
    let problem = match place {
        Some(0) => return,
        Some(index) => {
            let message =
                format!("the certificate of the key {name} is the {} in {}", nth(index), certificate.path.display());
            Problem::setting(message, &certificate.origin)
                .hint("put it first, followed by each certificate that signed the previous one")
        }
        None => {
            let message =
                format!("the certificate {} and the private key {name} do not match", certificate.path.display());
            let hint = format!("the key is from {}: use two files that were made together", files.key.origin);
            Problem::setting(message, &certificate.origin).hint(hint)
        }
    };
    findings.problems.push(problem);
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
#[cfg(test)]
pub(crate) use tests::example;
